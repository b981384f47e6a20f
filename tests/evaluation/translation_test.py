import json

import numpy as np
import pytest

from measured import CT, Blur, Identity, Page, evaluated, pairs
from zoo import figures, metrics
from zoo.domain import Domain
from zoo.physics import fourier


def test_translation_numbers(tmp_path):
    results = evaluated(Blur(), pairs(10), tmp_path / "e", description="Simulated <x>.")
    assert json.loads((tmp_path / "e" / "metrics.json").read_text()) == results
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == [
        "metrics.json",
        "report.html",
    ]
    assert (results["images"], results["patients"]) == (10, 4)
    assert (results["unit"], results["window"]) == ("HU", [-160.0, 240.0])
    assert results["dataset"]["version"] == "1.0.0" and results["ms_ssim_scales"] == [2]
    rows = results["per_image"]
    for row, example in zip(rows, pairs(10), strict=True):
        output = Blur().translate(example["source"][None])[0]
        body = metrics.body_mask(example["target"])
        expected = metrics.compare(output, example["target"], CT.window, mask=body, zero=-1000.0)
        assert row["output"] == pytest.approx(expected)
        assert row["input"]["rmse"] == pytest.approx(
            metrics.rmse(example["source"], example["target"])
        )
        assert row["gain"]["psnr"] == pytest.approx(row["output"]["psnr"] - row["input"]["psnr"])
    gains = [row["gain"]["psnr"] for row in rows]
    summary = results["summary"]["gain"]["psnr"]
    assert summary["mean"] == pytest.approx(np.mean(gains)) and summary["mean"] > 1
    assert summary["ci95"][0] < summary["mean"] < summary["ci95"][1]
    # The last patient has one image and the others three: each patient counts once.
    by_patient = [np.mean(gains[i : i + 3]) for i in (0, 3, 6, 9)]
    assert [p["images"] for p in results["per_patient"]] == [3, 3, 3, 1]
    assert [p["gain"]["psnr"] for p in results["per_patient"]] == pytest.approx(by_patient)
    assert summary["patients"]["mean"] == pytest.approx(np.mean(by_patient))
    page = Page(tmp_path / "e" / "report.html")
    assert len(page.images) == 5 * 4  # source, output, target, error
    for text in ("ldct/phantom", "1.0.0", "10 images of 4 patients", "Simulated <x>.", "p3"):
        assert text in page.text
    assert f"{results['summary']['output']['psnr']['mean']:.2f}" in page.text


