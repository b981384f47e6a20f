"""Tiny synthetic files in the layouts of NIH ChestX-ray14, CBIS-DDSM, LIDC-IDRI and LiTS."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import PIL.Image
import pydicom

from dummy_data import write_nifti, write_series
from zoo_datasets.cases import hashed_split

NIH_HEAD = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def nih14(root: Path) -> dict:
    """Radiographs of seven patients, one RGBA; known pixels and spacing."""
    validation = next(n for n in range(100, 999) if hashed_split(f"{n:08d}") == "validation")
    rows = [  # patient, follow-up, findings, official split
        (1, 0, "Cardiomegaly", "train_val"),
        (1, 1, "Cardiomegaly|Emphysema", "train_val"),
        (2, 0, "No Finding", "train_val"),
        (3, 0, "Hernia", "test"),
        (validation, 0, "Pleural_Thickening|Mass|Nodule", "train_val"),
    ]
    known, lists = {}, {"train_val": [], "test": []}
    with open(root / "Data_Entry_2017_v2020.csv", "w", newline="") as table:
        table.write(NIH_HEAD + "\n")
        lines = csv.writer(table)
        for i, (patient, follow_up, findings, split) in enumerate(rows):
            name = f"{patient:08d}_{follow_up:03d}"
            lines.writerow(
                [f"{name}.png", findings, follow_up, patient, 58, "M", "PA"]
                + [2048, 3072, 0.143, 0.168, ""]
            )
            lists[split].append(f"{name}.png")
            # Noise, so that cutting off the end of the file cuts off pixels.
            image = np.random.default_rng(i).integers(0, 200, (1024, 1024), np.uint8)
            image[10, 20] = 251 - i
            folder = root / f"images_{i % 2 + 1:03d}" / "images"
            folder.mkdir(parents=True, exist_ok=True)
            picture = PIL.Image.fromarray(image)
            if i == 1:
                picture = PIL.Image.merge("RGBA", [picture] * 3 + [picture.point(lambda _: 255)])
            picture.save(folder / f"{name}.png", compress_level=1)
            known[name] = {
                "image": {(10, 20, 0): 251 - i},
                "spacing": {(0,): 0.168 * 3, (1,): 0.143 * 2},
            }
    for split, names in lists.items():
        (root / f"{split}_list.txt").write_text("\n".join(names) + "\n")
    return known


def lits(root: Path) -> dict:
    """Cases of LiTS in two folders, packed or not, in two orientations; known pixels."""
    splits = {}  # numbers of each split
    for number in range(131):
        splits.setdefault(hashed_split(f"lits-{number:03d}"), []).append(number)
    numbers = splits["train"][:2] + splits["validation"][:1] + splits["test"][:1]
    known = {}
    rows, columns = np.mgrid[:100, :120]
    for i, number in enumerate(numbers):
        rng = np.random.default_rng(i)
        hu = np.full((6, 100, 120), -1000.0)
        labels = np.zeros(hu.shape)
        body = np.hypot((rows - 50) / 46, (columns - 60) / 56) < 1
        liver = np.hypot((rows - 50) / 36, (columns - 55) / 42) < 1
        hu[:, body], hu[1:5, liver] = -80, 100
        hu += rng.integers(-9, 10, hu.shape)
        labels[1:5, liver] = 1
        tumour = np.hypot(rows - 40, columns - 36) < 5  # largest in slice 2
        labels[2, tumour], hu[2, tumour] = 2, 40
        small = np.hypot(rows - 40, columns - 36) < 4
        labels[3, small], hu[3, small] = 2, 40
        labels[1, 60, 70] = 2  # too small for a patch of its own
        hu[2, 20:22, 30:32] = 400  # in front, to the right of the tumour
        # Slices upwards, rows backwards, columns to the left; 1 mm pixels, 2.5 mm slices.
        affine = np.diag([-1.0, -1.0, 2.5, 1.0])
        affine[:3, 3] = 60, 50, -300
        folder = root / f"Training Batch {i % 2 + 1}"
        suffix, codes = ((".nii.gz", "LPS"), (".nii", "RAS"))[i % 2]
        for role, values in (("volume", hu), ("segmentation", labels)):
            write_nifti(
                folder / f"{role}-{number}{suffix}",
                values.transpose(2, 1, 0).astype(np.int16),
                affine,
                codes,
            )
        # A patch's pixel lies between four of the slice's; its middle is row 40, column 36.
        known[f"lits-{number:03d}-tumour-00"] = {
            "image": {(31, 31, 0): hu[2, 39:41, 35:37].mean(), (12, 26, 0): 400},
            "spacing": {(0,): 1.0, (1,): 1.0},
        }
    return known


def patients(split: str, count: int, name: str = "LIDC-IDRI-{:04d}") -> list[str]:
    """The first names of a split."""
    names = (name.format(n) for n in range(1, 1000))
    return [n for n in names if hashed_split(n) == split][:count]


def lidc(root: Path) -> dict:
    """LIDC-IDRI: CT series with the readers' XML, one of them scanned on the belly, and a chest
    radiograph; known pixels. Labels by patient: `LIDC_LABELS`.
    """
    names = patients("train", 2) + patients("validation", 1) + patients("test", 1)
    known = {}
    for i, (patient, ratings) in enumerate(zip(names, LIDC_RATINGS, strict=True)):
        hu = _thorax(i)
        axes = (-1, 0, 0, 0, -1, 0) if i == 1 else (1, 0, 0, 0, 1, 0)
        study = root / "manifest-1600709154662" / "LIDC-IDRI" / patient / "01-01-2000-NA-NA-30178"
        folder = study / f"3000566.000000-NA-{3192 + i:05d}"
        series = write_series(
            folder, hu, patient=patient, axes=axes, spacing=(2.5, 0.7, 0.7), order=[3, 0, 2, 4, 1]
        )
        uids = [pydicom.uid.generate_uid(entropy_srcs=[series, str(k)]) for k in range(5)]
        (folder / f"{69 + i:03d}.xml").write_text(_readings(series, uids, ratings))
        if i == 0:  # radiographs of the same patient, read as well
            other = study.parent / "01-01-2000-NA-NA-35511" / "3000923.000000-NA-62357"
            write_series(other, hu[:1] + 1000, modality="MG", patient=patient)
            radiograph = pydicom.dcmread(other / "1-001.dcm")
            radiograph.Modality = "DX"
            radiograph.save_as(other / "1-001.dcm")
            (other / "001.xml").write_text('<IdriReadMessage xmlns="http://www.nih.gov"/>')
        # Above and to the left of the nodule in the file's rows and columns.
        place = (50, 21, 0) if i == 1 else (13, 42, 0)
        if sum(rating is not None for rating in ratings) >= 3:
            known[f"{patient}_1-00"] = {"image": {place: 500, (31, 31, 0): 40}}
    return known


LIDC_LABELS = ("malignant", "benign", "indeterminate", "no_nodule")
LIDC_RATINGS = (  # (malignancy, texture) by reader
    ((4, 5), (5, 5), (3, 4), None),
    ((2, 2), (1, 1), (2, 3), (4, 2)),
    ((3, 5), (3, 5), None, (3, 5)),
    ((5, 5), None, (5, 5), None),
)


def _thorax(seed: int) -> np.ndarray:
    """Two lungs, a ball of a nodule in one; HU `[5, 180, 200]`."""
    rows, columns = np.mgrid[:180, :200]
    hu = np.full((5, 180, 200), -1000.0)
    hu[:, np.hypot((rows - 90) / 85, (columns - 100) / 95) < 1] = 30
    for column in (55, 145):
        hu[:, np.hypot(rows - 90, columns - column) < 40] = -850
    hu += np.random.default_rng(seed).integers(-9, 10, hu.shape)
    for k, radius in ((1, 4), (2, 7), (3, 4)):
        hu[k, np.hypot(rows - 90, columns - 55) < radius] = 40
    hu[2, 70:74, 64:68] = 500
    return hu


def _readings(series: str, uids: list[str], ratings) -> str:
    """The four readers' XML. Each marks the nodule (or not), a small one, and what is none."""
    sessions = []
    for reader, rating in enumerate(ratings):
        parts = [
            f"<unblindedReadNodule><noduleID>{reader}9</noduleID>{_roi(uids, 1, [(145, 90)])}"
            "</unblindedReadNodule>",
            "<nonNodule><nonNoduleID>7</nonNoduleID><imageZposition>0.0</imageZposition>"
            f"<imageSOP_UID>{uids[0]}</imageSOP_UID>"
            "<locus><xCoord>99</xCoord><yCoord>20</yCoord></locus></nonNodule>",
        ]
        if rating is not None:
            malignancy, texture = rating
            readers = [k for k, other in enumerate(ratings) if other is not None]
            # The readers' contours differ; their mean lies in the nodule's middle.
            shift = 2 * (readers.index(reader) - (len(readers) - 1) / 2)
            rois = []
            for k, radius in ((1, 4), (2, 7), (3, 4)):
                turns = np.arange(8) * np.pi / 4
                across = 55 + np.rint(radius * np.cos(turns)) + shift
                down = 90 + np.rint(radius * np.sin(turns))
                rois.append(_roi(uids, k, zip(across, down, strict=True)))
            rois.append(_roi(uids, 2, [(150, 40), (152, 40), (151, 42)], "FALSE"))
            parts.append(
                f"<unblindedReadNodule><noduleID>{reader}1</noduleID><characteristics>"
                f"<subtlety>4</subtlety><texture>{texture}</texture>"
                f"<malignancy>{malignancy}</malignancy></characteristics>{''.join(rois)}"
                "</unblindedReadNodule>"
            )
        sessions.append(f"<readingSession>{''.join(parts)}</readingSession>")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<LidcReadMessage uid="1.3.6.1.4.1.14519" '
        'xmlns="http://www.nih.gov"><ResponseHeader><Version>1.8.1</Version>'
        f"<SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>"
        f"{''.join(sessions)}</LidcReadMessage>\n"
    )


