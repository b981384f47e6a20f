"""tools/judges/unrolled.py: the weight that it takes, and the table."""

import numpy as np
import pytest

from tools.judges import unrolled


def slices_of(targets):
    return [
        unrolled.Slice(str(k), f"patient {k}", target, target, target, None, 1.0)
        for k, target in enumerate(targets)
    ]


@pytest.mark.parametrize("best", [0.02, 1.0, 30.0])
def test_the_best_weight_is_found_on_either_side(best, monkeypatch):
    rng = np.random.default_rng(0)
    targets = [rng.uniform(size=(8, 8, 1)) for _ in range(4)]
    asked = []

    def total_variation(each, lam, unit):
        asked.append(each.name)
        return each.target + 0.1 * abs(np.log(lam / best)) * (1 + int(each.name))

    monkeypatch.setattr(unrolled, "slices", lambda *_: iter(slices_of(targets)))
    monkeypatch.setattr(unrolled, "total_variation", total_variation)
    found = unrolled.best_weight("any", 1.0, "HU", (0.0, 1.0))
    assert abs(np.log(found / best)) <= 0.51 * np.log(unrolled.STRIDE)
    assert set(asked) == {"0", "1"}  # those that choose, and no other


def test_the_table_says_by_how_much_and_for_how_many_the_model_is_better():
    same = {"ssim_tv": 0.8, "ssim_model": 0.9}
    rows = [
        {"patient": "a", "psnr_db_tv": 30.0, "psnr_db_model": 32.0} | same,
        {"patient": "b", "psnr_db_tv": 31.0, "psnr_db_model": 30.5} | same,
    ]
    figures, table = unrolled.compared(rows, {"tv": "total variation", "model": "model"})
    assert figures["psnr_over_tv_db"][0] == 0.75 and figures["psnr_db"][0] == 31.25
    assert figures["ssim_tv"][0] == 0.8
    assert table[1] == ["total variation", "30.50", "0.8000", "0.75", "-0.50", "1 of 2"]
    assert table[2][:3] == ["model", "31.25", "0.9000"]
