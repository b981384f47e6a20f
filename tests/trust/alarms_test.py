"""Figures beside an output: against independent computations, and planted faults that they find."""

import json
import types

import numpy as np
import pytest
import scipy.stats
import skimage.metrics
from scipy import ndimage

import harness
from harness import HU
from tools import battery
from zoo.domain import Domain
from zoo.trust import alarms, ring
from zoo.trust.limits import FALSE_ALARMS, Limits, Usual

DENOISER = types.SimpleNamespace(
    source=HU, target=HU, scale=1, residual=True, dimensions=2, classes=0, weights_hash="a" * 64
)


def patients(count, seed):
    """A noisy CT of 64 x 64 pixels, and what a good denoiser makes of it, of each patient."""
    rows, columns = np.mgrid[-1:1:64j, -1:1:64j]
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        image = np.full((64, 64), -1000.0)
        image[np.hypot(rows / rng.uniform(0.7, 0.85), columns / rng.uniform(0.85, 0.95)) < 1] = 40
        for level in (*rng.uniform(0, 90, 4), -800, 400, 500):
            size, (row, column) = rng.uniform(0.08, 0.2), rng.uniform(-0.5, 0.5, 2)
            image[np.hypot(rows - row, columns - column) < size] = level
        image = ndimage.gaussian_filter(image, 0.6)
        noise = ndimage.gaussian_filter(rng.normal(0, 1, image.shape), 0.5)
        noise *= rng.uniform(25, 40) / noise.std()
        made = ndimage.gaussian_filter(image, 0.3) + 0.2 * noise + rng.normal(0, 2, image.shape)
        yield (image + noise)[..., None].astype("float32"), made[..., None].astype("float32")


@pytest.fixture(scope="module")
def limits():
    usual = Usual()
    for number, pair in enumerate(patients(24, 1)):
        usual.add(f"{number}", alarms.figures(DENOISER, *pair)[0])
    return usual.limits(DENOISER, "own", "validation")


@pytest.fixture(scope="module")
def held_out():
    return list(patients(20, 2))


def test_good_outputs_of_other_patients_raise_nothing(limits, held_out):
    assert limits.false_alarms == FALSE_ALARMS and (limits.patients, limits.most) == (24, 1)
    assert battery.share(battery.raised(DENOISER, limits, held_out)) <= 0.05


@pytest.mark.parametrize("name", battery.FAULTS)
def test_planted_faults_raise_what_they_must(name, limits, held_out):
    fault = battery.FAULTS[name]
    found = battery.raised(DENOISER, limits, held_out, fault)
    for alarm in fault.raises:
        assert battery.share(found, alarm) >= 0.95, alarm
    for alarm in fault.silent:
        assert battery.share(found, alarm) <= 0.05, alarm


def test_figures_against_independent_computations():
    rng = np.random.default_rng(0)
    one = ndimage.gaussian_filter(rng.normal(0, 500, (40, 48)), 2).astype("float32")
    other = one + rng.normal(0, 20, one.shape).astype("float32")
    assert alarms.correlation(one, other) == pytest.approx(
        scipy.stats.pearsonr(one.ravel(), other.ravel()).statistic
    )
    expected = skimage.metrics.normalized_mutual_information(one, other, bins=alarms.BINS) - 1
    assert alarms.information(one, other) == pytest.approx(expected)
    assert alarms.information(one, one) == pytest.approx(1)
    assert np.isnan(alarms.correlation(one, np.zeros_like(one)))
    # Of an image moved by two pixels and a half, through its Fourier transform.
    phase = np.exp(-2j * np.pi * 2.5 * np.fft.fftfreq(48))
    moved = np.fft.ifft(np.fft.fft(one, axis=1) * phase, axis=1).real.astype("float32")
    found, _ = alarms.figures(DENOISER, one[..., None], moved[..., None])
    assert found["shift"] == pytest.approx(2.5, abs=0.11)
    # Outside the window of -1000 to 1000; drift and its tissue.
    flat = np.full((40, 48, 1), 30.0, "float32")
    flat[:4] = 1500.0
    found, compared = alarms.figures(DENOISER, flat, flat + 7)
    assert found["outside"] == pytest.approx(0.1) and found["water"] == pytest.approx(7)
    assert "air" not in found and compared.given.max() == 1000


def test_noise_that_was_removed_has_no_blobs_and_no_grain():
    rng = np.random.default_rng(3)
    truth = np.zeros((96, 96, 1), "float32")
    noise = rng.normal(0, 30, truth.shape).astype("float32")
    found, _ = alarms.figures(DENOISER, truth + noise, truth + rng.normal(0, 3, truth.shape))
    assert found["removed_blob"] < 6 and abs(found["removed_grain"]) < 0.05
    rows, columns = np.mgrid[:96, :96]
    lesion = 90.0 * (np.hypot(rows - 50, columns - 40) < 4)
    found, compared = alarms.figures(DENOISER, truth + noise + lesion[..., None], truth)
    assert found["removed_blob"] > 8
    place = np.unravel_index(np.abs(compared.places).argmax(), (96, 96))
    assert np.hypot(place[0] - 50, place[1] - 40) < 3