def test_a_mask_of_the_data_set_is_the_body(tmp_path):
    mask = np.zeros((32, 32, 1), bool)
    mask[4:20, 6:30] = True
    examples = [example | {"mask": mask} for example in pairs(4)]
    results = evaluated(Identity(), examples, tmp_path)
    assert results["body"] == "mask of the data set"
    for row, example in zip(results["per_image"], examples, strict=True):
        error = np.abs(example["source"] - example["target"])[4:20, 6:30]
        assert row["output"]["mae_body"] == pytest.approx(error.mean(), rel=1e-5)
    text = Page(tmp_path / "report.html").text
    assert "MAE in the body" in text and "The body is the data set's mask." in text
    empty = [example | {"mask": np.zeros_like(mask)} for example in examples]
    results = evaluated(Identity(), empty, tmp_path)
    assert results["summary"]["output"]["mae_body"]["mean"] is None
    for bad, message in (
        ([examples[0], next(pairs(1))], "expected a mask with every example.*Received: none with"),
        ([next(pairs(1)), examples[1]], "Received: one with 'slice 1'"),
        ([examples[0] | {"mask": mask[1:]}], r"with 'slice 0'. Received: \(31, 32, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluated(Identity(), bad, tmp_path)


def test_the_body_of_a_ct_is_found_and_of_other_images_is_not(tmp_path):
    image = np.full((32, 32, 1), -1000.0, np.float32)
    image[8:24, 8:24] = 30.0
    noisy = image + np.random.default_rng(0).normal(0, 20, image.shape).astype("float32")
    examples = [{"source": noisy, "target": image, "name": "a"}]
    results = evaluated(Identity(), examples, tmp_path)
    assert results["body"] == "threshold"
    expected = np.abs(noisy - image)[8:24, 8:24].mean()
    assert results["per_image"][0]["output"]["mae_body"] == pytest.approx(expected, rel=1e-5)

    class MR(Identity):
        source = target = Domain(modality="MR", unit="signal", window=(0.0, 200.0))

    results = evaluated(MR(), examples, tmp_path)
    assert results["body"] is None and "mae_body" not in results["summary"]["output"]


def test_results_do_not_depend_on_batching_and_repeat(tmp_path):
    runs = [
        evaluated(Blur(), pairs(7), tmp_path / str(size), batch_size=size) for size in (1, 3, 3)
    ]
    for run in runs:
        run.pop("created")
    assert runs[0] == runs[1] == runs[2]
    limited = evaluated(Blur(), pairs(7), tmp_path / "l", limit=4)
    assert limited["per_image"] == runs[0]["per_image"][:4]


def test_identity_has_no_gain_and_perfect_output_is_finite(tmp_path):
    results = evaluated(Identity(), pairs(3), tmp_path)
    assert results["summary"]["gain"]["psnr"]["mean"] == 0
    same = [example | {"source": example["target"]} for example in pairs(3)]
    results = evaluated(Identity(), same, tmp_path)
    assert results["summary"]["output"]["psnr"]["mean"] == 100.0
    assert results["summary"]["output"]["rmse"]["mean"] == 0.0


def test_single_image_without_patient_has_no_interval(tmp_path):
    example = next(pairs(1))
    del example["patient"]
    results = evaluated(Identity(), [example], tmp_path)
    assert results["patients"] is None and results["per_patient"] == []
    assert results["summary"]["output"]["psnr"]["ci95"] == [None, None]
    assert "no interval" in Page(tmp_path / "report.html").text


def test_super_resolution_is_compared_with_bicubic(tmp_path):
    class Enlarge(Identity):
        scale = 2

        def translate(self, array):
            return array.repeat(2, axis=1).repeat(2, axis=2)

    examples = [example | {"source": example["target"][::2, ::2]} for example in pairs(3)]
    results = evaluated(Enlarge(), examples, tmp_path)
    assert results["baseline"] == "input, bicubic"
    assert results["summary"]["gain"]["psnr"]["mean"] < 0  # bicubic beats repetition
    page = Page(tmp_path / "report.html")
    assert "Input, bicubic" in page.text
    assert {image.shape[:2] for image in page.images} == {(32, 32)}  # the input too, enlarged


def test_k_space_is_compared_with_and_shown_as_zero_filling(tmp_path):
    class Reconstruction(Identity):
        source = Domain(modality="MR", unit="k-space", window=(-1e4, 1e4), channels=2)
        target = Domain(modality="MR", unit="signal", window=(0.0, 200.0))

        def translate(self, array):
            return np.stack([fourier.zero_filled(image) for image in array]) + 5.0

    examples = []
    for example in pairs(3):
        target = abs(example["target"])
        kspace = fourier.to_kspace(target[..., 0])
        kspace[::2] = 0
        source = fourier.to_channels(kspace)
        examples.append(example | {"source": source, "target": target})
    results = evaluated(Reconstruction(), examples, tmp_path)
    assert results["baseline"] == "zero-filled"
    expected = [metrics.mae(fourier.zero_filled(e["source"]), e["target"]) for e in examples]
    assert results["summary"]["input"]["mae"]["mean"] == pytest.approx(np.mean(expected))
    page = Page(tmp_path / "report.html")
    assert "against zero filling" in page.text and "Zero-filled" in page.text
    shown = [figures.grey(fourier.zero_filled(e["source"]), (0, 200)) for e in examples]
    for image in page.images[::4]:
        assert any(np.array_equal(image, each) for each in shown)

    class Filtered(Reconstruction):
        def baseline(self, source):
            return super().baseline(source)[0], "FBP"

    evaluated(Filtered(), examples, tmp_path)
    assert "against filtered back-projection" in Page(tmp_path / "report.html").text


def test_other_units_have_no_gain_and_slices_take_the_middle(tmp_path):
    class Synthesis(Identity):
        source = Domain(modality="MR", unit="signal", window=(0.0, 1000.0))

    results = evaluated(Synthesis(), pairs(3), tmp_path)
    assert results["baseline"] is None and list(results["summary"]) == ["output"]

    class Middle(Identity):
        def translate(self, array):
            return array[..., 1:2]

    stacks = [
        example | {"source": np.concatenate([0 * example["source"], example["source"]] * 2, -1)}
        for example in pairs(3)
    ]
    stacks = [example | {"source": example["source"][..., :3]} for example in stacks]
    results = evaluated(Middle(), stacks, tmp_path)
    assert results["summary"]["gain"]["mae"]["mean"] == 0


def test_unaligned_translation_is_compared_as_sets(tmp_path):
    perfect = [example | {"source": example["target"]} for example in pairs(16)]
    results = evaluated(Identity(), perfect, tmp_path / "same", aligned=False)
    distances = results["sliced_wasserstein"]
    assert distances["images"] == 8
    assert distances["output"] == distances["real target"] == distances["input"]
    assert "per_image" not in results
    results = evaluated(Blur(), pairs(16), tmp_path / "blur", aligned=False)
    distances = results["sliced_wasserstein"]
    assert distances["real target"]["32"] < distances["output"]["32"] < distances["input"]["32"]
    page = Page(tmp_path / "blur" / "report.html")
    assert len(page.images) == 5 * 3 and "Real targets (reference)" in page.text
