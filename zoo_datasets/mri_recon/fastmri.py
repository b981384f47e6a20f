"""fastMRI: raw k-space of knees and brains, HDF5, undersampled here as the publisher does.

A file is one scan: `kspace` complex64 `[slices, (coils,) H, W]`, `reconstruction_esc` (single
coil) or `reconstruction_rss` (multi-coil) float32 `[slices, h, w]`, attributes `max`, `norm`,
`patient_id` and `acquisition`, and an ISMRMRD header in XML. H is the read-out, twice oversampled;
W are the phase-encoding lines. Both are turned by 90 degrees here: rows are lines, as everywhere
in `zoo.physics.fourier`, whose centred unitary transform is also fastMRI's.
"""

import dataclasses
import hashlib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import h5py
import numpy as np

from zoo.errors import reason
from zoo.physics import fourier
from zoo_datasets.cases import SPLITS, Case, Examples, SourceConfig, by_patient, need

_TARGETS = {"singlecoil": "reconstruction_esc", "multicoil": "reconstruction_rss"}
_SIZES = {
    "singlecoil": "knee_singlecoil_train (about 73 GB) and knee_singlecoil_val (about 15 GB)",
    "multicoil": "the train and val files of knees (about 1.1 TB) or of brains (about 1.6 TB)",
}
# of damaged files and of what they lack
_FAULTS = (OSError, KeyError, RuntimeError, UnicodeError, ElementTree.ParseError)
LICENCE = "fastMRI Dataset Sharing Agreement: research and education, not to be passed on"
MANUAL = """
1. Open https://fastmri.med.nyu.edu/, read the fastMRI Dataset Sharing Agreement (research and
   education only, no passing on, no attempt to identify anybody) and ask for access. A mail brings
   download links that are good for some weeks.
2. Download {what} with the
   curl commands of that mail, which resume: hours to days.
3. Unpack them below manual_dir, so that there are
   manual_dir/{coil}_train/file1000001.h5 ...
   manual_dir/{coil}_val/file1000000.h5 ...
   The publisher's {coil}_test has no targets and is not needed. Part of the files will do.
   Building takes about an hour for each 100 GB.
"""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How k-space is undersampled.

    Attributes:
        pattern: "random" (each line by chance) or "equispaced", as fastMRI defines them.
        acceleration: lines of full k-space over the lines measured, on average.
        centre: share of the lines, in the middle, that are all measured.
    """

    pattern: str = "random"
    acceleration: float = 4
    centre: float = 0.08

    def lines(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """The lines measured, of n: bool `[n]`.

        The middle has `round(centre n)` lines. "random" takes each other line with the probability
        that makes `n / acceleration` lines on average; "equispaced" takes every s-th line from a
        random start, with the step s (no whole number) that does so.

        Raises:
            ValueError: for an unknown pattern, or a middle that already has too many lines.
        """
        inner = round(self.centre * n)
        missing = n / self.acceleration - inner
        if self.pattern not in ("random", "equispaced") or missing <= 0:
            raise ValueError(
                "sampling: expected the pattern random or equispaced, and fewer lines in the "
                f"middle than are measured. Received: {self} of {n} lines"
            )
        first = (n - inner + 1) // 2
        if self.pattern == "random":
            lines = rng.uniform(size=n) < missing / (n - inner)
        else:
            step = (n - inner) / missing
            start = rng.integers(round(step))
            lines = np.zeros(n, bool)
            lines[np.rint(np.arange(start, n - 1, step)).astype(int)] = True
        lines[first : first + inner] = True
        return lines


def manual(coil: str) -> str:
    """How to get the files."""
    return MANUAL.format(coil=coil, what=_SIZES[coil])


def find(root: Path, coil: str) -> dict[str, list[Case]]:
    """A case for each file; the publisher's training set, and its validation set in two halves.

    The test set has no targets: half of the validation patients, by a hash of the patient, are the
    test split. A patient who has a file in both of the publisher's sets counts as training.

    Args:
        root: the manual directory.
        coil: "singlecoil" or "multicoil".

    Raises:
        FileNotFoundError: where a folder holds no files.
    """
    cases, training = [], set()
    for part in ("train", "val"):
        what = f"{coil} files of fastMRI's {part} set"
        for path in need(root, f"{coil}_{part}/*.h5", what):
            patient = _patient(path)
            cases.append(Case(key=path.stem, patient=patient, files={"scan": path}))
            if part == "train":
                training.add(patient)

    def split(patient: str) -> str:
        if patient in training:
            return "train"
        digest = hashlib.sha256(patient.encode()).digest()
        return SPLITS[1 + digest[0] % 2]

    return by_patient(cases, split)


def _patient(path: Path) -> str:
    """The patient's pseudonym, shortened; the file's own name where it cannot be read."""
    try:
        with h5py.File(path, "r") as file:
            return _text(file.attrs["patient_id"])[:16]
    except _FAULTS:  # `read` tells of it
        return path.stem


def read(case: Case, config: SourceConfig) -> Examples:
    """The slices of a scan.

    Raises:
        ValueError: for a file that is damaged or lacks something, naming it; for one whose
            publisher's image is not what its k-space gives.
    """
    path = case.files["scan"]
    try:
        with h5py.File(path, "r") as file:
            yield from _slices(file, case, config)
    except _FAULTS as error:
        raise ValueError(f"{path.name}: cannot be read as fastMRI: {reason(error)}") from error


def _slices(file: h5py.File, case: Case, config: SourceConfig) -> Examples:
    name = case.files["scan"].name
    kspace, published = file["kspace"], file[_TARGETS[config.coil]]
    axes = 3 if config.coil == "singlecoil" else 4
    if kspace.ndim != axes or published.ndim != 3 or len(published) != len(kspace):
        raise ValueError(
            f"{name}: expected {config.coil} k-space of {axes} axes and an image for each slice. "
            f"Received: shapes {kspace.shape} and {published.shape}"
        )
    if axes == 4 and kspace.shape[1] > config.coils:
        raise ValueError(
            f"{name}: expected at most {config.coils} coils. Received: {kspace.shape[1]}"
        )
    # What all slices share.
    largest = np.float32(file.attrs["max"])
    lines_mm, readout_mm = _field(file["ismrmrd_header"][()])
    # One mask a scan, as fastMRI evaluates; it follows from the name.
    digest = hashlib.sha256(case.key.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    lines = None
    for i in range(len(kspace)):
        full = np.swapaxes(kspace[i] if axes == 4 else kspace[i][None], -1, -2) / largest
        coils = _cropped(full, published.shape[1], config.size)
        image = np.sqrt((np.abs(fourier.from_kspace(coils)) ** 2).sum(0))
        if i == len(kspace) // 2:
            _check(name, full, published[i] / largest)
        if lines is None:
            rows = min(full.shape[-2], published.shape[1]) if config.size else full.shape[-2]
            lines_mm *= rows / full.shape[-2]  # what the crop leaves
            spacing = lines_mm / image.shape[0], readout_mm / image.shape[1]
            lines = config.sampling.lines(coils.shape[-2], rng)
        # The lines that are measured, a coil's parts as channels.
        measured = np.zeros((config.coils, *coils.shape[1:]), np.complex64)
        measured[: len(coils)] = coils * lines[:, None]
        source = fourier.to_channels(measured)  # [coils, H, W, 2]
        source = np.moveaxis(source, 0, 2).reshape(*coils.shape[1:], 2 * config.coils)
        key = f"{case.key}-{i:03d}"
        yield case.example(
            key,
            source=source,
            target=image[..., None].astype(np.float32),
            scale=largest,
            contrast=_text(file.attrs["acquisition"]),
            spacing=spacing,
        )


def _cropped(kspace: np.ndarray, readout: int, size: int) -> np.ndarray:
    """K-space of all lines, its read-out without oversampling; or of a square, size by size.

    Args:
        kspace: complex `[coils, lines, read-out]`.
        readout: samples of the read-out that are kept, in the image's middle.
        size: 0, or rows and columns of the middle of k-space that are kept, of a square image.

    Returns:
        complex64 `[coils, rows, columns]`. The read-out's crop commutes with the sampling of lines.
    """
    rows = min(kspace.shape[-2], readout) if size else kspace.shape[-2]
    if (rows, readout) != kspace.shape[-2:]:
        kspace = fourier.to_kspace(_middle(fourier.from_kspace(kspace), rows, readout))
    if not size:
        return kspace
    kspace = _middle(kspace, size, size)
    return kspace * np.float32(size / np.sqrt(rows * readout))  # the signal stays what it was


def _middle(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The middle of the last two axes; index n // 2 stays the centre.

    Raises:
        ValueError: where there is less than that.
    """
    taken = values
    for axis, count in ((-2, rows), (-1, columns)):
        n = values.shape[axis]
        if count > n:
            raise ValueError(f"size: expected at most {n} rows or columns. Received: {count}")
        first = n // 2 - count // 2
        taken = np.take(taken, range(first, first + count), axis)
    return taken


