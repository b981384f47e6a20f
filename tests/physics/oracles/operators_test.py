"""The operators against other programs: ASTRA's projectors, FINUFFT's sums, SigPy's maps."""

import numpy as np
import pytest

from zoo.physics import coils, mri, tomography

pytestmark = pytest.mark.physics


def projected(image, kind, *geometry):
    """ASTRA's projector of an image: it has rows from above, and so y upwards."""
    import astra

    geometry = astra.create_proj_geom(*geometry)
    volume = astra.create_vol_geom(*image.shape)
    projector = astra.create_projector(kind, geometry, volume)
    number, sinogram = astra.create_sino(image[::-1], projector)
    astra.data2d.delete(number)
    astra.projector.delete(projector)
    return sinogram


def image(size):
    return np.random.default_rng(0).uniform(0, 1, (size, size)).astype(np.float32)


@pytest.mark.parametrize("size, detectors, pitch", [(64, 92, 1.0), (65, 130, 0.7), (48, 40, 1.9)])
def test_parallel_beam_is_that_of_astra(size, detectors, pitch):
    a = tomography.ParallelBeam(size, 1.0, 37, detectors, pitch)
    theirs = projected(image(size), "linear", "parallel", pitch, detectors, a.angles)
    ours = a.forward(image(size)).numpy()
    assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(theirs)


def test_limited_angle_is_that_of_astra():
    angles = np.linspace(0.3, 1.4, 9)
    a = tomography.ParallelBeam(50, 1.0, angles, 71)
    theirs = projected(image(50), "linear", "parallel", 1.0, 71, angles)
    ours = a.forward(image(50)).numpy()
    assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(theirs)


def test_fan_beam_is_that_of_astra():
    """It has none of Joseph's for fans, and so strips are compared, of a smooth image."""
    from scipy.ndimage import gaussian_filter

    smooth = np.zeros((64, 64), np.float32)
    smooth[12:50, 12:50] = image(38)
    smooth = gaussian_filter(smooth, 3)
    a = tomography.FanBeam(64, 1.0, 36, 120, 1.5, 100.0, 160.0)
    theirs = projected(smooth, "strip_fanflat", "fanflat", 1.5, 120, a.angles, 100.0, 60.0)
    ours = a.forward(smooth).numpy()
    assert np.linalg.norm(ours - theirs) < 2e-3 * np.linalg.norm(theirs)


@pytest.mark.parametrize("size", [(32, 32), (31, 48)])
def test_radial_sampling_is_that_of_finufft(size):
    import finufft

    rng = np.random.default_rng(0)
    a = mri.NonCartesianMRI(size, 1.5, mri.radial(41, 64, 1.5))
    x = rng.standard_normal(size) + 1j * rng.standard_normal(size)
    turns = [np.ascontiguousarray(k) * 2 * np.pi * 1.5 for k in a.trajectory.reshape(-1, 2).T]
    theirs = finufft.nufft2d2(*turns, x, isign=-1, eps=1e-12).reshape(41, 64) / np.sqrt(x.size)
    ours = a.forward(x).numpy()
    assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs)


def test_maps_are_those_of_sigpy():
    from sigpy.mri import app

    rng = np.random.default_rng(0)
    v, u = np.mgrid[-1:1:48j, -1:1:48j]
    turns = np.arange(4)[:, None, None] * np.pi / 2
    away = (v - 1.2 * np.sin(turns)) ** 2 + (u - 1.2 * np.cos(turns)) ** 2
    seen = np.exp(-away + 1j * (turns + v)) * (v**2 + u**2 < 0.6)
    noise = 2e-3 * rng.standard_normal((2, 4, 48, 48))
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(seen, axes=(1, 2)), norm="ortho"), (1, 2))
    kspace = (kspace + noise[0] + 1j * noise[1]).astype(np.complex64)
    ours = coils.espirit(kspace)
    theirs = app.EspiritCalib(kspace, crop=0.95, show_pbar=False).run()
    both = (np.abs(ours).sum(0) > 0) & (np.abs(theirs).sum(0) > 0)
    assert both.mean() > 0.4
    assert ((np.abs(ours).sum(0) > 0) == (np.abs(theirs).sum(0) > 0)).mean() > 0.99
    assert np.abs((ours.conj() * theirs).sum(0))[both].min() > 0.999
