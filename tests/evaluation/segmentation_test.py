import json

import numpy as np
import pytest

from measured import CT, Double, Page, evaluated, pairs, volumes
from zoo import figures
from zoo.domain import Domain


class Threshold(Double):
    """A classifier: 0 below 0, 1 up to 100, 2 above; it has no 3."""

    target = Domain(modality="SEG", unit="class", window=(0.0, 3.0))
    classes = 4

    def __init__(self, label_names=()):
        self.label_names = label_names

    def translate(self, array):
        return np.digitize(array, (0.0, 100.0)).astype("float32")


def _label_maps(n):
    for example in pairs(n):
        target = np.digitize(example["target"], (0.0, 100.0)).astype(np.uint8)
        yield example | {"target": target}


def test_segmentation_numbers(tmp_path):
    names = ("air & <nothing>", "soft", "hard", "rare")
    examples = list(_label_maps(7))
    examples[4]["target"][0, :2] = 3
    results = evaluated(Threshold(names), examples, tmp_path)
    assert results["kind"] == "segmentation" and results["label_names"] == list(names)
    assert json.loads((tmp_path / "metrics.json").read_text()) == results
    rows = results["per_image"]
    for i, (row, example) in enumerate(zip(rows, examples, strict=True)):
        output = Threshold().translate(example["source"])
        both = [output == k for k in range(4)], [example["target"] == k for k in range(4)]
        overlap = [
            2 * np.sum(a & b) / (a.sum() + b.sum()) if a.any() or b.any() else None
            for a, b in zip(*both, strict=True)
        ]
        assert list(row["classes"].values()) == pytest.approx(overlap)
        assert row["output"]["accuracy"] == pytest.approx(np.mean(output == example["target"]))
        # The class that is missed counts as 0 where it is, and not at all elsewhere.
        assert overlap[3] == (0.0 if i == 4 else None)
        expected = sum(overlap[1:3]) / (3 if i == 4 else 2)
        assert row["output"]["dice"] == pytest.approx(expected)
    summary = results["summary"]
    scores = [row["output"]["dice"] for row in rows]
    assert summary["output"]["dice"]["mean"] == pytest.approx(np.mean(scores))
    assert summary["output"]["dice"]["median"] == pytest.approx(np.median(scores))
    low, high = summary["output"]["dice"]["patients"]["ci95"]
    assert low < np.mean(scores) < high
    assert (summary["classes"]["rare"]["images"], summary["classes"]["soft"]["images"]) == (1, 7)
    assert summary["classes"]["rare"]["ci95"] == [None, None]
    assert [p["classes"]["rare"] for p in results["per_patient"]] == [None, 0.0, None]
    pixels = np.stack([example["target"] for example in examples])
    commonest = np.bincount(pixels.ravel()).argmax()
    majority = results["majority"]
    assert majority["class"] == names[commonest]
    assert majority["accuracy"] == pytest.approx(np.mean(pixels == commonest))
    assert sum(results["share"].values()) == pytest.approx(1)
    page = Page(tmp_path / "report.html")
    assert len(page.images) == 5 * 3  # source, output, target
    for text in ("air & <nothing>", "Worst mean Dice", "Near the median mean Dice", "7 images"):
        assert text in page.text
    worst = examples[int(np.argmin(scores))]
    shown = figures.overlay(worst["source"], worst["target"], CT.window, 4)
    assert any(np.array_equal(image, shown) for image in page.images)


def test_segmentation_of_volumes_and_of_images_without_a_class(tmp_path):
    class Volumes(Threshold):
        dimensions = 3

    examples = [e | {"target": Threshold().translate(e["target"])} for e in volumes(2, 4)]
    results = evaluated(Volumes(), examples, tmp_path)
    assert results["label_names"] == ["0", "1", "2", "3"] and results["images"] == 2
    empty = np.full((16, 16, 1), -50.0, np.float32)
    examples = [{"source": empty, "target": 0 * empty, "patient": "p"}] * 2
    results = evaluated(Threshold(), examples, tmp_path)
    assert results["summary"]["output"]["dice"]["mean"] is None
    assert results["summary"]["classes"]["0"]["mean"] == 1.0
    assert "No image has a foreground class" in Page(tmp_path / "report.html").text


def test_segmentation_errors(tmp_path):
    bad = list(_label_maps(2))
    bad[1]["target"][0, 0] = 7
    for model, examples, aligned, message in (
        (Threshold(), bad, True, r"'slice 1': target: .*0 to 3. Received: 7 in 1 of 1024"),
        (Threshold(("a", "b")), _label_maps(1), True, "label_names: expected 4 different names"),
        (Threshold(), _label_maps(1), False, "aligned: .*Received: False"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluated(model, examples, tmp_path / "e", aligned=aligned)
    assert not (tmp_path / "e").exists()
