"""DICOM files for tests, and the validator."""

import datetime
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid
from pydicom.data import get_testdata_file

from zoo.domain import Domain
from zoo.imaging.dicom.write import Derivation
from zoo.imaging.dicom.write import write as write_series
from zoo.imaging.files import open_volume


def dciodvfy(path: Path) -> set[str]:
    """The errors that dicom3tools finds in a file."""
    program = shutil.which("dciodvfy")
    assert program, "dciodvfy is needed: apt-get install dicom3tools"
    run = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    return {line for line in (run.stdout + run.stderr).splitlines() if "Error" in line}


def bundled(name: str) -> Path:
    return Path(get_testdata_file(f"{name}.dcm", download=False))


def single(tmp_path, name="in.dcm", pixels=None, **changes) -> Path:
    """CT_small with other pixels and header fields; None removes one."""
    dataset = pydicom.dcmread(bundled("CT_small"))
    if pixels is not None:
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    for keyword, value in changes.items():
        if value is None:
            del dataset[keyword]
        elif isinstance(value, tuple):
            dataset[keyword] = pydicom.DataElement(keyword, *value)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(tmp_path / name)
    return tmp_path / name


def item(**fields) -> pydicom.Dataset:
    """An item of a sequence."""
    result = pydicom.Dataset()
    for keyword, value in fields.items():
        setattr(result, keyword, value)
    return result


def lookup_table(values, first=0, bits=16, kind="US") -> pydicom.Dataset:
    """An item of the Modality LUT Sequence, whose first entry is that of the stored `first`."""
    result = item(ModalityLUTType=kind)
    result.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(values), first, bits])
    result.add_new("LUTData", "US", values)
    return result


def enhanced(
    tmp_path, slopes=(1.0, 1.0, 1.0), bits=12, frames=3, shape=(6, 8)
) -> tuple[Path, np.ndarray]:
    """A valid enhanced CT of frames stored from top to bottom, and its physical values."""
    slopes = slopes if len(slopes) == frames else slopes[:1] * frames
    small = pydicom.dcmread(bundled("CT_small"))
    dataset = pydicom.Dataset()
    for keyword in [
        "PatientName", "PatientID", "PatientSex", "StudyInstanceUID", "SeriesInstanceUID",
        "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "Modality", "SamplesPerPixel",
        "PhotometricInterpretation", "Manufacturer", "ManufacturerModelName",
        "FrameOfReferenceUID", "PatientPosition", "SeriesNumber",
    ]:  # fmt: skip
        setattr(dataset, keyword, small.get(keyword, ""))
    dataset.SOPClassUID = pydicom.uid.EnhancedCTImageStorage
    dataset.SOPInstanceUID = pydicom.uid.generate_uid()
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.InstanceNumber, dataset.NumberOfFrames = 1, frames
    dataset.Rows, dataset.Columns = shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.ContentDate, dataset.ContentTime = "20200101", "120000"

    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.7], SliceThickness=2)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        FrameVOILUTSequence=[item(WindowCenter=40, WindowWidth=400)],
        CTImageFrameTypeSequence=[item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])],
    )
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for number, slope in enumerate(slopes):
        transformation = item(RescaleSlope=slope, RescaleIntercept=-1024, RescaleType="HU")
        groups.append(
            item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 10 - 2 * number])])
        )
        if len(set(slopes)) > 1:
            groups[-1].PixelValueTransformationSequence = [transformation]
        else:
            shared.PixelValueTransformationSequence = [transformation]
    dataset.PerFrameFunctionalGroupsSequence = groups
    stored = np.random.default_rng(0).integers(0, 1 << bits, (frames, *shape))
    stored[0, 0, 0], stored[0, 0, 1] = 0, (1 << bits) - 1
    dataset.PixelData = stored.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    physical = stored * np.array(slopes)[:, None, None] - 1024
    return tmp_path / "enhanced.dcm", physical.astype(np.float32)


def series(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        dataset = pydicom.dcmread(bundled("CT_small"))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.{i + 1}"
        dataset.ImagePositionPatient = [0, 0, float(i)]
        dataset.save_as(folder / f"{i}.dcm")
    return folder


def frames(path: Path, uid: str = "1.2.2") -> Path:
    """MR_small three times in one file."""
    dataset = pydicom.dcmread(bundled("MR_small"))
    dataset.NumberOfFrames, dataset.SeriesInstanceUID = 3, uid
    dataset.PixelData = dataset.PixelData * 3
    dataset.save_as(path)
    return path


def derivation(target=None, same_unit=True):
    return Derivation(
        name="pix2pix",
        title="Identity",
        weights_hash="ab" * 32,
        description="a test",
        target=target or Domain(modality="CT", unit="HU", window=(-1000, 1000)),
        same_unit=same_unit,
        moment=datetime.datetime(2026, 1, 2, 3, 4, 5),
        precision="bfloat16",
        series=((pydicom.uid.generate_uid(), 1003),),
    )


def refuse(path, error):
    raise error


def write(volume, folder, change=lambda x: x, note=None, deidentify=None):
    """The volume, each slice changed, written and found again."""
    folder.mkdir(parents=True, exist_ok=True)
    slices = ((i, change(volume.read(i))) for i in range(volume.length))
    paths = [folder / f"{i}.dcm" for i in range(len(volume.paths))]
    write_series(volume, paths, slices, note or derivation(), refuse, deidentify)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    return open_volume(folder)
