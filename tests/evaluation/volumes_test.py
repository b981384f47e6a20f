import numpy as np
import pytest

from measured import CT, Blur, Page, VolumeBlur, evaluated, pairs, volumes
from zoo import figures, metrics
from zoo.domain import Domain


def test_slices_in_any_order_are_measured_as_the_volume_that_they_are(tmp_path):
    class MR(Blur):
        source = target = Domain(modality="MR", unit="signal", window=(0.0, 400.0))

    examples = []
    for patient, numbers in (("p", range(8, 14)), ("q", range(3)), ("r", (0, 2, 3))):
        for number, example in zip(numbers, pairs(len(numbers)), strict=True):
            texts = {"patient": patient, "name": f"file{patient}-{number:03d}"}
            target = np.abs(example["target"]) * (1 + number)
            examples.append(example | texts | {"target": target})
    shuffled = [examples[i] for i in np.random.default_rng(0).permutation(len(examples))]
    results = evaluated(MR(), shuffled, tmp_path)
    found = results["volumes"]
    assert (found["definition"], found["volumes"], found["left_out"]) == ("fastMRI", 2, 1)
    for row in found["per_volume"]:
        mine = [e for e in examples if e["patient"] == row["patient"]]
        assert row["name"] == f"file{row['patient']}" and row["slices"] == len(mine)
        target = np.stack([e["target"] for e in mine])
        source = np.stack([e["source"] for e in mine])
        expected = metrics.fastmri(MR().translate(source), target)
        assert row["output"] == pytest.approx(expected, rel=1e-5)
        assert row["input"] == pytest.approx(metrics.fastmri(source, target), rel=1e-5)
    summary = found["summary"]["output"]["ssim_fastmri"]
    assert summary["patients"]["count"] == 2
    text = Page(tmp_path / "report.html").text
    assert "SSIM, fastMRI" in text and "1 with a gap" in text
    # Numbered images of nobody in particular are no volume.
    assert evaluated(MR(), [e | {"patient": ""} for e in examples], tmp_path)["volumes"] is None


def test_volumes_of_ct_are_measured_as_synthrad_does(tmp_path):
    wide = Domain(modality="CT", unit="HU", window=(-1024.0, 1500.0))
    model = VolumeBlur()
    model.source = model.target = wide
    examples = list(volumes(2, depth=9))
    results = evaluated(model, examples, tmp_path)
    assert results["volumes"]["definition"] == "SynthRAD2023"
    for row, example in zip(results["volumes"]["per_volume"], examples, strict=True):
        output, target = model.translate(example["source"][None])[0], example["target"]
        expected = metrics.synthrad(output, target, metrics.body_mask(target))
        assert row["output"] == pytest.approx(expected, rel=1e-5)
    assert "SSIM, SynthRAD2023" in Page(tmp_path / "report.html").text
    assert evaluated(model, volumes(1, depth=6), tmp_path)["volumes"] is None  # none of 7 slices


def test_volumes_are_measured_whole_and_shown_in_the_middle(tmp_path):
    results = evaluated(VolumeBlur(), volumes(3), tmp_path)
    assert (results["dimensions"], results["ms_ssim_scales"]) == (3, [2])
    for row, example in zip(results["per_image"], volumes(3), strict=True):
        output = VolumeBlur().translate(example["source"][None])[0]
        clipped = [np.clip(x, *CT.window) for x in (output, example["target"])]
        error = np.subtract(*clipped, dtype=float)
        assert row["output"]["psnr"] == pytest.approx(10 * np.log10(400**2 / np.mean(error**2)))
        planes = zip(output, example["target"], strict=True)
        slices = [metrics.ssim(*pair, CT.window) for pair in planes]
        assert row["output"]["ssim"] == pytest.approx(np.mean(slices))
    page = Page(tmp_path / "report.html")
    assert "3 volumes" in page.text and "the middle slice" in page.text
    assert len(page.images) == 3 * 4
    middle = [figures.grey(example["target"][8], CT.window) for example in volumes(3)]
    for image in page.images[2::4]:
        assert any(np.array_equal(image, each) for each in middle)
    with pytest.raises(ValueError, match=r"at least 11 x 11.*Received: shape \(32, 8, 1\)"):
        evaluated(VolumeBlur(), volumes(1, sides=(32, 8)), tmp_path / "e")
    with pytest.raises(ValueError, match=r"source \[D, H, W, C\]"):
        evaluated(VolumeBlur(), pairs(1), tmp_path / "e")
    assert not (tmp_path / "e").exists()
    unaligned = evaluated(VolumeBlur(), volumes(6), tmp_path, aligned=False)
    assert unaligned["sliced_wasserstein"]["images"] == 3
    assert Page(tmp_path / "report.html").images[0].shape == (32, 32)
