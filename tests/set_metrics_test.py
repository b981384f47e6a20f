import hypothesis
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from zoo import set_metrics


def _images(n, seed, blur=0.0, size=64):
    rng = np.random.default_rng(seed)
    return scipy.ndimage.gaussian_filter(rng.normal(size=(n, size, size, 1)), (0, blur, blur, 0))


def test_sliced_wasserstein_levels_and_identity():
    images = _images(8, seed=0)
    distances = set_metrics.sliced_wasserstein(images, images)
    assert distances == {"64": 0.0, "32": 0.0, "16": 0.0, "mean": 0.0}
    assert list(set_metrics.sliced_wasserstein(images[:, :40, :45], images[:, :40, :45])) == [
        "45",
        "23",
        "mean",
    ]


def test_sliced_wasserstein_grows_with_the_difference():
    real = _images(32, seed=0, size=32)
    distances = [
        set_metrics.sliced_wasserstein(real, _images(32, seed=1, blur=blur, size=32), repeats=1)[
            "32"
        ]
        for blur in (0.0, 0.6, 0.9, 1.5)
    ]
    assert distances == sorted(distances)
    assert distances[1] > 1.5 * distances[0] and distances[3] > 4 * distances[0]


def test_sliced_wasserstein_finds_the_level_that_differs():
    # Equal in the coarse, different in the fine: noise that a 2 x 2 mean removes.
    coarse = np.kron(_images(24, seed=0, size=32)[..., 0], np.ones((1, 2, 2)))[..., None]
    other = np.kron(_images(24, seed=1, size=32)[..., 0], np.ones((1, 2, 2)))[..., None]
    checker = np.indices((64, 64)).sum(0)[None, :, :, None] % 2 * 2 - 1
    distances = set_metrics.sliced_wasserstein(coarse, other + 2 * checker)
    same = set_metrics.sliced_wasserstein(coarse, other)
    assert distances["64"] > 5 * same["64"]
    assert distances["16"] == pytest.approx(same["16"], rel=0.05)


def test_sliced_wasserstein_invariances():
    a, b = _images(8, seed=0, size=32), _images(8, seed=1, blur=1.0, size=32)
    there = set_metrics.sliced_wasserstein(a, b)
    assert there == pytest.approx(set_metrics.sliced_wasserstein(b, a))
    assert there == pytest.approx(set_metrics.sliced_wasserstein(3 * a - 7, b), rel=1e-2)
    assert there == set_metrics.sliced_wasserstein(a, b)
    assert there != set_metrics.sliced_wasserstein(a, b, seed=1)


def test_sliced_wasserstein_agrees_with_scipy_in_one_direction():
    rng = np.random.default_rng(0)
    # 7 x 7 images have one patch place and one level: the descriptors are the images.
    a, b = rng.normal(size=(2, 500, 7, 7, 1))
    b = np.sign(b) * np.abs(b) ** 3
    flat = [(x - x.mean()) / x.std() for x in (a.reshape(500, 49), b.reshape(500, 49))]
    directions = rng.normal(size=(49, 2000))
    directions /= np.linalg.norm(directions, axis=0)
    expected = np.mean(
        [scipy.stats.wasserstein_distance(flat[0] @ d, flat[1] @ d) for d in directions.T]
    )
    received = set_metrics.sliced_wasserstein(a, b, patches=1, projections=500)
    assert received["mean"] == pytest.approx(1e3 * expected, rel=0.05)


def test_sliced_wasserstein_refuses_sets_of_different_shapes():
    with pytest.raises(ValueError, match="one shape.*Received: real"):
        set_metrics.sliced_wasserstein(_images(3, 0), _images(4, 0))


def test_pair_similarity_rises_when_a_generator_repeats_itself():
    varied = _images(12, seed=0, blur=2.0)
    collapsed = varied[:1] + 0.01 * _images(12, seed=1)
    window = (-0.5, 0.5)
    assert set_metrics.pair_similarity(varied, window) < 0.5
    assert set_metrics.pair_similarity(collapsed, window) > 0.9
    assert np.isnan(set_metrics.pair_similarity(varied[:1], window))


@hypothesis.settings(max_examples=5, deadline=None)
@hypothesis.given(offset=hypothesis.strategies.floats(-5000, 5000))
def test_pair_similarity_does_not_depend_on_where_a_unit_has_its_zero(offset):
    images = 40 + 100 * _images(2, seed=3, blur=1.0, size=24)
    found = set_metrics.pair_similarity(images + offset, (offset - 160.0, offset + 240.0))
    expected = set_metrics.pair_similarity(images, (-160.0, 240.0))
    assert found == pytest.approx(expected, rel=1e-7)


def test_kid_is_the_unbiased_estimate_by_its_definition():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(0, 1, [7, 5]), rng.normal(0.5, 1.5, [9, 5])

    def k(x, y):
        return (sum(a * b for a, b in zip(x, y, strict=True)) / 5 + 1) ** 3

    def own(s):
        pairs = [k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]
        return sum(pairs) / (len(s) * (len(s) - 1))

    cross = sum(k(x, y) for x in real for y in fake) / (7 * 9)
    assert set_metrics.kid(real, fake) == pytest.approx(own(real) + own(fake) - 2 * cross)
    assert set_metrics.kid(real, fake) == pytest.approx(set_metrics.kid(fake, real))


def test_kid_of_one_distribution_is_0_in_the_mean_whatever_the_number():
    rng = np.random.default_rng(1)
    for count in (4, 32):
        values = []
        for _ in range(400):
            values.append(set_metrics.kid(*rng.normal(size=(2, count, 3))))
        error = np.std(values) / 20
        assert abs(np.mean(values)) < 4 * error
    far = set_metrics.kid(rng.normal(size=(32, 3)), rng.normal(2, 1, size=(32, 3)))
    assert far > 50 * error


def test_kid_refuses_what_has_no_pairs():
    for real, fake in (((1, 3), (4, 3)), ((4, 3), (4, 2)), ((4, 3, 1), (4, 3, 1))):
        with pytest.raises(ValueError, match="kid: expected .*Received"):
            set_metrics.kid(np.ones(real), np.ones(fake))


def test_octave_power_is_the_variance_in_each_octave():
    white = 3.0 * _images(40, seed=0)
    power = set_metrics.octave_power(white)
    # Of white noise each octave has as much as it has frequencies, 9 a unit of area in all.
    rings = np.pi * (0.5**2 - 0.25**2) * 4.0 ** -np.arange(4)
    np.testing.assert_allclose(power, 9 * rings, rtol=0.1)
    np.testing.assert_allclose(set_metrics.octave_power(2 * white + 50), 4 * power, rtol=1e-6)
    assert set_metrics.octave_power(_images(4, 1, blur=1.0))[0] < 0.02 * power[0] / 9


@pytest.mark.parametrize(("cycles", "octave"), [(25, 0), (12, 1), (6, 2), (3, 3)])
def test_a_wave_is_in_its_octave(cycles, octave):
    wave = np.cos(2 * np.pi * cycles * np.arange(64) / 64)
    power = set_metrics.octave_power(np.tile(wave[None, :, None, None], (1, 1, 80, 1)))
    assert power.argmax() == octave
    # Half the amplitude squared, but for what the window spreads to the neighbours.
    np.testing.assert_allclose(power[octave], 0.5, rtol=0.3)


def test_octave_power_refuses_what_has_none():
    with pytest.raises(ValueError, match=r"8 x 8 pixels or more. Received: \(2, 7, 64, 1\)"):
        set_metrics.octave_power(np.zeros((2, 7, 64, 1)))
