"""K-space of an ISMRMRD file (Inati et al., Magn. Reson. Med. 77, 2017), read by its package.

Every line that a scanner measured says where it lies in k-space; here the lines of one image are
put onto a grid. Taken are Cartesian lines of slices (no volumes) of the first encoding, with those
for calibration where they are embedded in the others; repeated ones are averaged, and what is no
image's (noise, navigators, corrections of phase) is left out. Readout oversampling is taken away.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.fft

from zoo.errors import reason

_GROUP = "dataset"
_REVERSE, _CALIBRATION = 22, 20  # numbers of flags
_OTHER = (19, 23, 24, 26, 27, 28, 29, 30, 31)  # noise, navigators, corrections, dummies
_COUNTERS = ("repetition", "phase", "set", "contrast", "slice")  # each makes an image of its own


def is_ismrmrd(path: Path) -> bool:
    """Whether an HDF5 file holds what a scanner measured in ISMRMRD's layout."""
    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path) as file:
        group = file.get(_GROUP)
        return isinstance(group, h5py.Group) and {"xml", "data"} <= set(group)


def read(path: Path) -> list[np.ndarray]:
    """K-space of each image, complex64 `[coils, H, W]`, zero where nothing was measured.

    Raises:
        ValueError: without the package, for a damaged file, and for another trajectory or volumes.
    """
    try:
        import ismrmrd
    except ImportError as error:
        raise ValueError(
            f"{path.name}: ISMRMRD needs the extra `ismrmrd`: pip install 'zoo-medical[ismrmrd]'. "
            "Received: no package ismrmrd"
        ) from error
    try:
        with ismrmrd.Dataset(str(path), _GROUP, mode="r") as file:
            header = ismrmrd.xsd.CreateFromDocument(file.read_xml_header())
            numbers = range(file.number_of_acquisitions())
            lines = [file.read_acquisition(number) for number in numbers]
    except Exception as error:  # what the parsers of XML and HDF5 raise has many types
        received = reason(error)
        raise ValueError(f"{path.name}: expected readable ISMRMRD. Received: {received}") from error
    if not header.encoding:
        raise ValueError(f"{path.name}: expected an encoding in the header. Received: none")
    try:
        return _images(header.encoding[0], lines)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _images(encoding: Any, lines: list[Any]) -> list[np.ndarray]:
    """The lines of an encoding on the grid of each image."""
    size = encoding.encodedSpace.matrixSize
    if encoding.trajectory.value != "cartesian":
        raise ValueError(
            f"expected a cartesian trajectory. Received: {encoding.trajectory.value}; NPZ or HDF5 "
            "with a `trajectory` takes others"
        )
    if size.z > 1:
        raise ValueError(f"expected slices. Received: a volume of {size.z} partitions")
    limit = encoding.encodingLimits.kspace_encoding_step_1
    centre = size.y // 2 if limit is None else limit.center
    left_out = _OTHER if _embedded(encoding) else (*_OTHER, _CALIBRATION)
    # The sum of what was measured at each place, and how often it was.
    sums: dict[tuple, np.ndarray] = {}
    counts: dict[tuple, np.ndarray] = {}
    for line in lines:
        if line.encoding_space_ref or any(line.is_flag_set(flag) for flag in left_out):
            continue
        key = tuple(getattr(line.idx, name) for name in _COUNTERS)
        samples, first = _placed(line, size.x)
        row = line.idx.kspace_encode_step_1 - centre + size.y // 2
        if key not in sums:
            sums[key] = np.zeros((len(samples), size.y, size.x), np.complex64)
            counts[key] = np.zeros((size.y, size.x), np.float32)
        image = sums[key]
        last = first + samples.shape[1]
        if len(samples) != len(image) or not (0 <= row < size.y and 0 <= first < last <= size.x):
            raise ValueError(
                f"expected lines of {len(image)} coils within {size.y} x {size.x} points. "
                f"Received: {len(samples)} coils, line {row}, points {first} to {last}"
            )
        image[:, row, first:last] += samples
        counts[key][row, first:last] += 1
    if not sums:
        raise ValueError("expected lines of an image. Received: none")
    # Means, less the readout's oversampling.
    field = encoding.encodedSpace.fieldOfView_mm.x
    width = round(size.x * encoding.reconSpace.fieldOfView_mm.x / field) if field else size.x
    found = []
    for key in sorted(sums):
        kspace = sums[key] / np.maximum(counts[key], 1)
        if not np.isfinite(kspace).all():
            raise ValueError("expected finite values. Received: others")
        rows = counts[key][counts[key].any(1)]
        whole = bool(rows.all())  # and not of echoes that are cut off
        found.append(_narrowed(kspace, width) if whole else kspace)
    return found


def _embedded(encoding: Any) -> bool:
    """Whether lines for calibration are of the images too."""
    mode = encoding.parallelImaging and encoding.parallelImaging.calibrationMode
    return bool(mode) and mode.value == "embedded"


def _placed(line: Any, width: int) -> tuple[np.ndarray, int]:
    """The samples of a line `[coils, W]` that count, and the column of the first."""
    samples = line.data[:, line.discard_pre : line.data.shape[1] - line.discard_post]
    centre = line.center_sample - line.discard_pre
    if line.is_flag_set(_REVERSE):
        samples, centre = samples[:, ::-1], samples.shape[1] - 1 - centre
    return samples, width // 2 - centre


def _narrowed(kspace: np.ndarray, width: int) -> np.ndarray:
    """K-space of the middle columns of the image; rows keep what was measured of them."""
    columns = kspace.shape[-1]
    if not 0 < width < columns:
        return kspace
    image = scipy.fft.ifft(scipy.fft.ifftshift(kspace, -1), norm="ortho")
    first = columns // 2 - width // 2
    image = scipy.fft.fftshift(image, -1)[..., first : first + width]
    narrow = scipy.fft.fft(scipy.fft.ifftshift(image, -1), norm="ortho")
    return scipy.fft.fftshift(narrow, -1).astype(np.complex64)