def _check(name: str, kspace: np.ndarray, published: np.ndarray) -> None:
    """Refuses a scan whose k-space does not give the publisher's image (turned here)."""
    image = np.sqrt((np.abs(fourier.from_kspace(kspace)) ** 2).sum(0))
    rows, columns = (min(a, b) for a, b in zip(image.shape, published.T.shape, strict=True))
    ours, theirs = _middle(image, rows, columns), _middle(published.T, rows, columns)
    # The rows of few brain scans are fewer than the publisher's image has; those are its middle.
    error = float(np.linalg.norm(ours - theirs)) / max(float(np.linalg.norm(theirs)), 1e-12)
    if not error < 0.05:
        raise ValueError(
            f"{name}: expected k-space that gives the publisher's image. Received: one that is "
            f"{error:.0%} off"
        )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _field(header: bytes) -> tuple[float, float]:
    """Field of view in mm of the encoded lines and of the reconstructed read-out."""
    root = ElementTree.fromstring(header)
    space = {"m": "http://www.ismrm.org/ISMRMRD"}

    def number(path: str) -> float:
        found = root.find("m:encoding/" + path, space)
        if found is None or not found.text:
            raise KeyError(f"ismrmrd_header: {path.replace('m:', '')}")
        return float(found.text)

    lines = number("m:encodedSpace/m:fieldOfView_mm/m:y")
    readout = number("m:reconSpace/m:fieldOfView_mm/m:x")
    return lines, readout
