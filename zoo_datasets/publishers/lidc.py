"""LIDC-IDRI: CT series in DICOM, and what four radiologists marked in them, in XML.

A reader's XML has one `readingSession` a reader with an `unblindedReadNodule` for each nodule of
3 mm and more: its `characteristics`, and a contour (`roi`) in each slice, by the slice's SOP
instance UID, z position and pixels (column, row). A single point marks a nodule below 3 mm. Readers
do not number nodules alike; the same nodule is found by where it lies.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pydicom
from scipy.cluster import hierarchy
from scipy.spatial import distance

from zoo.imaging import geometry
from zoo_datasets.cases import Case, by_patient
from zoo_datasets.publishers.volumes import Scan, read_dicom, to_int16
from zoo_datasets.sources import reading

AIR = -1024  # HU; beyond a scanner's circular field of view some files hold less
_OTHERS = ("CR", "DX", "SEG", "SR")  # of the same patients: radiographs, and what IDC derived
_PLACES = ("", "*/", "*/*/")  # of the patients' folders below the manual directory
_TAGS = [
    "SOPInstanceUID",
    "Modality",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "BitsAllocated",
]
MANUAL = """
From https://www.cancerimagingarchive.net/collection/lidc-idri/ (CC BY 3.0, no registration):
1. Download "Images" (125 GB, hours) with the NBIA Data Retriever, "Descriptive Directory Name" or
   "Classic Directory Name", and move its folder LIDC-IDRI (or the folder manifest-... around it)
   into `manual_dir`, so that there is
   manual_dir/LIDC-IDRI/LIDC-IDRI-0001/<study>/<series>/1-001.dcm … and, beside the slices, 069.xml
2. Where the series come without their XML file (as from the Imaging Data Commons), download
   "Radiologist Annotations/Segmentations (XML)" as well and unpack LIDC-XML-only.zip into
   `manual_dir`; `sr` needs no XML.
"""


def find(root: Path) -> dict[str, list[Case]]:
    """The CT series of each split with the readers' XML, by a hash of the patient.

    Raises:
        FileNotFoundError: there are no CT series, or one has no XML file.
        ValueError: a series' files cannot be read.
    """
    marks = {}
    for path in sorted(Path(root).rglob("*.xml")):
        with open(path, encoding="utf-8", errors="replace") as file:
            start = file.read(8192)
        # Readings of radiographs (IdriReadMessage) name their series otherwise.
        if match := re.search(r"<SeriesInstanceUid>\s*([\d.]+)\s*<", start):
            marks[match[1]] = path
    cases = []
    for case in _series(root):
        if case.facts["uid"] not in marks:
            raise FileNotFoundError(
                f"manual directory {root}: expected the readers' XML file of every CT series, in "
                f"its folder or from LIDC-XML-only.zip. Received: none for {case.key}, "
                f"{case.files['series'].name}"
            )
        cases.append(
            dataclasses.replace(case, files=case.files | {"xml": marks[case.facts["uid"]]})
        )
    return by_patient(cases)


def find_series(root: Path) -> dict[str, list[Case]]:
    """As `find`, without the XML."""
    return by_patient(_series(root))


def _series(root: Path) -> list[Case]:
    """One case for each CT series; the patients' radiographs are left out."""
    folders = [p for place in _PLACES for p in sorted(Path(root).glob(f"{place}LIDC-IDRI-[0-9]*"))]
    cases = []
    for patient in (p for p in folders if p.is_dir()):
        found = {}
        for folder in sorted(patient.glob("*/*")):
            file = next(iter(sorted(folder.glob("*.dcm"))), None)
            if file is None:
                continue
            with reading(f"{patient.name}: {file.name}"):
                header = pydicom.dcmread(file, specific_tags=["Modality", "SeriesInstanceUID"])
                modality, uid = header.Modality, str(header.SeriesInstanceUID)
            if modality not in _OTHERS:  # what is neither is refused when it is read
                found[uid] = folder
        for number, uid in enumerate(sorted(found), 1):
            cases.append(
                Case(
                    key=f"{patient.name}_{number}",
                    patient=patient.name,
                    files={"series": found[uid]},
                    facts={"uid": uid},
                )
            )
    if not cases:
        raise FileNotFoundError(
            f"manual directory {root}: expected CT series "
            "LIDC-IDRI/LIDC-IDRI-0001/<study>/<series>/*.dcm. Received: none"
        )
    return cases


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """One file of a series.

    Attributes:
        path: it.
        uid: SOP instance UID.
        origin: of its first pixel, mm (left, back, up).
        steps: `[2, 3]`, mm to the next row and to the next column.
    """

    path: Path
    uid: str
    origin: np.ndarray
    steps: np.ndarray

    def place(self, points: np.ndarray) -> np.ndarray:
        """`[n, 3]` mm of points `[n, 2]`, rows and columns."""
        return self.origin + points @ self.steps

    def read(self) -> Scan:
        """Its pixels in HU and their place, turned as a `Scan` is."""
        scan = read_dicom([self.path], "CT")
        return dataclasses.replace(scan, values=np.maximum(scan.values, AIR))


