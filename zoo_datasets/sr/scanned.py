"""MR as finished files hold it, at high and at low resolution: the examples of `sr/varied_mr_files`
and `sr/varied_mr_scans`, to train on.

In `varied` a low resolution is that of a scanner that measures less, so that its noise is complex.
Here it is made from the finished image, as it is where a file's own scan is not at hand: from the
magnitude, whose background many scanners and most anonymisers have set to zero. The cut in k-space
rings in that background, the more the brighter the skin is, and nothing of that belongs there.

Images are those of simulated subjects, or of the user's own scans: a folder for each patient, which
holds DICOM or NIfTI. Importable without TensorFlow.
"""

import itertools

import numpy as np
from scipy.ndimage import binary_fill_holes, gaussian_filter

from zoo.imaging import files
from zoo_datasets.cases import Case, Examples
from zoo_datasets.sr import varied
from zoo_datasets.sr.phantom import Protocol

# What became of the background, and its share: nothing; zero outside the head, with a hard border
# or one that fades out; or zero wherever a pixel's own signal is low.
BACKGROUNDS = {"noise": 0.3, "cut": 0.25, "faded": 0.2, "threshold": 0.25}
_EVERY = 3  # of the slices of a patient's scan, one in so many is taken
_SIDES = 8  # what the sides of images are multiples of: the largest scale


def patient(protocol: Protocol, seed: int, number: int) -> list[dict[str, np.ndarray]]:
    """Slices of subject `number`, as `phantom.patient` gives them.

    Everything follows from (seed, number).

    Raises:
        FileNotFoundError: without `nilearn`.
    """
    rng = np.random.default_rng([seed, number])
    scan = varied.scanned(protocol, rng)
    reduce = varied.reduction(rng)
    background = str(rng.choice(list(BACKGROUNDS), p=list(BACKGROUNDS.values())))
    # Above the floor that noise leaves in a magnitude image.
    threshold = max(rng.uniform(0.02, 0.1) * scan.level, 2 * scan.noise)
    pitch = {"spacing": np.array([scan.spacing, scan.spacing], np.float32)}
    found = []
    for image in np.abs(scan.images):
        finished = _masked(rng, image, background, threshold)
        found.append(varied.stored(finished, protocol, reduce) | pitch)
    return found


def _masked(
    rng: np.random.Generator, image: np.ndarray, background: str, threshold: float
) -> np.ndarray:
    """A magnitude image in whole numbers, with its background as a scanner leaves it."""
    if background == "threshold":
        image = np.where(image > threshold, image, 0)
    elif background != "noise":
        smooth = gaussian_filter(image, rng.uniform(0.7, 3))
        weight = binary_fill_holes(smooth > threshold).astype(np.float32)
        if background == "faded":
            weight = gaussian_filter(weight, rng.uniform(1, 8))
        image = image * weight
    return np.floor(image)


def tiles(protocol: Protocol, seed: int, case: Case) -> Examples:
    """Tiles of a patient's slices but those of air; what is drawn follows from the patient's key.

    Raises:
        ValueError: for a folder that holds no MR.
    """
    rng = np.random.default_rng([seed, int(case.key[1:], 16)])
    volumes = files.find(case.files["scan"]).volumes
    if not volumes:
        raise ValueError(f"{case.key}: expected DICOM or NIfTI. Received: no image")
    for number, volume in enumerate(volumes):
        if volume.modality not in ("MR", "OT") or volume.channels != 1 or not volume.spacing:
            raise ValueError(
                f"{case.key}: expected MR of one channel with a pixel spacing. "
                f"Received: {volume.modality}, {volume.channels} channel(s), {volume.spacing}"
            )
        # The signal has no unit: each volume gets a level as simulated subjects have.
        shown = volume.presented(volume.plane)
        indices = range(0, shown.length, _EVERY)
        bright = max(np.quantile(shown.read(i), 0.995) for i in indices)
        gain = np.exp(rng.uniform(*np.log(varied.LEVEL))) / max(bright, 1e-6)
        pitch = np.array(shown.spacing, np.float32)
        for i in indices:
            image = _padded(np.maximum(shown.read(i), 0) * np.float32(gain), protocol.size)
            whole = varied.stored(image, protocol, varied.reduction(rng))
            for name, tile in _tiles(protocol, whole):
                if np.mean(tile["target"] > 0.05 * gain * bright) >= 0.1:
                    key = f"{case.key}-{number}-{i:04d}-{name}"
                    yield case.example(key, **tile, spacing=pitch)


def _padded(image: np.ndarray, least: int) -> np.ndarray:
    """An image with zeros below and to the right, up to sides that every scale divides."""
    missing = [max(least, -(-side // _SIDES) * _SIDES) - side for side in image.shape]
    return np.pad(image, [(0, count) for count in missing])


def _tiles(protocol: Protocol, whole: dict[str, np.ndarray]) -> Examples:
    """The tiles of an image and of its low-resolution forms, `[n, n, 1]`, by where they begin."""
    size = protocol.size
    starts = ([*range(0, side - size, size), side - size] for side in whole["target"].shape)
    for row, column in itertools.product(*starts):
        tile = {}
        for key, image in whole.items():
            scale = whole["target"].shape[0] // image.shape[0]
            top, left, side = row // scale, column // scale, size // scale
            tile[key] = image[top : top + side, left : left + side, None]
        yield f"{row}-{column}", tile
