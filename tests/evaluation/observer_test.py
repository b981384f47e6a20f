"""Model observers against analytic values, and against another way to compute the same."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from zoo.evaluation import observer

SIZE = 24


def disc(diameter=6.0):
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    return scipy.ndimage.gaussian_filter((np.hypot(axis, axis[:, None]) < diameter / 2) * 1.0, 0.8)


def noise(rng, count, sigma, blur):
    """Noise that wraps around, so that its spectrum is known exactly, and that spectrum."""
    white = rng.normal(0, sigma, (count, SIZE, SIZE))
    transfer = np.fft.fft2(np.zeros((SIZE, SIZE)))
    kernel = np.zeros((SIZE, SIZE))
    kernel[0, 0] = 1
    kernel = scipy.ndimage.gaussian_filter(kernel, blur, mode="wrap") if blur else kernel
    transfer = np.fft.fft2(kernel)
    return np.fft.ifft2(np.fft.fft2(white) * transfer).real, sigma**2 * np.abs(transfer) ** 2


@pytest.mark.parametrize("blur", [0.0, 0.7])
def test_detectability_is_the_analytic_one(blur):
    """In noise of known covariance, within 3 %."""
    rng, signal = np.random.default_rng(3), disc() * 12
    channels = observer.laguerre_gauss(SIZE, 9.0)
    images, power = noise(rng, 8000, 30.0, blur)
    seen = images.reshape(len(images), -1) @ channels
    found = np.sqrt(observer.hotelling(seen[:4000] + signal.ravel() @ channels, seen[4000:]))
    # The channels' covariance, by what the noise's spectrum makes of each.
    spectra = np.fft.fft2(channels.T.reshape(-1, SIZE, SIZE))
    covariance = np.einsum("aij,bij,ij->ab", spectra, spectra.conj(), power).real / SIZE**2
    mean = signal.ravel() @ channels
    expected = np.sqrt(mean @ np.linalg.solve(covariance, mean))
    assert found == pytest.approx(expected, rel=0.03) and expected > 1
    # Channels lose a little of what the ideal observer sees, and never gain.
    best = observer.ideal(signal, power)
    assert 0.9 * best < expected <= best * (1 + 1e-9)
    if not blur:
        assert best == pytest.approx(np.sqrt((signal**2).sum()) / 30)
    # Power that is measured serves as the known one.
    assert observer.ideal(signal, observer.noise_power(images)) == pytest.approx(best, rel=0.03)


def test_detectability_is_that_of_fisher_s_discriminant():
    """An independent way: the multiple correlation of a regression on the labels."""
    rng, channels = np.random.default_rng(0), observer.laguerre_gauss(SIZE, 9.0)
    images, _ = noise(rng, 300, 30.0, 0.7)
    seen = images.reshape(300, -1) @ channels
    seen[:120] += disc().ravel() * 10 @ channels
    labels = np.repeat([1.0, 0.0], [120, 180])
    design = np.column_stack([np.ones(300), seen])
    fitted = design @ np.linalg.lstsq(design, labels, rcond=None)[0]
    r2 = 1 - ((labels - fitted) ** 2).sum() / ((labels - labels.mean()) ** 2).sum()
    biased = r2 / (1 - r2) * (300 - 2) * (1 / 120 + 1 / 180)
    expected = biased * (298 - 6) / 298 - 5 * (1 / 120 + 1 / 180)
    assert observer.hotelling(seen[:120], seen[120:]) == pytest.approx(expected, rel=1e-9)


def test_few_images_do_not_flatter():
    """Of no signal d'² is near 0, where the plain estimate is not; too few are an error."""
    rng = np.random.default_rng(1)
    found = [observer.hotelling(*rng.normal(size=(2, 15, 5))) for _ in range(400)]
    assert np.median(found) < 0.2
    with pytest.raises(ValueError, match="expected more than 8 with and without"):
        observer.hotelling(*rng.normal(size=(2, 4, 5)))


def test_pairs_know_the_signal_exactly():
    """The same places with and without it: its mean has no noise, and nothing is subtracted."""
    rng, channels = np.random.default_rng(5), observer.laguerre_gauss(SIZE, 9.0)
    mean = disc().ravel() * 12 @ channels
    found = []
    for _ in range(60):
        seen = noise(rng, 30, 30.0, 0.0)[0].reshape(30, -1) @ channels
        found.append(observer.hotelling(seen + mean, seen, paired=True))
    expected = mean @ np.linalg.solve(channels.T @ channels, mean) / 30**2
    assert np.mean(found) == pytest.approx(expected, rel=0.15)


def test_area_under_the_curve():
    rng = np.random.default_rng(2)
    scores = rng.normal(1.5, 1, 4000), rng.normal(0, 1, 4000)
    counted = scipy.stats.mannwhitneyu(*scores).statistic / 4000**2
    assert observer.area_under_curve(1.5) == pytest.approx(counted, abs=0.01)
    assert observer.area_under_curve(0.0) == 0.5


def test_noise_power_keeps_the_variance_and_finds_the_colour():
    images, power = noise(np.random.default_rng(4), 800, 20.0, 1.0)
    found = observer.noise_power(images)
    assert found.mean() == pytest.approx(images.var(), rel=0.03)
    assert found[0, 1] / found[0, 8] == pytest.approx(power[0, 1] / power[0, 8], rel=0.3)
    channels = observer.laguerre_gauss(64, 12.0)
    np.testing.assert_allclose(channels.T @ channels, np.eye(5), atol=1e-3)
