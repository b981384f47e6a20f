"""Writes values that belong to a DICOM series as a Parametric Map: float32, with their unit."""

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.uid

from zoo import __version__
from zoo.atomic import replacing
from zoo.errors import contained
from zoo.imaging import geometry
from zoo.imaging.dicom import headers
from zoo.imaging.dicom.provenance import Derivation
from zoo.imaging.dicom.series import Series

# Units by UCUM; others have no code here, and are said to have none.
_UNITS = {
    "HU": ("[hnsf'U]", "Hounsfield unit"),
    "SUV": ("{SUVbw}g/ml", "Standardized Uptake Value body weight"),
}
# What a header must say, perhaps nothing, of the patient and the study.
_KNOWN = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime",
)  # fmt: skip


def require() -> None:
    """A ValueError where the package that writes them is not installed."""
    if importlib.util.find_spec("highdicom") is None:
        raise ValueError(
            "half-width: expected the extra `uncertainty` for DICOM: "
            "pip install 'zoo-medical[uncertainty]'. Received: no highdicom"
        )


def write(
    series: Series,
    path: Path,
    slices: Iterable[tuple[int, np.ndarray]],
    derivation: Derivation,
    what: str,
    deidentify: Callable[[pydicom.Dataset], None] | None = None,
    grid: geometry.Grid = geometry.SAME,
) -> list[Path]:
    """Writes values of a series' slices as the frames of one file.

    Args:
        series: the input, whose patient, study, place and references the map has.
        path: the file.
        slices: pairs of (index, float32 [H, W]), ascending, in the target's unit.
        derivation: recorded in the header.
        what: the values are, in a few words.
        deidentify: changes a header of the input in place.
        grid: how much finer the map's grid is, in rows and columns.

    Returns:
        The file, or nothing where there are no slices.

    Raises:
        ValueError: for a header that lacks what a map needs, maps with more slices than the input,
            and without the extra `uncertainty`.
    """
    require()
    if grid.depth > 1:
        raise ValueError("half-width: expected as many slices as the input has. Received: more")
    found = list(slices)
    if not found:
        return []
    values = np.stack([image for _, image in found]).astype(np.float32)
    with headers.quiet(), contained("half-width: header"):
        paths = [series.path(index) for index, _ in found]
        if len(series.paths) == 1 < series.length:  # frames, as they are stored
            order = sorted(range(len(found)), key=lambda k: series.frames[found[k][0]].number)
            values, paths = values[order], [series.paths[0]]
        sources = [_source(path, deidentify) for path in paths]
        made = _map(sources, values, derivation, what, grid)
        with replacing(path) as temporary:
            made.save_as(temporary, enforce_file_format=True)
    return [path]


def read(path: Path) -> np.ndarray:
    """The values of a file that `write` wrote, float32 [slices, H, W]."""
    with headers.quiet():
        stored = pydicom.dcmread(path)
    shape = (int(stored.NumberOfFrames), stored.Rows, stored.Columns)
    return np.frombuffer(stored.FloatPixelData, np.float32).reshape(shape)


def _source(
    path: Path, deidentify: Callable[[pydicom.Dataset], None] | None
) -> pydicom.FileDataset:
    """A header of the input, without its pixels."""
    header = headers.read(path)
    headers.remove(header, ["PixelData"])
    for keyword in _KNOWN:
        if keyword not in header:
            setattr(header, keyword, "")
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if not header.get(keyword):
            raise ValueError(f"half-width: expected {keyword}. Received: none")
    if deidentify is not None:
        deidentify(header)
    return header


def _map(
    sources: list[pydicom.FileDataset],
    values: np.ndarray,
    derivation: Derivation,
    what: str,
    grid: geometry.Grid,
) -> pydicom.Dataset:
    """The object, by highdicom."""
    import highdicom

    # What the numbers mean, and how they are shown.
    unit, meaning = _UNITS.get(derivation.target.unit, ("1", "no units"))
    low, high = float(values.min()), float(values.max())
    mapping = highdicom.pm.RealWorldValueMapping(
        lut_label="VALUE",
        lut_explanation=what[:64],
        unit=highdicom.sr.CodedConcept(unit, "UCUM", meaning),
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
    )
    shown = highdicom.VOILUTTransformation(
        window_center=(low + high) / 2, window_width=max(high - low, 1e-6)
    )
    # The patient, study and places are those of the input.
    uid, number = derivation.series[0]
    made = highdicom.pm.ParametricMap(
        source_images=sources,
        pixel_array=values,
        series_instance_uid=uid,
        series_number=max(number, 1),
        sop_instance_uid=pydicom.uid.generate_uid(),
        instance_number=1,
        manufacturer="zoo",
        manufacturer_model_name=derivation.name.replace("\\", "/")[:64],
        software_versions=__version__,
        device_serial_number=derivation.weights_hash[:64],
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        content_description=what[:64],
        content_label="HALF_WIDTH",
        voi_lut_transformations=[shown],
        **_places(sources, grid),
    )
    if "Laterality" not in made:
        made.Laterality = ""  # of type 2C: nobody says which of paired organs it is
    made.SeriesDescription = f"{what}: {derivation.title}"[:64]
    return made


def _places(sources: list[pydicom.FileDataset], grid: geometry.Grid) -> dict[str, Any]:
    """Where the pixels of a finer grid lie; nothing where they are the input's."""
    import highdicom

    if grid.scale == 1:
        return {}
    if len(sources) == 1 and "ImagePositionPatient" not in sources[0]:
        raise ValueError("expected a series of single-frame files. Received: frames of one file")
    first = sources[0]
    measures = highdicom.PixelMeasuresSequence(
        pixel_spacing=[float(step) / grid.scale for step in first.PixelSpacing],
        slice_thickness=float(first.get("SliceThickness") or 1.0),
    )
    across = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    moved = geometry.centre(0, grid.scale)  # pixels of the input, along rows and columns
    rows, columns = (float(step) for step in first.PixelSpacing)
    offset = moved * (across[0] * columns + across[1] * rows)
    places = []
    for source in sources:
        place = np.array(source.ImagePositionPatient, float) + offset
        places.append(highdicom.PlanePositionSequence("PATIENT", place.tolist()))
    return {"pixel_measures": measures, "plane_positions": places}
