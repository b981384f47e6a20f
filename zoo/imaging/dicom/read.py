"""Finds DICOM series: files of slices that lie beside each other."""

import collections
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom

from zoo.errors import contained
from zoo.imaging import geometry
from zoo.imaging.dicom import headers, stacks
from zoo.imaging.dicom.series import Frame, Series
from zoo.imaging.dicom.slices import Slice, read_slices
from zoo.imaging.volume import Problem


def find_series(files: list[tuple[Path, str]]) -> tuple[list[Series], list[Problem]]:
    """Groups DICOM files into series.

    Args:
        files: pairs of (path, POSIX path relative to the searched folder).

    Returns:
        The series, and the files that hold no usable image. A file that cannot be read does not
        take the others of its series with it.
    """
    # what each file holds; one of many frames is a series of its own
    problems = []
    by_uid: dict[tuple, list[Slice]] = collections.defaultdict(list)
    series: list[Series] = []
    for path, name in files:
        try:
            with headers.quiet(), contained("damaged header"):
                slices = read_slices(path, name)
        except ValueError as error:
            problems.append(Problem(path, str(error)))
            continue
        if len(slices) > 1:
            series.append(_series(stacks.stack(slices), name))
        else:
            by_uid[slices[0].uid or str(path), slices[0].shape].append(slices[0])
    # of single-frame files the parts, without those that lack what others of their series have
    parts: list[tuple[list[Slice], str, int]] = []
    for key, group in by_uid.items():
        group, odd = _without_odd(group)
        problems += odd
        for place, (part, number) in enumerate(_numbered(_of_each_patient(group))):
            parts.append((part, f"{key}{place}", number))
    # a part of several files is named after their folder, where it is the only one there
    taken = collections.Counter(_folder(part) for part, _, _ in parts if len(part) > 1)
    for part, text, number in parts:
        name = part[0].name
        if len(part) > 1:
            name = _folder(part)
            name += f"#{_hash(text)[:8]}" if taken[name] > 1 else ""
        series.append(_series([part], name, number))
    return series, problems


def _numbered(groups: list[list[Slice]]) -> list[tuple[list[Slice], int]]:
    """The parts of groups of slices, each with its number, from 0, among those of one view."""
    found = []
    views: list[tuple[Slice, Iterator[int]]] = []
    for part in itertools.chain.from_iterable(map(stacks.stack, groups)):
        known = [numbers for first, numbers in views if stacks.alike(part[0], first)]
        if not known:
            known = [itertools.count()]
            views.append((part[0], known[0]))
        found.append((part, next(known[0])))
    return found


def _of_each_patient(group: list[Slice]) -> list[list[Slice]]:
    """Slices of one SeriesInstanceUID by patient: what copies or rewrites files may repeat UIDs.

    Where all name one patient or none, they are one's.
    """
    by_patient: dict[str, list[Slice]] = collections.defaultdict(list)
    with headers.quiet():
        for item in group:
            by_patient[headers.text(item.header, "PatientID")].append(item)
    return [group] if len(set(by_patient) - {""}) < 2 else list(by_patient.values())


def _without_odd(group: list[Slice]) -> tuple[list[Slice], list[Problem]]:
    """Slices of one series, less those that do not say what others of them do."""
    rescaled = any(item.frame.encoding.rescaled for item in group)
    placed = {item.orientation for item in group if item.frame.position}
    good, problems = [], []
    for item in group:
        lacks = ""
        if rescaled and not item.frame.encoding.rescaled:
            lacks = "RescaleSlope, RescaleIntercept"
        elif item.frame.position is None and item.orientation in placed:
            lacks = "ImagePositionPatient"
        if lacks:
            text = f"{lacks}: expected as in other files of the series. Received: none"
            problems.append(Problem(item.frame.path, text))
        else:
            good.append(item)
    return good, problems


def _series(parts: list[list[Slice]], name: str, number: int = 0) -> Series:
    """One series of the parts of a file, or of one part of several files."""
    # the frames, and what all of them say alike
    first = parts[0][0]
    frames: list[Frame] = []
    for number_of_part, part in enumerate(parts):
        frames += (dataclasses.replace(item.frame, part=number_of_part) for item in part)
    paths = tuple(frame.path for frame in frames)
    if len(set(paths)) == 1:
        paths = paths[:1]
    spacing, orientation = first.spacing, first.orientation
    if not all(stacks.alike(item, first) for item in itertools.chain(*parts)):
        spacing = orientation = None
    with headers.quiet():  # what is asked of the first file only
        patient, thickness = _patient(first.header), _thickness(first.measures)
        frame_of_reference = headers.text(first.header, "FrameOfReferenceUID")
        study = headers.text(first.header, "StudyInstanceUID") or str(first.frame.path.parent)
        description = headers.text(first.header, "SeriesDescription")
    return Series(
        name=name,
        uid=first.uid,
        shape=first.shape,
        modality=first.modality,
        unit=first.unit,
        patient=patient,
        frame_of_reference=frame_of_reference,
        paths=paths,
        length=len(frames),
        spacing=spacing,
        slice_spacing=_slice_spacing(frames),
        number=number,
        frames=tuple(frames),
        orientation=orientation,
        thickness=thickness,
        study=study,
        description=description,
    )


def _slice_spacing(frames: list[Frame]) -> float | None:
    try:
        return float(np.linalg.norm(geometry.slice_step([frame.position for frame in frames])))
    except ValueError:
        return None


def _thickness(header: pydicom.Dataset) -> float:
    try:
        value = headers.number(header, "SliceThickness")
    except ValueError:  # it says little: no reason to refuse the image
        return 1.0
    return value if value and value > 0 else 1.0


def _patient(header: pydicom.Dataset) -> str:
    patient = headers.text(header, "PatientID")
    if patient:
        return f"{headers.text(header, 'IssuerOfPatientID')}|{patient}"
    return headers.text(header, "StudyInstanceUID")


def _folder(group: list[Slice]) -> str:
    folder = os.path.commonpath([os.path.dirname(item.name) or "." for item in group])
    return "series" if folder in ("", ".") else Path(folder).as_posix()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
