"""tools/judges/contrasts.py and tools/heads.py: error and correlation in the head."""

import nibabel
import numpy as np
import pytest

from tools import heads as command
from tools.judges import contrasts
from zoo_datasets.mri_contrast import heads
from zoo_datasets.phantoms import mr_scan
from zoo_datasets.publishers import rigid

SMALL = heads.Protocol(size=56, slices=2)


class Stub:
    """A model that gives what it was told."""

    def __init__(self, answers):
        self.answers = iter(answers)

    def translate(self, images):
        assert images.shape == (1, 56, 56, 1)
        return next(self.answers)[None, ..., None]


@pytest.fixture(scope="module")
def slices():
    images = mr_scan.patient(SMALL, 0, 1)
    return [(f"a {index}", "a", *pair) for index, *pair in heads.scaled(images, SMALL)]


def test_a_perfect_model_and_one_that_is_off(slices):
    targets = [target for *_, target in slices]
    rows, pictures = contrasts.measured(Stub(targets), iter(slices))
    found = contrasts.summary(rows)
    assert found["mae"][0] == 0 and found["correlation"][0] == 1 and found["mae_ratio"] == 0
    assert found["mae_histogram_matched"][0] > 100 and len(pictures) == len(slices)
    # What lies outside the head does not count.
    off = []
    for _, _, source, target in slices:
        head = contrasts.inside(source[..., 0])
        off.append(np.where(head, target + 30, 4000))
    rows, _ = contrasts.measured(Stub(off), iter(slices))
    found = contrasts.summary(rows)
    assert found["mae"][0] == pytest.approx(30) and found["correlation"][0] == pytest.approx(1)
    assert found["mae_ratio"] == pytest.approx(30 / found["mae_histogram_matched"][0], abs=1e-3)


def test_the_head_holds_what_it_encloses():
    axis = np.arange(56) - 27.5
    away = np.hypot(axis, axis[:, None])
    ring = np.where((away < 22) & (away > 8), heads.LEVEL, 0.02 * heads.LEVEL)
    np.testing.assert_array_equal(contrasts.inside(ring)[away < 20], True)
    assert not contrasts.inside(ring)[away > 25].any()


def test_the_command_measures_patients(slices, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rigid, "registered", lambda moving, fixed: moving)
    monkeypatch.setattr(contrasts, "protocol_of", lambda dataset: SMALL)
    folder = tmp_path / "scans" / "Ann"
    folder.mkdir(parents=True)
    images = mr_scan.patient(SMALL, 0, 1)
    for name in ("T1", "T2"):
        image = nibabel.Nifti1Image(images[name].transpose(2, 1, 0), np.diag([-4, -4, 9, 1]))
        nibabel.save(image, folder / f"{name}.nii")
    targets = [target for *_, target in slices]
    monkeypatch.setattr(command.zoo, "load", lambda name, weights: Stub(targets))
    picture = str(tmp_path / "some.png")
    arguments = ["heads", f"--scans={tmp_path / 'scans'}", f"--picture={picture}", "a_model"]
    monkeypatch.setattr("sys.argv", arguments)
    command.main()
    printed = capsys.readouterr().out
    assert "a_model, 2 slices" in printed and "Ann" not in printed
    assert "mae_ratio 0." in printed and (tmp_path / "some.png").stat().st_size > 1000
