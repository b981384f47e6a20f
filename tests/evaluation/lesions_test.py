"""Lesions put into inputs, through models whose answer to them is known."""

import json
import re

import numpy as np
import pytest
import scipy.ndimage

import harness
from stand_in import CT, MR, Model
from zoo import command_line, run
from zoo.evaluation import lesions, report, summary
from zoo.trust.conformal import upper_bound

SIGMA = 25.0  # HU of noise in the inputs


class Filter(Model):
    """Does something known to each image."""

    def __init__(self, function, **fields):
        super().__init__(source=CT, target=CT, **fields)
        self.function = function

    def translate(self, images, batch_size=1):
        return np.stack([self.function(image[..., 0])[..., None] for image in images])

    def baseline(self, source):
        return source, "input"


def blurred(sigma):
    return lambda image: scipy.ndimage.gaussian_filter(image, sigma)


def painted(image):
    """Two bright blobs where nothing is."""
    image = image.copy()
    for row, column in ((40, 40), (90, 80)):
        image[row - 3 : row + 4, column - 3 : column + 4] += 150
    return image


def examples(count=10, sigma=SIGMA):
    """Patients of two smooth slices, the input with noise and the target without."""
    rng = np.random.default_rng(0)
    for number in range(count):
        target = scipy.ndimage.gaussian_filter(rng.normal(size=(128, 128)), 12) * 300
        source = target + rng.normal(0, sigma, target.shape)
        pair = {"source": source[..., None], "target": target[..., None]}
        about = {"patient": f"p{number // 2}", "name": f"p{number // 2}-{number}"}
        mask = np.ones((128, 128, 1), bool)
        yield about | {"mask": mask} | {k: v.astype("float32") for k, v in pair.items()}


@pytest.fixture(scope="module")
def measured():
    functions = {
        "identity": lambda image: image,
        "half": lambda image: image * 0.45,
        "blurred": blurred(2.0),
        "painted": painted,
    }
    found = {n: lesions.measure(Filter(f), examples()) for n, f in functions.items()}
    return found | {"many": lesions.measure(Filter(functions["identity"]), examples(40))}


def rows(results, **wanted):
    return [r for r in results["rows"] if all(r[k] == v for k, v in wanted.items())]


def test_the_disc_has_the_area_that_its_diameter_says():
    for diameter in (4, 7, 11):
        shape = lesions.profile(diameter)
        assert shape.sum() == pytest.approx(np.pi * diameter**2 / 4, rel=0.01)
        np.testing.assert_allclose(shape, shape[::-1, ::-1], atol=1e-12)
    assert shape.max() == pytest.approx(1, abs=1e-3)


def test_what_changes_nothing_loses_and_invents_nothing(measured):
    found = measured["identity"]
    assert (found["images"], found["patients"]) == (10, 5)
    assert found["lesions"] == sum(row["lesions"] for row in found["rows"]) > 70
    for row in found["rows"]:
        assert row["kept"] == pytest.approx(1, abs=1e-4) and row["lost"]["share"] == 0
        assert upper_bound(0, 5, 0.05) <= row["lost"]["at_most"] <= upper_bound(0, 3, 0.05)
        assert row["blobs_output"] == row["blobs_input"]
        # In white noise the ideal observer's d' is the signal's energy over the noise.
        signal = row["contrast"] * lesions.profile(row["diameter_px"])
        assert row["ideal"] == pytest.approx(np.sqrt((signal**2).sum()) / SIGMA, rel=0.1)
    assert found["noise"]["input"]["sd"] == pytest.approx(SIGMA, rel=0.03)
    assert all(curve["half"] is None for curve in found["transfer"])
    # The observer of channels sees what the ideal one does, or a little less.
    for row in measured["many"]["rows"]:
        assert row["detected_output"]["auc"] == pytest.approx(row["detected_input"]["auc"])
        assert 0.6 * row["ideal"] < row["detected_input"]["d"] < 1.4 * row["ideal"]
        low, high = row["detected_input"]["auc_ci95"]
        assert 0.5 <= low <= row["detected_input"]["auc"] <= high <= 1


def test_contrast_that_is_gone_is_lost(measured):
    for row in measured["half"]["rows"]:
        assert row["kept"] == pytest.approx(0.45, abs=1e-4) and row["lost"]["share"] == 1
    seen = measured["half"]["lost_of_seen"]
    assert seen["share"] == 1 and 20 < seen["lesions"] < measured["half"]["lesions"]


