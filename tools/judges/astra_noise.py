"""Noise of a low dose from a second simulator, which shares no code with `zoo.physics`: ASTRA.

The slice is projected by the ASTRA toolbox (van Aarle et al., Opt. Express 24, 2016) in a parallel
or a flat fan beam, each ray counts photons, and ASTRA reconstructs the difference to the readings
without noise. Fan beams are rebinned to parallel ones first. Needs the extra `verify`.
"""

import hashlib
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates

from tools.judges import denoising

WATER = 0.0193  # 1/mm
ELECTRONIC = 8.0  # photons
FILTERS = {"ramp": "ram-lak", "hann": "hann"}
BEAMS = ("parallel", "fan")
VIEWS = 720  # over half a turn
SOURCE = 1.6  # distance of a fan's focus from the middle, in widths of the image
_FEWEST = 100.0  # photons of the ray with the fewest: fewer make streaks that nothing judges


def kept(
    name: str, hu: np.ndarray, spacing: float, level: float, beam: str, kernel: str
) -> np.ndarray:
    """What `insert` makes of a slice of this name, from the folder where it was asked before."""
    what = f"{name}, {level} HU, {beam}, {kernel}, {spacing} mm"
    seed = int(hashlib.sha256(what.encode()).hexdigest()[:8], 16)

    def made(image: np.ndarray, level: float) -> np.ndarray:
        return insert(image, spacing, level, beam, kernel, seed)

    return denoising.kept(f"ASTRA-{beam}-{kernel}-{seed}-{spacing}", hu, level, made)


def insert(
    hu: np.ndarray, spacing: float, level: float, beam: str, kernel: str, seed: int
) -> np.ndarray:
    """A slice with noise of a standard deviation of `level` HU in its body.

    Args:
        hu: `[n, n]`.
        spacing: pixel pitch in mm.
        level: of what lies above -500 HU.
        beam: "parallel" or "fan".
        kernel: "ramp" or "hann".
        seed: of the photons.

    Returns:
        float32 `[n, n]`, from -1024 to 3071 HU.
    """
    rng = np.random.default_rng(seed)
    mu = np.maximum(hu.astype(np.float32) / 1000 + 1, 0) * WATER * spacing
    p = project(mu, beam)
    # Photons fall with the square of the noise; what is left of the difference is scaled.
    photons = 1e5
    for _ in range(2):
        noise = reconstruct(_measured(rng, p, photons) - p, mu.shape[0], beam, kernel)
        noise *= 1000 / (WATER * spacing)
        deviation = noise[hu > -500].std()
        photons = max(photons * (deviation / level) ** 2, _FEWEST * np.exp(p.max()))
    noisy = hu + noise * (level / deviation)
    return np.clip(noisy, -1024, 3071).astype(np.float32)


def _measured(rng: np.random.Generator, p: np.ndarray, photons: float) -> np.ndarray:
    counts = rng.poisson(photons * np.exp(-p)) + ELECTRONIC * rng.standard_normal(p.shape)
    return np.log(photons / np.maximum(counts, 1))


def _geometry(size: int, beam: str) -> dict[str, Any]:
    import astra

    rays = int(np.ceil(size * np.sqrt(2) / 2)) * 2
    if beam == "parallel":
        angles = np.arange(VIEWS) * np.pi / VIEWS
        return astra.create_proj_geom("parallel", 1.0, rays, angles)
    # A detector in the middle of the turn, wide enough for rays past the corners.
    distance = SOURCE * size
    reach = rays / 2 / np.sqrt(1 - (rays / 2 / distance) ** 2)
    angles = np.arange(2 * VIEWS) * np.pi / VIEWS
    return astra.create_proj_geom("fanflat", 1.0, 2 * int(reach + 2), angles, distance, 0.0)


def project(mu: np.ndarray, beam: str) -> np.ndarray:
    """Line integrals of attenuation per pixel, `[views, rays]`; a fan has all of a turn."""
    import astra

    size, geometry = mu.shape[0], _geometry(mu.shape[0], beam)
    volume = astra.create_vol_geom(size, size)
    kind = "strip" if beam == "parallel" else "line_fanflat"
    projector = astra.create_projector(kind, geometry, volume)
    number, sinogram = astra.create_sino(mu, projector)
    astra.data2d.delete(number)
    astra.projector.delete(projector)
    return sinogram


def reconstruct(sinogram: np.ndarray, size: int, beam: str, kernel: str) -> np.ndarray:
    """Attenuation per pixel, `[size, size]`, of what `project` gives."""
    import astra

    if beam == "fan":
        sinogram = parallel(sinogram, size)
    geometry, volume = _geometry(size, "parallel"), astra.create_vol_geom(size, size)
    projector = astra.create_projector("linear", geometry, volume)
    data = astra.data2d.create("-sino", geometry, sinogram)
    image = astra.data2d.create("-vol", volume)
    config = astra.astra_dict("FBP")
    config |= {"ProjectorId": projector, "ProjectionDataId": data, "ReconstructionDataId": image}
    config["option"] = {"FilterType": FILTERS[kernel]}
    algorithm = astra.algorithm.create(config)
    astra.algorithm.run(algorithm)
    found = astra.data2d.get(image)
    astra.algorithm.delete(algorithm)
    astra.data2d.delete([data, image])
    astra.projector.delete(projector)
    return found


def parallel(fan: np.ndarray, size: int) -> np.ndarray:
    """A flat fan's rays, rebinned to parallel ones: linear between views and between rays.

    The ray at u on the detector runs at the angle gamma = atan(u / D) to the middle one, D the
    focus's distance, and so passes the middle at D sin(gamma).
    """
    distance = SOURCE * size
    rays = int(np.ceil(size * np.sqrt(2) / 2)) * 2
    s = np.arange(rays) - (rays - 1) / 2
    gamma = np.arcsin(s / distance)
    u = distance * np.tan(gamma)
    angles = np.arange(VIEWS)[:, None]
    total = np.zeros((VIEWS, rays))
    # Each parallel ray is measured twice in a turn, from either side.
    for turn, sign in ((0, 1), (VIEWS, -1)):
        view = (angles + turn + sign * gamma / np.pi * VIEWS) % len(fan)
        element = np.broadcast_to(sign * u + (fan.shape[1] - 1) / 2, view.shape)
        places = np.stack([view, element])
        total += map_coordinates(fan, places, order=1, mode="grid-wrap")
    return (total / 2).astype(np.float32)
