"""tools/reconstruction_methods.py: its measurements are those of its slices, and the table."""

import numpy as np
import pytest

from tools import pretrained
from tools import reconstruction_methods as methods
from zoo.physics import radon
from zoo.reconstruction.reconstruct import METHODS


@pytest.mark.parametrize("key", ["dose", "limited", "mri", "automap"])
def test_the_measurement_is_that_of_the_slice(key):
    """To its noise and the larger pixels."""
    case, unit = methods.KINDS[key].case(0), methods.KINDS[key].unit
    image = radon.hu_to_attenuation(case.target) if unit == "HU" else case.target
    own = case.operator.forward(image).numpy()
    residual = np.abs(own - case.measured)[np.abs(case.measured) > 0]
    noise = np.mean(case.sigma) * (1 if unit == "HU" else 2**0.5)
    assert 0.9 * noise < np.sqrt(np.mean(residual**2)) < 2 * noise


def test_an_arc_is_a_third_less_of_the_views():
    case = methods.KINDS["limited"].case(0)
    assert len(case.measured) == case.operator.views == 64
    degrees = np.rad2deg(case.operator.angles)
    assert degrees.min() > 30 and degrees.max() < 150


def test_every_method_is_known_and_the_table_shows_its_means():
    known = {*pretrained.RUNS, "automap_mri"}
    for kind in methods.KINDS.values():
        named = {method for method, _ in kind.methods.values()}
        assert named <= {*METHODS, *known}
    one = {"psnr": 30.04, "ssim": 0.9, "seconds": 2.0, "lam": 0.5, "rule": "holdout"}
    plain = one | {"psnr": 20.0, "lam": np.nan, "rule": ""}
    name, (first, second, *_) = methods.KINDS["dose"].name, methods.KINDS["dose"].methods
    rows = {
        (name, second): methods.row("dose", second, [one, one | {"psnr": 31.0, "lam": 0.25}]),
        (name, first): methods.row("dose", first, [plain, plain]),
        (name, "gone"): [name, "gone", "", "", "", ""],
    }
    text = methods.table(rows)
    assert text.splitlines()[2:] == [
        f"| {name} | {first} | 20.0 | 0.900 | 2.0 |  |",
        f"|  | {second} | 30.5 | 0.900 | 2.0 | 0.5, 0.25 (`holdout`) |",
    ]
    del rows[name, "gone"]
    assert methods.written(f"before\n\n{text}\n\nafter") == rows
    with pytest.raises(ValueError, match="expected one table of methods. Received: 0"):
        methods.written("before and after")


def test_a_page_keeps_the_rows_that_were_not_asked_for(tmp_path, monkeypatch):
    text = methods.PAGE.read_text(encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    for name, path in (("PAGE", page), ("FOLDER", tmp_path), ("PICTURES", tmp_path / "pictures")):
        monkeypatch.setattr(methods, name, path)
    assert methods.main(["automap/zero_filled"]) == 0
    before, after = methods.written(text), methods.written(page.read_text(encoding="utf-8"))
    key = (methods.KINDS["automap"].name, "zero filling")
    assert after.pop(key)[:4] == before.pop(key)[:4] and after == before
    assert not (tmp_path / "pictures").exists()


def test_what_was_made_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "FOLDER", tmp_path)
    found = methods.made("automap", "zero filling", 0)
    case = methods.KINDS["automap"].case(0)
    np.testing.assert_array_equal(found["target"], case.target)
    np.testing.assert_allclose(
        found["image"], np.abs(case.operator.adjoint(case.measured)), atol=1e-6
    )
    monkeypatch.setattr(methods.zoo, "reconstruct", None)  # it is not asked again
    assert methods.made("automap", "zero filling", 0)["psnr"] == found["psnr"]
    assert methods.main(["tomosynthesis"]) == 2