def test_a_blur_loses_the_small_and_keeps_the_large(measured):
    kept = [rows(measured["blurred"], diameter_px=d, contrast=100.0)[0] for d in (4, 11)]
    shapes = [lesions.profile(d) for d in (4, 11)]
    for row, shape in zip(kept, shapes, strict=True):
        expected = (scipy.ndimage.gaussian_filter(shape, 2.0) * shape).sum() / (shape**2).sum()
        assert row["kept"] == pytest.approx(expected, rel=0.02)
    assert kept[0]["lost"]["share"] == 1 and kept[1]["lost"]["share"] == 0
    # The transfer function is the Gaussian's own.
    for curve in measured["blurred"]["transfer"]:
        expected = np.exp(-2 * (np.pi * 2.0 * np.array(curve["frequency"])) ** 2)
        np.testing.assert_allclose(curve["transfer"], expected, atol=0.06)
        assert curve["half"] == pytest.approx(np.sqrt(np.log(2) / 2) / np.pi / 2, abs=0.008)
    noise = measured["blurred"]["noise"]
    assert noise["output"]["mean_frequency"] < 0.5 * noise["input"]["mean_frequency"]


def test_a_painter_is_found(measured):
    before, after = (
        rows(measured[name], diameter_px=7, contrast=100.0)[0] for name in ("identity", "painted")
    )
    assert before["blobs_output"] == 0 and after["blobs_output"] == 200 > after["blobs_input"]
    assert after["kept"] == pytest.approx(1, abs=1e-4)  # it loses nothing


def test_the_report_and_the_lines_say_it(measured):
    results = {"lesions": measured["painted"], "unit": "HU", "window": [-1000, 1000]}
    page = report.lesion_report.section(results)
    assert "<td>7 pixels</td>" in page and "200 <small>(0)</small>" in page
    results |= {"dataset": {"name": "own", "split": "test"}, "images": 10, "patients": 5}
    (line,) = [x for x in summary.lines(results | {"dimensions": 2}) if "lesions" in x]
    assert "that the input shows: 0.0% (at most" in line
    assert report.lesion_report.section({"lesions": None}) == ""


def test_the_command_puts_them_into_the_report(tmp_path, data_dir, capsys, monkeypatch):
    model = harness.build("encoder_decoder", {"levels": 2, "base_filters": 4, "output": "auto"})
    for weights in model.network.trainable_variables[-2:]:
        weights.assign(weights * 0)  # a correction of nothing: all is kept
    sha256 = model.save_network(tmp_path / "run" / "a.weights.h5")
    record = {"model": "encoder_decoder", "dataset": "ldct/phantom_tiny", "state": "done"}
    record |= {"recipe": model.recipe.to_dict(), "source": model.source.to_dict()}
    record |= {"target": model.target.to_dict()}
    run.write(tmp_path / "run", record | {"weights": {"file": "a.weights.h5", "sha256": sha256}})
    arguments = [f"--model={tmp_path / 'run'}", f"--data_dir={data_dir}", "--lesions", "--limit=4"]
    arguments.append(f"--report={tmp_path / 'alarms'}")
    kind, batches = type(model), []
    translate = kind.translate
    monkeypatch.setattr(kind, "translate", lambda *a: batches.append(1) or translate(*a))
    assert command_line.main(["zoo", "evaluate", *arguments]) == 0
    assert re.search(
        r"lost of \d+ lesions that the input shows: 0.0%|none of", capsys.readouterr().out
    )
    assert len(batches) == 4 + 4  # one pass serves all, beside the images with lesions
    told = json.loads((tmp_path / "alarms/alarms.json").read_text())
    assert sum(len(series["per_image"]) for series in told["series"]) == 4
    found = json.loads((tmp_path / "run/evaluation/metrics.json").read_text())["lesions"]
    assert found["images"] == 4 and found["lesions"] >= 4
    assert all(row["kept"] == pytest.approx(1, abs=1e-4) for row in found["rows"] if row["lesions"])
    assert "<h2>Lesions</h2>" in (tmp_path / "run/evaluation/report.html").read_text()


def test_what_lesions_cannot_be_followed_through_is_refused():
    with pytest.raises(ValueError, match="of the same unit and size. Received: stand-in"):
        lesions.measure(Model(source=MR, target=CT), examples(1))
    small = [{k: v[:30] if v is not None and k in ("source", "target", "mask") else v
              for k, v in e.items()} for e in examples(1)]  # fmt: skip
    with pytest.raises(ValueError, match="room for 32 x 32 pixels in the patient"):
        lesions.measure(Filter(painted), small)
