"""Collections of the Imaging Data Commons, downloaded into the layout that a config's `find` reads.

The index of all series comes inside the package idc-index-data, so what to download is known
without a network; idc-index downloads it from the Commons' public bucket.
"""

import dataclasses
import hashlib
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HOST = "s3.amazonaws.com"
_COLUMNS = [
    "collection_id",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "SeriesDescription",
    "instanceCount",
    "series_size_MB",
    "license_short_name",
]
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """Series of a collection, and the folders that they go to.

    Attributes:
        collection: its name at the Commons.
        wanted: whether a series (a row of the index) is.
        folder: the folder of a series below the manual directory; the row's fields in braces,
            and `hash`, eight digits for the series.
        patient: the publisher's name of a patient, from the Commons'.
        together: descriptions of series; patients who lack one of them are left out.
        rest: what the Commons do not have of the collection.
    """

    collection: str
    wanted: Callable[[Row], bool]
    folder: str
    patient: Callable[[str], str] = str
    together: tuple[str, ...] = ()
    rest: str = ""


def _described(*names: str | None) -> Callable[[Row], bool]:
    return lambda row: row["SeriesDescription"] in names


def _cbis_folder(patient: str) -> str:
    """`P_00038_LEFT_CC.dcm`, as 396 of the calcification test set are named, without its errors."""
    if patient.startswith("P_"):
        return f"Calc-Test_{patient.removesuffix('.dcm')}"
    return patient


_CBIS_TABLES = (
    "Its four tables (mass_case_description_train_set.csv …) are to be downloaded from "
    "https://www.cancerimagingarchive.net/collection/cbis-ddsm/"
)

