import hypothesis
import hypothesis.extra.numpy
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import skimage.metrics

from zoo import metrics


def _pair(shape, seed=0, noise=40.0):
    """A smooth image in HU and a noisy version, both reaching beyond the window (-160, 240)."""
    rng = np.random.default_rng(seed)
    sigma = (4, 4) + (0,) * (len(shape) - 2)
    target = scipy.ndimage.gaussian_filter(rng.normal(size=shape), sigma)
    target = 40 + 150 * target / target.std()
    return target + rng.normal(0, noise, shape), target


WINDOW = (-160.0, 240.0)


def test_simple_numbers():
    target = np.zeros((16, 16))
    output = np.zeros((16, 16))
    output[0, 0] = 160.0  # one pixel of 256
    assert metrics.rmse(output, target) == pytest.approx(10.0)
    assert metrics.mae(output, target) == pytest.approx(0.625)
    # RMSE 10 in a window of 1000: 40 dB. A window that cuts the pixel to 80 halves the error.
    assert metrics.psnr(output, target, (-500, 500)) == pytest.approx(40.0)
    assert metrics.psnr(output, target, (-920, 80)) == pytest.approx(40 + 20 * np.log10(2))
    assert metrics.psnr(target, target, (-500, 500)) == np.inf
    assert metrics.ssim(target, target, WINDOW) == 1.0
    assert metrics.ms_ssim(target, target, WINDOW) == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(64, 80), (33, 47, 1), (40, 40, 3)])
def test_psnr_and_ssim_are_those_of_scikit_image(shape):
    output, target = _pair(shape)
    clipped = [np.clip(x, *WINDOW) - WINDOW[0] for x in (target, output)]
    assert metrics.psnr(output, target, WINDOW) == pytest.approx(
        skimage.metrics.peak_signal_noise_ratio(*clipped, data_range=400), abs=1e-12
    )
    assert metrics.ssim(output, target, WINDOW) == pytest.approx(
        skimage.metrics.structural_similarity(
            *clipped,
            data_range=400,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=2 if len(shape) == 3 else None,
        ),
        abs=1e-12,
    )


@pytest.mark.parametrize("shape", [(176, 176, 1), (256, 201, 1), (192, 192, 3)])
def test_ms_ssim_is_that_of_tensorflow(shape):
    import tensorflow as tf

    output, target = _pair(shape, noise=90)
    # TensorFlow counts from 0, which is the window's low end here.
    images = [(np.clip(x, *WINDOW) - WINDOW[0]).astype("float32")[None] for x in (output, target)]
    expected = float(tf.image.ssim_multiscale(*images, max_val=400.0)[0])
    assert 0.3 < expected < 0.97
    assert metrics.ms_ssim(output, target, WINDOW) == pytest.approx(expected, abs=1e-3)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    offset=hypothesis.strategies.floats(-5000, 5000),
    bias=hypothesis.strategies.floats(-80, 80),
    noise=hypothesis.strategies.floats(1, 60),
)
def test_similarity_does_not_depend_on_where_a_unit_has_its_zero(offset, bias, noise):
    output, target = _pair((24, 24), noise=noise)
    shifted = tuple(value + offset for value in WINDOW)
    for measure in (metrics.psnr, metrics.ssim, metrics.ms_ssim):
        expected = measure(output + bias, target, WINDOW)
        received = measure(output + bias + offset, target + offset, shifted)
        assert received == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("measure", [metrics.ssim, metrics.ms_ssim])
def test_a_bias_in_water_counts_by_its_share_of_the_window(measure):
    """Of means m and m + b from the window's low end, luminance is all that differs."""
    window = (-1024.0, 1500.0)
    water, constant = np.zeros((32, 32)), (0.01 * 2524) ** 2
    scores = [measure(water + bias, water, window) for bias in (0, 5, 20, 80, 320)]
    assert scores == sorted(scores, reverse=True)
    luminance = (2 * 1024 * 1044 + constant) / (1024**2 + 1044**2 + constant)
    # 32 pixels hold two scales, and luminance counts at the coarser one.
    weight = 1.0 if measure is metrics.ssim else 0.2856 / (0.0448 + 0.2856)
    assert scores[2] == pytest.approx(luminance**weight, rel=1e-9)
    assert scores[2] > 0.999


def test_ms_ssim_of_small_images_uses_fewer_scales():
    assert [metrics.ms_ssim_scales((s, 999)) for s in (11, 20, 21, 41, 160, 161, 512)] == [
        1, 1, 2, 3, 4, 5, 5,
    ]  # fmt: skip
    output, target = _pair((20, 20))
    # One scale with its weight renormalised to 1 is plain SSIM.
    assert metrics.ms_ssim(output, target, WINDOW) == pytest.approx(
        metrics.ssim(output, target, WINDOW)
    )
    for measure in (metrics.ssim, metrics.ms_ssim):
        with pytest.raises(ValueError, match=r"at least 11 x 11.*Received: shape \(10, 64, 1\)"):
            measure(np.zeros((10, 64)), np.zeros((10, 64)), WINDOW)