def slices(folder: Path) -> list[Slice]:
    """The slices of a CT series from the feet upwards.

    Where two lie at one position, as in some scans, the one with the lower instance number counts.

    Raises:
        ValueError: a file that cannot be read or is no CT; steps that differ: a slice is missing.
    """
    found: dict[float, tuple[int, Slice]] = {}
    for path in sorted(folder.glob("*.dcm")):
        try:
            header = pydicom.dcmread(path, specific_tags=_TAGS)
            if header.Modality != "CT":
                raise ValueError(f"expected modality CT. Received: {header.Modality}")
            _check_length(path, header)
            axes = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
            spacing = np.array(header.PixelSpacing, float)
            origin = np.array(header.ImagePositionPatient, float)
            order = int(header.get("InstanceNumber") or 0)
        except Exception as error:  # a damaged header raises errors of many types
            raise ValueError(f"{folder.name}: {path.name}: {error}") from error
        one = Slice(path, str(header.SOPInstanceUID), origin, axes[::-1] * spacing[:, None])
        place = round(float(np.cross(*axes) @ origin), 2)
        if place not in found or order < found[place][0]:
            found[place] = order, one
    ordered = [found[place][1] for place in sorted(found)]
    if len(ordered) > 1:
        try:
            geometry.slice_step([tuple(one.origin) for one in ordered])
        except ValueError as error:
            raise ValueError(f"{folder.name}: {error}") from error
    return sorted(ordered, key=lambda one: one.origin[2])


def _check_length(path: Path, header: pydicom.Dataset) -> None:
    """Refuses a file that was cut off, without reading the pixels of all slices."""
    if not header.file_meta.TransferSyntaxUID.is_compressed:
        pixels = header.Rows * header.Columns * header.BitsAllocated // 8
        if path.stat().st_size < pixels:
            raise ValueError(
                f"expected {pixels} bytes of pixels. Received: {path.stat().st_size} bytes in all"
            )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Mark:
    """What one reader marked as a nodule.

    Attributes:
        reader: number of the reading session.
        centre: mm (left, back, up).
        diameter: mm, of a disc as large as its largest contour; 0 for a nodule below 3 mm.
        malignancy: 1 (highly unlikely) to 5 (highly suspicious); None below 3 mm.
        texture: 1 (non-solid) to 5 (solid); None below 3 mm.
    """

    reader: int
    centre: np.ndarray
    diameter: float
    malignancy: int | None = None
    texture: int | None = None


def marks(xml: Path, series: list[Slice]) -> list[Mark]:
    """The nodules of all readers.

    Raises:
        ValueError: a file that is no reading of a CT, or a contour in a slice that is not there.
    """
    with reading(xml.name):
        tree = ElementTree.parse(xml).getroot()
    for element in tree.iter():  # the namespace says nothing
        element.tag = element.tag.rpartition("}")[2]
    if tree.tag != "LidcReadMessage":
        raise ValueError(f"{xml.name}: expected LidcReadMessage. Received: {tree.tag}")
    by_uid = {one.uid: one for one in series}
    found = []
    for reader, session in enumerate(tree.findall("readingSession")):
        for nodule in session.findall("unblindedReadNodule"):
            mark = _mark(xml, reader, nodule, by_uid)
            if mark is not None:
                found.append(mark)
    return found