# A config's `idc` names one of them.
SELECTIONS = {
    "ldct_and_projection_data": Selection(
        collection="ldct_and_projection_data",
        wanted=_described("Full Dose Images", "Low Dose Images"),
        together=("Full Dose Images", "Low Dose Images"),
        folder="LDCT-and-Projection-data/{PatientID}/{StudyInstanceUID}/"
        "1.000000-{SeriesDescription}-{hash}",
    ),
    "cptac_sar": Selection(
        collection="cptac_sar",
        wanted=lambda row: row["Modality"] == "CT" and row["instanceCount"] >= 8,
        folder="CPTAC-SAR/{PatientID}/{StudyInstanceUID}/CT_{SeriesInstanceUID}",
    ),
    "lidc_idri": Selection(
        collection="lidc_idri",
        wanted=lambda row: row["Modality"] == "CT",
        folder="LIDC-IDRI/{PatientID}/{StudyInstanceUID}/{SeriesInstanceUID}",
        rest="The readers' marks (LIDC-XML-only.zip) are to be downloaded from "
        "https://www.cancerimagingarchive.net/collection/lidc-idri/",
    ),
    "cbis_ddsm": Selection(
        collection="cbis_ddsm",
        wanted=_described("full mammogram images", None),  # some have no description
        patient=_cbis_folder,
        folder="CBIS-DDSM/{PatientID}/{StudyInstanceUID}/{SeriesInstanceUID}",
        rest=_CBIS_TABLES,
    ),
    "cbis_ddsm_lesions": Selection(
        collection="cbis_ddsm",
        wanted=_described("cropped images", "ROI mask images"),
        patient=_cbis_folder,
        folder="CBIS-DDSM/{PatientID}/{StudyInstanceUID}/{SeriesInstanceUID}",
        rest=_CBIS_TABLES,
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """A series to download: its files, their size, and the folder below the manual directory."""

    uid: str
    folder: str
    files: int
    megabytes: float


def select(name: str, index: Iterable[Row] | None = None) -> list[Series]:
    """The series of a selection, sorted by folder.

    Args:
        name: a key of `SELECTIONS`.
        index: rows of the Commons' index; None: those of the installed idc-index-data.

    Raises:
        ValueError: for an unknown name, a package that is missing, and an index without such
            series.
    """
    if name not in SELECTIONS:
        raise ValueError(f"idc: expected one of {', '.join(SELECTIONS)}. Received: {name}")
    # Those that are wanted, of patients who have all of them.
    selection = SELECTIONS[name]
    rows = read_index(selection.collection) if index is None else index
    rows = [r for r in rows if r["collection_id"] == selection.collection and selection.wanted(r)]
    if selection.together:
        kinds: dict[str, set[str]] = {}
        for row in rows:
            kinds.setdefault(row["PatientID"], set()).add(row["SeriesDescription"])
        rows = [r for r in rows if kinds[r["PatientID"]] == set(selection.together)]
    if not rows:
        raise ValueError(f"idc: expected series of {selection.collection}. Received: none")
    # Where each of them goes.
    found = []
    for row in rows:
        uid = row["SeriesInstanceUID"]
        digits = hashlib.sha256(uid.encode()).hexdigest()[:8]
        row = row | {"PatientID": selection.patient(row["PatientID"])}
        folder = selection.folder.format(**row, hash=digits)
        if not Path(folder).parts or ".." in Path(folder).parts or Path(folder).is_absolute():
            raise ValueError(
                f"idc: expected a folder below the manual directory. Received: {folder}"
            )
        found.append(
            Series(
                uid=uid,
                folder=folder,
                files=int(row["instanceCount"]),
                megabytes=float(row["series_size_MB"]),
            )
        )
    return sorted(found, key=lambda series: (series.folder, series.uid))


def read_index(collection: str) -> list[Row]:
    """The rows of a collection in the index that idc-index-data brings; no network is needed.

    Raises:
        ValueError: where the package is missing.
    """
    try:
        import idc_index_data
        import pyarrow.parquet
    except ImportError as error:
        raise _missing_package(error) from error
    table = pyarrow.parquet.read_table(
        idc_index_data.IDC_INDEX_PARQUET_FILEPATH,
        columns=_COLUMNS,
        filters=[("collection_id", "==", collection)],
    )
    return table.to_pylist()


def fetch(
    name: str,
    manual: Path,
    download: Callable[[str, Path], None] | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Downloads a selection into a manual directory; goes on where it was stopped.

    A series is downloaded beside its folder and moved there when it is whole: folders that are
    there are not downloaded again.

    Args:
        name: a key of `SELECTIONS`.
        manual: the manual directory.
        download: (SeriesInstanceUID, empty folder) to files; None: through idc-index.
        say: receives lines on what is done.

    Returns:
        The number of series that were downloaded now.

    Raises:
        ValueError: where the package idc-index is missing.
        OSError: without a network, for a series that came incomplete, and a disk that is full.
    """
    import tqdm

    # What is not there yet.
    every = select(name)
    wanted = [series for series in every if not (manual / series.folder).is_dir()]
    size = sum(series.megabytes for series in wanted) / 1000
    say(f"{name}: {len(wanted)} of {len(every)} series, {size:.1f} GB, into {manual}")
    if SELECTIONS[name].rest:
        say(f"Not at the Imaging Data Commons: {SELECTIONS[name].rest}")
    if wanted:
        get = download or _client()
    # Room for it.
    manual.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(manual).free < 1.05e6 * sum(series.megabytes for series in wanted):
        raise OSError(
            f"fetch: expected {1.05 * size:.1f} GB of free space at {manual}. "
            f"Received: {shutil.disk_usage(manual).free / 1e9:.1f} GB"
        )
    # Each series beside its folder first.
    part = manual / ".incomplete"
    with tqdm.tqdm(total=round(size * 1000), unit=" MB", disable=None) as bar:
        for series in wanted:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            get(series.uid, part)
            got = sum(1 for path in part.rglob("*") if path.is_file())
            if got != series.files:
                raise OSError(
                    f"fetch: expected {series.files} files of series {series.uid}. "
                    f"Received: {got}. The same command goes on from here."
                )
            target = manual / series.folder
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, target)
            bar.update(round(series.megabytes))
    shutil.rmtree(part, ignore_errors=True)
    return len(wanted)


def _client() -> Callable[[str, Path], None]:
    try:
        import idc_index
    except ImportError as error:
        raise _missing_package(error) from error
    try:  # the client itself tries for minutes, and only logs that it failed
        socket.create_connection((HOST, 443), timeout=20).close()
    except OSError as error:
        raise OSError(
            f"fetch: expected a network with access to {HOST}, where the Imaging Data Commons are. "
            f"Received: {error}"
        ) from error
    logging.getLogger("idc_index").setLevel(logging.WARNING)
    client = idc_index.IDCClient.client()

    def download(uid: str, folder: Path) -> None:
        client.download_dicom_series(
            uid, str(folder), quiet=True, show_progress_bar=False, dirTemplate=None
        )

    return download


def _missing_package(error: ImportError) -> ValueError:
    return ValueError(
        f"fetch: expected the package idc-index: pip install 'zoo-medical[idc]'. Received: {error}"
    )