def test_compare():
    output, target = _pair((48, 48, 1))
    measured = metrics.compare(output, target, WINDOW)
    assert measured["rmse"] == pytest.approx(np.sqrt(np.mean((output - target) ** 2)))
    assert measured["rmse_window"] < measured["rmse"]
    assert measured["mae_window"] < measured["mae"]
    # PSNR and the error in the window say the same.
    assert measured["psnr"] == pytest.approx(20 * np.log10(400 / measured["rmse_window"]))
    assert metrics.compare(target, target, WINDOW)["psnr"] == 100.0
    with pytest.raises(ValueError, match="one shape"):
        metrics.rmse(np.zeros((4, 4)), np.zeros((4, 5)))


def test_volumes():
    output, target = _pair((3, 24, 40, 1))
    slices = [metrics.compare(a, b, WINDOW) for a, b in zip(output, target, strict=True)]
    measured = metrics.compare(output, target, WINDOW)
    for key in ("ssim", "ms_ssim", "mae"):
        assert measured[key] == pytest.approx(np.mean([each[key] for each in slices]))
    mean_square = np.mean([each["rmse_window"] ** 2 for each in slices])
    assert measured["psnr"] == pytest.approx(10 * np.log10(400**2 / mean_square))


def test_normalised_error_counts_from_the_value_of_no_signal():
    output, target = _pair((20, 30, 1))
    ratio = np.linalg.norm(output - target) ** 2 / np.linalg.norm(target + 1000) ** 2
    assert metrics.nmse(output, target, zero=-1000.0) == pytest.approx(ratio)
    assert metrics.nmse(output + 1000, target + 1000) == pytest.approx(ratio)
    assert metrics.nmse(output, np.zeros_like(output)) != metrics.nmse(output, target)
    assert np.isnan(metrics.nmse(output, np.zeros_like(output)))