def _mark(
    xml: Path, reader: int, nodule: ElementTree.Element, by_uid: dict[str, Slice]
) -> Mark | None:
    centres, areas, points = [], [], 0
    for roi in nodule.findall("roi"):
        edge = np.array(
            [
                [float(e.findtext("yCoord", "")), float(e.findtext("xCoord", ""))]
                for e in roi.iter("edgeMap")
            ]
        )
        if roi.findtext("inclusion", "TRUE").strip().upper() != "TRUE" or not len(edge):
            continue  # a hole in the nodule
        one = _slice_of(xml, roi, by_uid)
        places = one.place(edge)
        pixel = np.linalg.norm(np.cross(*one.steps))
        rows, columns = edge.T
        turned = rows * np.roll(columns, 1) - columns * np.roll(rows, 1)
        centres.append(places.mean(0))
        areas.append(abs(turned.sum()) / 2 * pixel)
        points += len(edge)
    if not centres:
        return None
    weights = np.array(areas) + 1e-3  # a line and a point have a place, too
    centre = np.average(centres, axis=0, weights=weights)
    ratings = {
        name: int(nodule.findtext(f"characteristics/{name}", "0").strip() or 0)
        for name in ("malignancy", "texture")
    }
    if points < 2 or not all(ratings.values()):
        return Mark(reader=reader, centre=centre, diameter=0.0)
    return Mark(reader=reader, centre=centre, diameter=2 * np.sqrt(max(areas) / np.pi), **ratings)


def _slice_of(xml: Path, roi: ElementTree.Element, by_uid: dict[str, Slice]) -> Slice:
    """The slice of a contour by its UID, or by its z position where the UID is another's."""
    uid = roi.findtext("imageSOP_UID", "").strip()
    if uid in by_uid:
        return by_uid[uid]
    z = float(roi.findtext("imageZposition", "nan"))
    near = [one for one in by_uid.values() if abs(one.origin[2] - z) < 0.01]
    if len(near) != 1:
        raise ValueError(
            f"{xml.name}: expected the slice {uid} at z = {z:g} mm in the series. "
            f"Received: {len(near)} there"
        )
    return near[0]


def nodules(found: list[Mark], readers: int, apart: float) -> list[list[Mark]]:
    """The marks of nodules of 3 mm and more that enough readers agree on, grouped by nodule.

    Marks are one nodule's where each lies within `apart` of each other one (complete linkage), no
    reader counting twice.

    Args:
        found: what all readers marked.
        readers: at least so many of the four.
        apart: mm.
    """
    large = [mark for mark in found if mark.diameter > 0]
    if len(large) < 2:
        return [[mark] for mark in large] if readers <= 1 else []
    gaps = distance.squareform(distance.pdist([mark.centre for mark in large]))
    who = np.array([mark.reader for mark in large])
    gaps[(who == who[:, None]) & ~np.eye(len(who), dtype=bool)] = 1e6  # two nodules, surely
    tree = hierarchy.linkage(distance.squareform(gaps), "complete")
    groups: dict[int, list[Mark]] = {}
    for number, mark in zip(hierarchy.fcluster(tree, apart, "distance"), large, strict=True):
        groups.setdefault(int(number), []).append(mark)
    return [group for group in groups.values() if len(group) >= readers]


def read_slices(case: Case, config: Any) -> Iterator[tuple[str, np.ndarray, tuple[float, float]]]:
    """Axial slices over the length of a scan: name, HU int16 `[H, W]`, spacing in mm.

    Args:
        case: of `find_series`.
        config: its `slices` says how many.
    """
    series = slices(case.files["series"])
    count = min(config.slices, len(series))
    for k in range(count):
        index = int((k + 0.5) * len(series) / count)
        scan = series[index].read()
        yield f"{case.key}-{index:04d}", to_int16(scan.values[0]), scan.spacing[1:]