def _roi(uids: list[str], k: int, points, inclusion: str = "TRUE") -> str:
    edge = "".join(
        f"<edgeMap><xCoord>{x:g}</xCoord><yCoord>{y:g}</yCoord></edgeMap>" for x, y in points
    )
    return (
        f"<roi><imageZposition>{2.5 * k}</imageZposition><imageSOP_UID>{uids[k]}</imageSOP_UID>"
        f"<inclusion>{inclusion}</inclusion>{edge}</roi>"
    )


_WORDS = {"Mass": "mass", "Calc": "calcification"}
CBIS_HEAD = (
    "patient_id,{density},left or right breast,image view,abnormality id,abnormality type,"
    "{kind} shape,{kind} margins,assessment,pathology,subtlety,image file path,"
    "cropped image file path,ROI mask file path"
)


def cbis_ddsm(root: Path) -> dict:
    """CBIS-DDSM: films, crops and masks of five patients, with the crop in either column, both
    files in one series or each in its own; known pixels of films and of crops.
    """
    training = [f"P_{n:05d}" for n in range(1, 400)]
    first_byte = {p: hashlib.sha256(p.encode()).digest()[0] for p in training}
    validation = next(p for p in training if first_byte[p] % 10 == 0)
    first, second = [p for p in training if first_byte[p] % 10][:2]
    rows = [  # kind, official split, patient, pathology, one series for crop and mask
        ("Mass", "Training", first, "BENIGN", True),
        ("Mass", "Training", second, "BENIGN", False),
        ("Calc", "Training", validation, "BENIGN_WITHOUT_CALLBACK", False),
        ("Mass", "Test", "P_00500", "MALIGNANT", True),
        ("Calc", "Test", "P_00501", "MALIGNANT", False),
    ]
    tables = {(kind, part): [] for kind in ("mass", "calc") for part in ("train", "test")}
    home, known = root / "CBIS-DDSM", {}
    for i, (kind, split, patient, pathology, together) in enumerate(rows):
        rng = np.random.default_rng(i)
        film = rng.integers(900, 1100, (60, 40))
        film[:, :20] = 40000
        mask = np.zeros((60, 40))
        mask[20:32, 5:25] = 255
        crop = np.full((12, 20), 20000 + i)
        crop[:, 10:] = 50000
        crop[5:7, 9:11] = 35000  # a mask has two values, a crop has more
        folder, study = f"{kind}-{split}_{patient}_LEFT_CC", f"07-20-2016-DDSM-NA-{i:05d}"
        series = home / folder / study / f"1.000000-full mammogram images-{i:05d}"
        _single(series / "1-1.dcm", film, folder, "full mammogram images")
        series = home / f"{folder}_1" / study / f"1.000000-ROI mask images-{i:05d}"
        _single(series / "1-2.dcm", mask, f"{folder}_1", "ROI mask images")
        if not together:
            series = home / f"{folder}_1" / study / f"1.000000-cropped images-{i:05d}"
        description = "ROI mask images" if together else "cropped images"
        _single(series / "1-1.dcm", crop, f"{folder}_1", description)
        listed = [f"{folder}_1/1.3.6.{i}/1.3.6.9{i}/00000{n}.dcm\n" for n in (0, 1)]
        tables[kind.lower(), "train" if split == "Training" else "test"].append(
            [patient, 3, "LEFT", "CC", 1, _WORDS[kind]]
            + ["OVAL", "N/A", 4, pathology, 4, f"{folder}/1.3.6.{i}/1.3.6.8{i}/000000.dcm"]
            + (listed[::-1] if i % 2 else listed)
        )
        name = f"{patient}_L_CC"
        finding = f"{name}_{_WORDS[kind]}_1"
        known[name] = {
            "image": {(500, 300, 0): 40000, (500, 800, 0): 0},
            "target": {(500, 300, 0): 40000},
            "source_x4": {(100, 70, 0): 40000},
        }
        known[finding] = {
            "image": {(128, 10, 0): 20000 + i, (2, 10, 0): 20000 + i, (128, 245, 0): 50000}
        }
    for (kind, part), lines in tables.items():
        with open(root / f"{kind}_case_description_{part}_set.csv", "w", newline="") as table:
            density = "breast_density" if kind == "mass" else "breast density"
            table.write(CBIS_HEAD.format(kind=kind, density=density) + "\n")
            csv.writer(table).writerows(lines)
    return known


