"""tools/limits.py: limits of patients, what others raise by them, and where both are written."""

import types

import numpy as np
import pytest
from scipy import ndimage

from harness import HU
from tools import battery, cards, limits, pretrained
from zoo.domain import Domain
from zoo.trust import alarms
from zoo.trust.limits import Limits

SIGNAL = Domain(modality="MR", unit="signal", window=(0.0, 4095.0))


def denoiser(domain=HU):
    def translate(images):
        return ndimage.gaussian_filter(images, (0, 0.8, 0.8, 0))

    return types.SimpleNamespace(
        source=domain, target=domain, scale=1, residual=True, dimensions=2, classes=0,
        weights_hash="a" * 64, translate=translate,
    )  # fmt: skip


def patients(seed, count=24):
    """Two images of each: discs in a body, with grain."""
    rows, columns = np.mgrid[-1:1:48j, -1:1:48j]
    for number in range(2 * count):
        rng = np.random.default_rng([seed, number])
        image = np.where(np.hypot(rows, columns) < rng.uniform(0.75, 0.85), 40.0, -1000.0)
        for level in (100.0, -700.0, 500.0):
            row, column = rng.uniform(-0.4, 0.4, 2)
            image[np.hypot(rows - row, columns - column) < 0.2] = level
        image = ndimage.gaussian_filter(image, 0.6).astype("float32")[..., None]
        grain = rng.normal(0, 25, image.shape).astype("float32")
        yield limits.Pair(f"p{number // 2}", image + grain, image)


@pytest.fixture
def entry(monkeypatch):
    monkeypatch.setattr(limits, "simulated", lambda model, dataset, added: patients(added))
    # As a real scan would be that is unlike what gave the limits.
    scan = next(patients(1))
    scan = scan._replace(source=scan.source[::-1].copy() + 300)
    monkeypatch.setattr(limits, "real", lambda model, dataset: [scan])
    found = limits.found(denoiser(), "own")
    return found | {"target": HU.to_dict(), "model": "encoder_decoder"}


def test_some_patients_give_limits_and_others_are_judged(entry):
    stored, told = Limits.from_dict(entry["alarms"]), entry["alarms_raised"]
    assert (stored.patients, stored.most, stored.dataset, stored.split) == (24, 2, "own", "")
    assert "reference" in stored.limits and told["false"] <= 0.1
    assert told["judged_on"] == "48 images of 24 patients, own, simulated anew"
    assert list(told["faults"]) == list(battery.FAULTS)
    for name in ("inverter", "shifter of 3 pixels", "blurrer"):
        assert told["faults"][name]["any"] == 1, name
    assert told["real"]["judged_on"] == "1 images of 1 patients"
    table = limits.table({"some": entry, "none": {}}).splitlines()
    assert len(table) == 3 and table[2].startswith(f"| `some` | {told['false']:.1%} |")


def test_a_card_gets_its_limits_and_stays_as_it_is_besides(entry, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    text = "# a\n\n## Alarms\n\nNot calibrated.\n\n## Memorisation\n\nsome\n"
    (tmp_path / "a.md").write_text(text)
    for _ in range(2):  # and a second time over the first
        cards.write_alarms("a", entry)
        card = (tmp_path / "a.md").read_text()
        start = "# a\n\n## Alarms\n\nAt most 5% of patients like the 24 of own, simulated anew"
        assert card.startswith(start) and card.count("## Memorisation") == 1
        assert card.endswith("\n\n## Memorisation\n\nsome\n") and "Not calibrated" not in card
    assert "| inverter | 100% |" in card and "`tone` 100%" in card
    assert "of 1 images of 1 patients, real ones" in card
    missed = dict(entry["alarms_raised"], false=0.25, unlimited=["tone"], real=None)
    missed["faults"] = {"blurrer": {"any": 0.5, "texture": 0.5}}
    text = cards.alarms(entry | {"alarms_raised": missed})
    assert "No limit: `tone`" in text and text.count("**no**") == 2
    assert "- **no**: each planted fault found in 95% of images or more" in text
    assert "real scans may raise more" in text
    assert "| `a` | **25.0%** |" in limits.table({"a": entry | {"alarms_raised": missed}})
    assert "**50%**" in limits.table({"a": entry | {"alarms_raised": missed}})


def test_faults_are_as_large_in_any_unit():
    """A lesion of 250 HU is an eighth of the range of what has another unit."""
    pair = next(patients(2))
    model = denoiser(SIGNAL)
    source, output = pair.source + 1100, pair.target + 1100
    pair = limits.Pair("p", source, output)
    _, compared = alarms.figures(model, source, output)
    names = limits.faults(model, compared)
    assert "offset of 30 HU" not in names and "eraser of a lesion" in names
    low, high = np.percentile(output, [0.5, 99.5])
    given, made = limits.planted("painter of a lesion", model, pair, output, compared, 0)
    assert given is source and (made - output).max() == pytest.approx((high - low) / 8, rel=0.01)
    given, made = limits.planted("eraser of a lesion", model, pair, output, compared, 0)
    assert made == pytest.approx(output, abs=0.1) and given.dtype == np.float32
    assert (given - source).max() == pytest.approx((high - low) / 8, rel=0.01)
    # Of a super-resolution the input's lesion is as wide in the patient.
    small = limits.Pair("p", source[::2, ::2], output)
    given, _ = limits.planted("eraser of a lesion", model, small, output, compared, 0)
    assert (given - small.source).sum() == pytest.approx((given - small.source).max() * 20, rel=0.2)