def _chest(size=64):
    """A trunk in air with two lungs, its table apart, in HU `[H, W, 1]`; and where it is."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    trunk = (x / 0.8) ** 2 + (y / 0.6) ** 2 < 1
    image = np.where(trunk, 40.0, -1000.0)
    for side in (-0.35, 0.35):
        image[((x - side) / 0.25) ** 2 + (y / 0.35) ** 2 < 1] = -850.0
    image[-4:-2] = 100.0
    return image[..., None], trunk[..., None]


def test_the_body_is_the_largest_part_and_holds_its_lungs():
    image, trunk = _chest()
    np.testing.assert_array_equal(metrics.body_mask(image), trunk)
    np.testing.assert_array_equal(metrics.body_mask(image[..., 0]), trunk[..., 0])
    neighbours = np.concatenate([image * 0, image, image * 0], axis=-1)
    np.testing.assert_array_equal(metrics.body_mask(neighbours), trunk)
    # Of a volume: a part that is the larger one in a slice is not that of the whole volume.
    volume = np.stack([image] * 3)
    volume[2][trunk] = -1000.0
    expected = np.stack([trunk, trunk, np.zeros_like(trunk)])
    np.testing.assert_array_equal(metrics.body_mask(volume), expected)
    assert not metrics.body_mask(np.full((8, 8, 1), -1000.0)).any()


@pytest.mark.parametrize("shape", [(24, 30, 1), (24, 30, 3), (4, 24, 30, 1)])
def test_measures_in_the_body_know_nothing_outside(shape):
    output, target = _pair(shape)
    mask = np.zeros((*shape[:-1], 1), bool)
    mask[..., 5:20, 8:25, :] = True
    outside = np.where(mask, output, 1e6)
    measured = metrics.compare(outside, target, WINDOW, mask=mask)
    error = (output - target)[..., 5:20, 8:25, :]
    assert measured["mae_body"] == pytest.approx(np.abs(error).mean())
    assert measured["rmse_body"] == pytest.approx(np.sqrt((error**2).mean()))
    clipped = np.clip(output, *WINDOW) - np.clip(target, *WINDOW)
    mean_square = (clipped[..., 5:20, 8:25, :] ** 2).mean()
    assert measured["psnr_body"] == pytest.approx(10 * np.log10(400**2 / mean_square))
    assert metrics.in_body(target, target, WINDOW, mask)["psnr_body"] == 100
    nothing = metrics.in_body(output, target, WINDOW, np.zeros_like(mask))
    assert np.isnan(list(nothing.values())).all()
    assert "mae_body" not in metrics.compare(output, target, WINDOW)
    with pytest.raises(ValueError, match=r"mask: expected shape .*Received: \(3, 3\)"):
        metrics.in_body(output, target, WINDOW, np.ones((3, 3)))


def _uniform_ssim(a, b, span):
    """The map of SSIM with uniform windows of 7 and sample covariance (Wang et al. 2004)."""
    count = 7**a.ndim

    def mean(x):
        return scipy.ndimage.uniform_filter(x, 7, mode="reflect")

    def covariance(x, y):
        return (mean(x * y) - mean(x) * mean(y)) * count / (count - 1)

    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    luminance = (2 * mean(a) * mean(b) + c1) / (mean(a) ** 2 + mean(b) ** 2 + c1)
    spread = covariance(a, a) + covariance(b, b)
    return luminance * (2 * covariance(a, b) + c2) / (spread + c2)


def test_volumes_as_fastmri_measures_them():
    output, target = (np.abs(volume) for volume in _pair((5, 24, 30, 1)))
    target[3] *= 0.1  # a dark slice counts in the range of its volume
    span = target.max()
    measured = metrics.fastmri(output, target)
    slices = [
        _uniform_ssim(a[..., 0], b[..., 0], span)[3:-3, 3:-3].mean()
        for a, b in zip(output, target, strict=True)
    ]
    assert measured["ssim_fastmri"] == pytest.approx(np.mean(slices))
    mean_square = np.mean((output - target) ** 2)
    assert measured["psnr_fastmri"] == pytest.approx(10 * np.log10(span**2 / mean_square))
    expected = np.linalg.norm(output - target) ** 2 / np.linalg.norm(target) ** 2
    assert measured["nmse_fastmri"] == pytest.approx(expected)
    # A gain that both share changes nothing.
    assert metrics.fastmri(7 * output, 7 * target) == pytest.approx(measured)
    assert metrics.fastmri(target, target)["ssim_fastmri"] == pytest.approx(1)
    assert np.isnan(list(metrics.fastmri(output, 0 * target).values())).all()


def test_volumes_as_synthrad_measures_them():
    output, target = (20 * volume for volume in _pair((12, 20, 24, 1), noise=10))
    assert target.min() < -1024 and target.max() > 3000  # what is clipped
    mask = np.zeros(target.shape, bool)
    mask[1:-1, 3:16, 2:20] = True
    measured = metrics.synthrad(output, target, mask)
    a, b = (np.where(mask, np.clip(v, -1024, 3000), -1024)[..., 0] for v in (target, output))
    inner = (slice(3, -3),) * 3
    similar = _uniform_ssim(a + 1024, b + 1024, 4024.0)[inner]
    assert measured["ssim_synthrad"] == pytest.approx(similar[mask[..., 0][inner]].mean())
    assert measured["mae_synthrad"] == pytest.approx(np.abs(output - target)[mask].mean())
    mean_square = ((a - b)[mask[..., 0]] ** 2).mean()
    assert measured["psnr_synthrad"] == pytest.approx(10 * np.log10(4024**2 / mean_square))
    # Nothing outside the mask counts.
    assert metrics.synthrad(np.where(mask, output, 0.0), target, mask) == pytest.approx(measured)
    assert np.isnan(list(metrics.synthrad(output, target, 0 * mask).values())).all()


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    hypothesis.extra.numpy.arrays(
        np.uint8, (2, 6, 5), elements=hypothesis.strategies.integers(0, 3)
    )
)
def test_dice_is_the_f1_score_of_each_class(maps):
    output, target = maps
    overlap = metrics.dice(output[..., None].astype("float32"), target[..., None], 5)
    assert np.isnan(overlap[4])
    for label in range(4):
        pairs = [(a == label, b == label) for a, b in zip(output.flat, target.flat, strict=True)]
        true, wrong = sum(a and b for a, b in pairs), sum(a != b for a, b in pairs)
        if true or wrong:
            assert overlap[label] == pytest.approx(2 * true / (2 * true + wrong))
        else:
            assert np.isnan(overlap[label])
    np.testing.assert_array_equal(overlap, metrics.dice(target, output, 5))


def test_dice_refuses_what_names_no_class():
    zeros = np.zeros((4, 4))
    for output, target, message in (
        (zeros, zeros[:3], r"one shape. Received: \(4, 4\) and \(3, 4\)"),
        (zeros + 2, zeros, "output: expected labels from 0 to 1. Received: 2 in 16 of 16"),
        (zeros, zeros + 0.5, "target: .*Received: 0.5"),
        (zeros, zeros - 1, "target: .*Received: -1"),
        (zeros * np.nan, zeros, "output: .*Received: nan"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.dice(output, target, 2)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    hypothesis.extra.numpy.arrays(
        np.float32, (2, 12, 13), elements=hypothesis.strategies.floats(-1000, 1000, width=32)
    ),
    hypothesis.strategies.floats(-500, 500),
)
def test_windowed_measures_do_not_depend_on_the_zero_of_the_scale(images, offset):
    a, b = images
    shifted = (WINDOW[0] + offset, WINDOW[1] + offset)
    before, after = metrics.compare(a, b, WINDOW), metrics.compare(a + offset, b + offset, shifted)
    for key in ("psnr", "rmse_window", "mae_window", "rmse", "mae"):
        assert after[key] == pytest.approx(before[key], rel=1e-3, abs=2e-2)
    assert metrics.mae(a, b) <= metrics.rmse(a, b) + 1e-9