def cbis_ddsm_films(root: Path) -> dict:
    """As `cbis_ddsm`; what is known of the films."""
    return {name: v for name, v in cbis_ddsm(root).items() if name.endswith("_CC")}


def _only(known: dict, *features: str) -> dict:
    return {name: {f: v[f] for f in features if f in v} for name, v in known.items()}


def cbis_ddsm_full(root: Path) -> dict:
    """`cbis_ddsm` with the known pixels of single films."""
    return _only(cbis_ddsm_films(root), "image")


def cbis_ddsm_sr(root: Path) -> dict:
    """`cbis_ddsm` with the known pixels of films at several resolutions."""
    return _only(cbis_ddsm_films(root), "target", "source_x4")


def cbis_ddsm_lesions(root: Path) -> dict:
    """`cbis_ddsm` with the known pixels of the crops."""
    return {name: v for name, v in cbis_ddsm(root).items() if name.endswith("_1")}


def _single(path: Path, values: np.ndarray, patient: str, description: str) -> None:
    """One frame in a file of its own name."""
    apart = path.parent / "new"
    write_series(apart, values[None], modality="MG", patient=patient, description=description)
    (apart / "1-001.dcm").rename(path)
    apart.rmdir()


def lidc_sr(root: Path) -> dict:
    """`lidc` with known pixels of whole slices."""
    known = {}
    for name in [n for n in lidc(root) if n.endswith("_1-00")][:1]:
        # 180 x 200 pixels are cropped to 176 x 200.
        known[f"{name[:-3]}-0002"] = {
            "target": {(69, 65, 0): 500, (88, 55, 0): 40},
            "source_x2": {(34, 32, 0): 500},
            "spacing": {(0,): 0.7, (1,): 0.7},
        }
    return known
