"""The commands that measure training without clean or aligned targets, on small simulated data."""

import nibabel
import numpy as np
import pytest

from tools import misaligned, no_clean_image
from tools.judges import low_dose
from zoo import metrics


def series() -> np.ndarray:
    """A cylinder with an insert in air, HU `[slices, H, W]`."""
    axis = np.arange(48) - 23.5
    radius = np.hypot(axis, axis[:, None])
    slice_ = np.where(radius < 18, 40.0, -1000.0) + np.where(radius < 6, 60.0, 0.0)
    return np.stack([slice_] * 4)


def test_a_series_is_denoised_by_its_own_noise_and_compared(tmp_path, capsys, monkeypatch):
    told = []

    def bm3d(image, level):  # the package is not needed to see what it is told
        told.append(level)
        return image

    monkeypatch.setitem(low_dose.DENOISERS, "BM3D", bm3d)
    image = nibabel.Nifti1Image(series().transpose(2, 1, 0).astype("f4"), np.diag([-6, -6, 5, 1]))
    nibabel.save(image, tmp_path / "series.nii")
    arguments = [f"--input={tmp_path / 'series.nii'}", f"--folder={tmp_path / 'work'}"]
    assert (
        no_clean_image.main(
            [*arguments, "--steps=2", "--judged=2", "--dose=0.1", "--told", "1", "1.2"]
        )
        == 0
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    psnr = {line.split(" | ")[0][2:]: line.split(" | ")[1] for line in lines[1:]}
    assert list(psnr)[0] == "noisy" and "`target=neighbour`, from nothing" in psnr
    # The noise is measured in the body of the judged slices, and BM3D gets the noisy ones.
    noisy = np.load(tmp_path / "work" / "noisy.npy")[[0, 3]]
    clean = series()[[0, 3]]
    level = (noisy - clean)[clean > -500].std()
    assert told == pytest.approx([level, level, 1.2 * level, 1.2 * level], rel=1e-3)
    values = [metrics.psnr(a[..., None], b[..., None], low_dose.HU)
              for a, b in zip(noisy, clean.astype("f4"), strict=True)]  # fmt: skip
    assert psnr["noisy"] == f"{np.mean(values):.2f} ± {np.std(values):.2f}"
    assert psnr["BM3D, 1 × the noise"] == psnr["noisy"]


def test_a_table_says_what_registration_wins_back(tmp_path, capsys, monkeypatch):
    """Of runs that are as good as they are told to be; 1 where less than half comes back."""
    better = iter([30.0, 26.0, 28.5, 30.0, 26.0, 27.5])

    def judged(run, data):
        value = next(better)
        return {
            "psnr": np.array([value - 1, value + 1]),
            "shift": np.array([[0.1, -0.2], [0.1, 0.0]]),
            "patient": np.array(["a", "b"]),
        }

    monkeypatch.setattr(misaligned, "trained", lambda name, given: tmp_path / name)
    monkeypatch.setattr(misaligned, "judged", judged)
    assert misaligned.main(["--steps=7"]) == 0
    said = capsys.readouterr().out
    assert "2 test images of 2 patients" in said
    assert "| misaligned pairs, registration=true | 28.50 ± 1.00 | +0.10, -0.10 |" in said
    assert "costs 4.00 dB; registration wins back 62%" in said
    assert misaligned.main([]) == 1


def test_a_shift_is_measured_in_pixels(tmp_path, data_dir, monkeypatch):
    """Of outputs that are the targets, moved two rows down and one column left."""
    from zoo.data import batches

    examples = [
        {"source": image, "target": image, "patient": str(i)}
        for i, image in enumerate(
            np.random.default_rng(0).uniform(-900, 900, (3, 64, 64, 1)).astype("f4")
        )
    ]

    class Moved:
        class target:
            window = (-1000.0, 1000.0)

        def translate(self, images):
            return np.roll(images, (2, -1), (1, 2))

    monkeypatch.setattr(batches, "eval_dataset", lambda builder: examples)
    monkeypatch.setattr(misaligned.prepare, "load_builder", lambda *_: None)
    monkeypatch.setattr(misaligned.zoo, "load", lambda name: Moved())
    shift = misaligned.judged(tmp_path, data_dir)["shift"]
    np.testing.assert_allclose(shift, [[2, -1]] * 3, atol=0.05)