def test_patches_that_are_not_the_references():
    rng = np.random.default_rng(4)
    truth = ndimage.gaussian_filter(rng.normal(0, 1, (128, 128)), 1.0) * 2000
    made = truth.copy()
    made[:64, :64] = ndimage.gaussian_filter(rng.normal(0, 1, (64, 64)), 1.0) * 2000
    found = ring.patches(made, truth, 2000.0)
    assert found.side == 64 and len(found.corners) == 9
    suspect = {tuple(corner) for corner in found.corners[found.suspect]}
    assert (0, 0) in suspect and not suspect & {(64, 64), (64, 0), (0, 64)}
    assert not ring.patches(truth, truth, 2000.0).suspect.any()
    # What the reference shows nothing of is not asked.
    assert len(ring.patches(made, np.zeros_like(truth), 2000.0).corners) == 0
    # Of white noise in a flat window the rings' shares are what noise leaves of them.
    white = rng.normal(0, 1, (64, 64))
    curve = ring.correlation(white + rng.normal(0, 1, (64, 64)), white, np.ones((64, 64)))
    assert np.mean(curve[8:]) == pytest.approx(np.sqrt(0.5), abs=0.05)


def test_models_of_other_kinds_are_compared_with_what_there_is_without_them():
    rng = np.random.default_rng(5)
    # Twice as fine: the enlarged input, and what was added to it.
    larger = harness.build("srcnn", {"scale": 2, "filters1": 4, "filters2": 4, "output": "auto"})
    source = ndimage.gaussian_filter(rng.normal(0, 900, (24, 28)), 2)[..., None].astype("float32")
    found, compared = alarms.figures(larger, source, larger.translate(source[None])[0])
    assert compared.given.shape == (48, 56) and "removed_blob" in found and found["shift"] < 0.6
    # Two contrasts: nothing is removed, and no drift is known.
    signal = Domain(modality="MR", unit="signal", window=(0.0, 100.0))
    contrasts = types.SimpleNamespace(**vars(DENOISER) | {"source": signal, "target": signal})
    contrasts.residual = False
    source = 50 + source / 60
    found, compared = alarms.figures(contrasts, source, 100 - source)
    assert set(found) == {"edges", "tone", "information", "shift", "outside", "texture"}
    assert compared.removed is None and found["tone"] == pytest.approx(-1)
    # A way back, whose error is of the source's window.
    back = types.SimpleNamespace(**vars(DENOISER))
    back.there_and_back = lambda images: images + 20
    found, _ = alarms.figures(back, source * 0, source)
    assert found["cycle"] == pytest.approx(0.01)
    classes = harness.build("encoder_decoder", {"levels": 2, "base_filters": 4}, HU, signal)
    alarms.require(classes)
    with pytest.raises(ValueError, match="expected a model that translates images. Received: cl"):
        alarms.require(types.SimpleNamespace(classes=3))


def test_there_and_back_is_what_the_networks_give():
    model = harness.build("cyclegan", {"base_filters": 2, "blocks": 1, "output": "image"})
    images = np.random.default_rng(6).uniform(-900, 900, (1, 16, 20, 1)).astype("float32")
    back = model.there_and_back(images)
    assert back.shape == images.shape
    values = HU.scale(images)
    for here, there in (("a", "b"), ("b", "a")):
        code = model.network.encode(here, np.clip(values, -1, 1))
        values = model.network.decode(there, code).numpy()
    np.testing.assert_allclose(back, HU.decode(values), atol=2.0)


def test_limits_are_exceeded_by_few_patients_and_survive_json():
    """Of patients from one distribution with two images each: at most a twentieth, on average."""
    rng, shares = np.random.default_rng(7), []

    def drawn():
        level = rng.normal(0, 0.3)
        own = {"water": rng.normal(level, 10), "shift": abs(rng.normal(0, 0.1))}
        return own | {"edges": float(np.tanh(rng.normal(2 + level, 0.2)))}

    for _ in range(25):
        usual = Usual()
        for number in range(40):
            for _ in range(2):
                usual.add(f"{number}", drawn())
        limits = usual.limits(DENOISER, "own", "validation")
        shares.append(np.mean([bool(limits.breaches(drawn()) + limits.breaches(drawn()))
                               for _ in range(40)]))  # fmt: skip
    assert np.mean(shares) <= 0.05
    assert limits.limits["edges"][1] is None and limits.limits["shift"][0] is None
    again = Limits.from_dict(json.loads(json.dumps(limits.to_dict())))
    assert again == limits
    (breach,) = limits.breaches({"shift": 5.0, "water": 0.0})
    assert breach.words("HU").startswith("shift 5 pixels, limit 0.")
    for change, text in (
        ({"limits": {"shift": [1]}}, r"limits: shift: expected \[low, high\]"),
        ({"patients": "x"}, "patients: expected another kind. Received: 'x'"),
        ({"more": 1}, "expected limits, false_alarms"),
    ):
        with pytest.raises(ValueError, match=text):
            Limits.from_dict(limits.to_dict() | change)
    one = Usual()
    one.add("a", drawn())
    with pytest.raises(ValueError, match="expected 2 or more for alarms. Received: 1"):
        one.limits(DENOISER, "own", "validation")


def test_few_patients_promise_what_they_can():
    usual = Usual()
    for number in range(4):
        usual.add(f"{number}", {"shift": 0.1})
    limits = usual.limits(DENOISER, "own", "validation")
    assert limits.false_alarms == 0.2 and "at most 20% of patients" in limits.words
    # No room is taken for a fault.
    assert not limits.breaches({"shift": 0.35}) and limits.breaches({"shift": 0.6})
