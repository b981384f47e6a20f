"""tools.choose_mr: what it shows of a model, on scans that it is given."""

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from tools import choose_mr
from tools.judges.super_resolution import at_level


class Given:
    """A model that has the target, whose background it fills with what it makes of the scale."""

    scale = 2

    def __init__(self, target, ripple):
        self.target, self.ripple = target, ripple

    def baseline(self, source):
        return ndimage.zoom(source, (2, 2, 1), order=1)[None][0], "bicubic"

    def translate(self, source):
        return self.target + self.ripple


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(choose_mr, "SUBJECTS", 0)
    axis = np.arange(64) - 31.5
    disc = np.where(np.hypot(axis, axis[:, None]) < 20, 300.0, 0.0)
    for name in ("Ann", "Bob"):
        (tmp_path / name).mkdir()
        image = nibabel.Nifti1Image(np.repeat(disc[..., None], 5, 2), np.eye(4))
        nibabel.save(image, tmp_path / name / "t1.nii")
    return tmp_path


def test_a_ripple_in_the_background_shows_there_alone(folder, capsys):
    (_, source, target), *others = choose_mr.images(folder, 2)
    assert len(others) == 5 and source.shape == (32, 32)
    np.testing.assert_array_equal(target, at_level(target))
    ripple = 60 * np.random.default_rng(0).standard_normal(target.shape)
    ripple[target > 0] = 0
    ripple[12:-12, 12:-12] = 0
    window = (0.0, float(target.max()))
    found = choose_mr.regions(target + np.abs(ripple), target, window)
    assert found["ssim, head"] > 0.98 > 0.9 > found["ssim, background"]
    choose_mr.report(Given(target, 0), folder)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["Ann", "Bob"]
    _, psnr, ssim, head, background, sharpness, lowest = lines[1].split()
    assert float(ssim) > 0 and float(head) > 0 and float(lowest) == float(ssim)
    assert float(sharpness) == 1 and np.isinf(float(psnr))
