"""tools.choose: what it shows of a model, on images that it is given."""

import nibabel
import numpy as np
import pytest

from tools import choose, scans
from tools.judges import astra_noise


class Halved:
    """A model that takes half of what deviates from 40 HU away."""

    def translate(self, image):
        return 40 + (image - 40) / 2


def test_a_model_that_halves_the_noise_is_shown_as_such(capsys):
    rng = np.random.default_rng(0)
    full = np.full((96, 96), 40, np.float32)
    source = full + rng.normal(0, 30, full.shape).astype(np.float32)
    images = [choose.Case(name, full, source, source) for name in ("head 1: 30 HU", "lung")]
    choose.report(Halved(), images)
    lines = capsys.readouterr().out.splitlines()
    (head,) = [line for line in lines if line.startswith("head 1")]
    assert f"{20 * np.log10(2):+.2f}" in head and head.count("25.0(100.0)") == 5
    assert "lowest +6.02" in lines[-1] and "heads" in lines[-2]


def test_every_patient_gives_two_slices_with_every_level_of_noise(tmp_path, monkeypatch):
    monkeypatch.setattr(scans, "FOLDER", tmp_path / "verify")
    monkeypatch.setattr(choose, "simulated", lambda: iter([]))
    given = []

    def insert(hu, spacing, level, beam, kernel, seed):  # without the package
        given.append((hu.shape, spacing, level, beam, kernel))
        return hu + level

    monkeypatch.setattr(astra_noise, "insert", insert)
    monkeypatch.setitem(choose.denoising.DENOISERS, "BM3D", lambda image, level: image - level)
    for name in ("a", "b"):
        (tmp_path / "scans" / name).mkdir(parents=True)
        image = nibabel.Nifti1Image(np.zeros((40, 30, 9)), np.diag([0.8, 0.8, 5, 1]))
        nibabel.save(image, tmp_path / "scans" / name / "ct.nii")
    found = choose.cases(tmp_path / "scans")
    assert len(found) == 12 and {case.name[:3] for case in found} == {"a 3", "a 6", "b 3", "b 6"}
    assert {g[0] for g in given} == {(40, 40)} and given[0][1] == pytest.approx(0.8)
    assert {g[2] for g in given} == {37, 75, 90, 150, 196}
    for case in found:
        level = int(case.name.split(": ")[1].split(" HU")[0])
        np.testing.assert_allclose(case.source - case.bm3d, 1.2 * level, rtol=1e-5)
    again = choose.cases(tmp_path / "scans")
    assert len(given) == 12  # kept
    np.testing.assert_array_equal(again[3].source, found[3].source)
