"""The layout of LDCT-and-Projection-data as The Cancer Imaging Archive delivers it.

    <patient>/<study>/<n>-Full Dose Images-<n>/*.dcm
    <patient>/<study>/<n>-Low Dose Images-<n>/*.dcm

directly in the manual directory or in the NBIA Data Retriever's folders around it. The projections
beside the images are not read.
"""

from pathlib import Path

from zoo_datasets import cases
from zoo_datasets.publishers import volumes

FULL, LOW = "Full Dose Images", "Low Dose Images"
_FILES = "*.dcm"


def find(root: Path) -> dict[str, list[cases.Case]]:
    """The patients that hold both doses, split by a hash of their pseudonym.

    A patient with one dose only is a case too: it is listed as one that cannot be read.

    Raises:
        FileNotFoundError: where there are no images of a dose.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    for dose in (FULL, LOW):
        for folder in cases.need(root, f"**/*{dose}*", f"<patient>/<study>/<n>-{dose}-<n>"):
            patient = folder.parent.parent.name
            found.setdefault(patient, {}).setdefault(dose, []).extend(folder.glob(_FILES))
    series = []
    for patient, doses in found.items():
        files = {dose: sorted(paths) for dose, paths in doses.items()}
        series.append(cases.Case(key=patient, patient=patient, files=files))
    return cases.by_patient(series)


def read(case: cases.Case, config: cases.SourceConfig) -> cases.Examples:
    """Slices of both doses at the same places, int16 HU `[H, W, 1]`, the lowest first.

    Raises:
        ValueError: for a dose that is missing or no evenly spaced CT series, and for doses that
            differ in number, position or shape of their slices.
    """
    scans = []
    for dose in (LOW, FULL):
        if not case.files.get(dose):
            raise ValueError(f"{case.key}: expected a folder of {dose}. Received: none")
        try:
            scans.append(volumes.read_dicom(case.files[dose], "CT"))
        except ValueError as error:
            raise ValueError(f"{case.key}, {dose}: {error}") from error
    low, full = scans
    if not low.same_grid(full):
        raise ValueError(
            f"{case.key}: expected slices of both doses in the same places. "
            f"Received: {full.values.shape} from {_start(full)} mm at full dose, "
            f"{low.values.shape} from {_start(low)} mm at low dose"
        )
    for i, (source, target) in enumerate(zip(low.values, full.values, strict=True)):
        name = f"{case.key}-{i:04d}"
        yield case.example(
            name,
            source=volumes.to_int16(source)[..., None],
            target=volumes.to_int16(target)[..., None],
            spacing=full.spacing[1:],
        )


def _start(scan: volumes.Scan) -> list[float]:
    return [round(float(v), 2) for v in scan.affine[:3, 3]]
