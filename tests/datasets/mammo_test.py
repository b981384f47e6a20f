"""The mammo data set: what the phantoms look like, and the CBIS-DDSM reader on a small fixture."""

import csv
import functools
import json

import numpy as np
import pydicom
import pytest
import tensorflow_datasets as tfds
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

from zoo.domain import Domain
from zoo_datasets.mammo import phantom
from zoo_datasets.mammo.mammo_dataset_builder import Builder
from zoo_datasets.publishers import cbis_ddsm
from zoo_datasets.workers import map_in_order


@pytest.fixture(scope="module")
def images():
    return [phantom.simulate(seed=5, index=i, size=256) for i in range(24)]


def breast_mask(pixels):
    """The breast by a threshold just above air."""
    return pixels[..., 0] > 300


def spectral_slope(patches):
    """Exponent beta of P(f) ~ 1 / f^beta: Hann windows, rings, a line through the logarithms."""
    n = patches.shape[-1]
    window = np.outer(np.hanning(n), np.hanning(n))
    power = 0
    for patch in patches:
        spectrum = np.abs(np.fft.fft2((patch - patch.mean()) * window)) ** 2
        power = power + spectrum / spectrum.sum()
    ring = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n))) * n
    k = np.arange(2, n // 4 + 1)  # up to half the Nyquist frequency: above it the blur takes over
    mean = [power[np.abs(ring - i) < 0.5].mean() for i in k]
    return -np.polyfit(np.log(k), np.log(mean), 1)[0]


def test_spectral_slope_of_known_noise():
    rng = np.random.default_rng(0)
    white = rng.standard_normal((40, 64, 64))
    assert abs(spectral_slope(white)) < 0.15
    brown = np.stack([phantom.power_law_field(rng, 256, 2.0)[:64, :64] for _ in range(40)])
    assert spectral_slope(brown) == pytest.approx(2.0, abs=0.25)


def test_tissue_has_the_power_law_of_mammograms(images):
    patches = []
    for image in images:
        # Deep inside only: the thickness roll-off at the skin has a spectrum of its own.
        deep = np.pad(breast_mask(image.pixels), 15, mode="edge")
        deep = ndimage.binary_erosion(deep, iterations=15)[15:-15, 15:-15]
        for y in range(0, 256 - 63, 32):
            for x in range(0, 256 - 63, 32):
                if deep[y : y + 64, x : x + 64].all():
                    patches.append(image.pixels[y : y + 64, x : x + 64, 0].astype(float))
    assert len(patches) > 50
    assert 2.6 < spectral_slope(np.stack(patches)) < 3.4


def test_breast_is_one_region_on_the_chest_wall_and_the_rest_is_air(images):
    for image in images:
        mask = breast_mask(image.pixels)
        labels, count = ndimage.label(mask)
        assert count == 1
        left, right = mask[:, 0].sum(), mask[:, -1].sum()
        chest, free = (left, right) if image.laterality == "L" else (right, left)
        assert chest > 60 and free == 0
        assert 0.1 < mask.mean() < 0.6
        air = ~ndimage.binary_dilation(mask, iterations=4)
        assert image.pixels[air].max() < 0.01 * phantom.MAXIMUM
        # CC images end above and below the breast, MLO images go up to the armpit.
        assert mask[0].any() == (image.view == "MLO")
        assert not mask[-1].any()


def test_pectoral_muscle_is_bright_in_mlo_only(images):
    for image in images:
        pixels = image.pixels if image.laterality == "L" else image.pixels[:, ::-1]
        corner = pixels[2:20, 2:20].mean()
        assert (corner > 0.3 * phantom.MAXIMUM) == (image.view == "MLO")


def test_values_need_more_than_eight_bits(images):
    for image in images:
        assert image.pixels.dtype == np.uint16 and image.pixels.shape == (256, 256, 1)
        assert len(np.unique(image.pixels)) > 2000
        assert 8000 < image.pixels.max() <= phantom.MAXIMUM
        assert (image.pixels == phantom.MAXIMUM).mean() < 0.01


def test_denser_breasts_are_brighter(images):
    by_density = {}
    for index in range(0, 240, 4):
        image = phantom.simulate(9, index, 64)
        inside = image.pixels[breast_mask(image.pixels)]
        by_density.setdefault(image.density, []).append(inside.mean())
    means = [np.mean(by_density[density]) for density in phantom.DENSITIES]
    assert means == sorted(means)


def test_an_image_depends_on_seed_and_index_alone():
    first = phantom.simulate(3, 6, 64)
    phantom.simulate(3, 5, 64)
    np.testing.assert_array_equal(first.pixels, phantom.simulate(3, 6, 64).pixels)
    assert (first.pixels != phantom.simulate(4, 6, 64).pixels).mean() > 0.1
    assert (first.pixels != phantom.simulate(3, 10, 64).pixels).mean() > 0.1


def test_bad_size_is_refused():
    with pytest.raises(ValueError, match="Received: 8, 0"):
        phantom.simulate(0, 0, 8)


def test_workers_give_the_same_images_in_order():
    make = functools.partial(phantom.example, seed=1, size=32)
    pool = list(map_in_order(make, range(20), workers=2))
    assert len(pool) == 20
    for index, example in enumerate(pool):
        expected = make(index)
        assert example["name"] == expected["name"]
        np.testing.assert_array_equal(example["image"], expected["image"])


def read(builder, split):
    return list(tfds.as_numpy(builder.as_dataset(split=split)))


def test_phantom_tiny_builds_and_reads_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    builder = Builder(config="phantom_tiny", data_dir=tmp_path / "data")
    builder.download_and_prepare()
    builder = Builder(config="phantom_tiny", data_dir=tmp_path / "data")
    splits = {split: read(builder, split) for split in ("train", "validation", "test")}
    assert {split: len(examples) for split, examples in splits.items()} == {
        "train": 16,
        "validation": 4,
        "test": 4,
    }
    patients = [{e["patient"] for e in examples} for examples in splits.values()]
    assert len(set.union(*patients)) == sum(map(len, patients)) == 6

    seed = builder.builder_config.seed
    expected = {image["name"]: image for image in (phantom.example(i, seed, 64) for i in range(24))}
    for example in (e for examples in splits.values() for e in examples):
        wanted = expected.pop(example["name"].decode())
        np.testing.assert_array_equal(example["image"], wanted["image"])
        assert example["laterality"].decode() == wanted["laterality"]
        assert example["view"].decode() == wanted["view"]
    assert not expected

    metadata = json.loads(json.dumps(dict(builder.info.metadata)))
    assert metadata["kind"] == "single"
    assert Domain.from_dict(metadata["image"]) == Domain(
        modality="MG", unit="signal", window=(0, 16383), spacing=(3.2, 3.2)
    )


def test_the_default_config_is_the_phantom(tmp_path):
    builder = Builder(data_dir=tmp_path)
    assert builder.builder_config.name == "phantom"
    assert builder.info.features["image"].shape == (256, 256, 1)
    assert builder.info.metadata["image"]["spacing"] == [0.8, 0.8]


# CBIS-DDSM: the tables as published, the folders as the NBIA Data Retriever writes them.

HEADS = {
    "mass": "patient_id,breast_density,left or right breast,image view,abnormality id,"
    "abnormality type,mass shape,mass margins,assessment,pathology,subtlety,image file path,"
    "cropped image file path,ROI mask file path",
    "calc": "patient_id,breast density,left or right breast,image view,abnormality id,"
    "abnormality type,calc type,calc distribution,assessment,pathology,subtlety,image file path,"
    "cropped image file path,ROI mask file path",
}
# (kind, official split, patient, side, view); P_00003 and P_00007 have both kinds of finding.
CASES = [
    ("mass", "Training", "P_00001", "LEFT", "CC"),
    ("mass", "Training", "P_00001", "LEFT", "MLO"),
    ("mass", "Training", "P_00002", "RIGHT", "CC"),
    ("mass", "Training", "P_00003", "LEFT", "CC"),
    ("calc", "Test", "P_00003", "RIGHT", "CC"),
    ("calc", "Training", "P_00011", "LEFT", "CC"),
    ("mass", "Test", "P_00006", "RIGHT", "MLO"),
    ("mass", "Training", "P_00007", "LEFT", "CC"),
    ("calc", "Training", "P_00007", "LEFT", "CC"),
]


def write_dicom(file, pixels, photometric="MONOCHROME2", slope=None, intercept=None):
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID
    data.Modality, data.PhotometricInterpretation = "MG", photometric
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    if slope is not None:
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
    data.PixelData = pixels.astype("<u2").tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(file, enforce_file_format=True)


def film(side):
    """A film [60, 40] whose bright half is the chest wall side."""
    pixels = np.full((60, 40), 1000)
    pixels[:, :20] = 40000
    return pixels if side == "LEFT" else pixels[:, ::-1]


@pytest.fixture
def collection(tmp_path):
    root = tmp_path / "manual"
    rows = {(kind, part): [] for kind in ("mass", "calc") for part in ("train", "test")}
    for number, (kind, split, patient, side, view) in enumerate(CASES):
        folder = f"{kind.capitalize()}-{split}_{patient}_{side}_{view}"
        study, series = f"1.3.6.1.4.1.9590.100.1.2.{number}", f"1.3.6.1.4.1.9590.100.1.2.9{number}"
        home = root / "manifest-ZkhPvrLo5216730872708713142" / "CBIS-DDSM"
        write_dicom(
            home
            / folder
            / f"07-20-2016-DDSM-NA-{number:05d}"
            / f"1.000000-full mammogram images-{number:05d}"
            / "1-1.dcm",
            film(side),
        )
        mask = f"ROI mask images-{number:05d}"
        write_dicom(
            home
            / f"{folder}_1"
            / f"07-21-2016-DDSM-NA-{number:05d}"
            / f"1.000000-{mask}"
            / "1-1.dcm",
            np.zeros((60, 40)),
        )
        for finding in (1, 2):  # two findings in one image: two rows
            rows[kind, "train" if split == "Training" else "test"].append(
                [patient, 3, side, view, finding, kind, "OVAL", "N/A", 4, "BENIGN", 4]
                + [f"{folder}/{study}/{series}/000000.dcm"]
                + [f"{folder}_{finding}/{study}/{series}/00000{n}.dcm\n" for n in (0, 1)]
            )
    for (kind, part), lines in rows.items():
        with open(root / f"{kind}_case_description_{part}_set.csv", "w", newline="") as table:
            table.write(HEADS[kind] + "\n")
            csv.writer(table).writerows(lines)
    return root


def test_cbis_ddsm_patients_are_in_one_split(collection):
    splits = cbis_ddsm.find(collection)
    patients = {split: {case.patient for case in cases} for split, cases in splits.items()}
    assert patients["test"] == {"P_00003", "P_00006"}
    assert not patients["train"] & patients["test"]
    assert not patients["train"] & patients["validation"]
    learning = patients["train"] | patients["validation"]
    assert learning == {"P_00001", "P_00002", "P_00011", "P_00007"}
    assert patients["train"] and patients["validation"]
    names = [case.key for cases in splits.values() for case in cases]
    assert len(names) == len(set(names)) == 8  # the film of P_00007 is in two tables
    assert [case.key for case in splits["test"]] == [
        "P_00003_L_CC",
        "P_00003_R_CC",
        "P_00006_R_MLO",
    ]
    assert all(
        "full mammogram" in str(case.files["image"]) for cases in splits.values() for case in cases
    )


def test_a_tenth_of_the_cbis_ddsm_training_patients_validates(collection):
    table = collection / "mass_case_description_train_set.csv"
    with open(table, newline="") as lines:
        row = list(csv.reader(lines))[1]
    with open(table, "a", newline="") as more:
        csv.writer(more).writerows([f"P_{n:05d}", *row[1:]] for n in range(1000, 1500))
    splits = cbis_ddsm.find(collection)
    assert len(splits["train"]) + len(splits["validation"]) == 500 + 5
    assert 30 < len(splits["validation"]) < 75


def test_cbis_ddsm_builds_from_the_manual_directory(collection, tmp_path):
    builder = Builder(config="cbis_ddsm", data_dir=tmp_path / "data")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=collection)
    )
    test = {e["name"].decode(): e for e in read(builder, "test")}
    left = test["P_00003_L_CC"]["image"][..., 0]
    assert left.shape == (1024, 1024) and left.dtype == np.uint16
    assert (left[:, 683:] == 0).all() and left[500, 300] == 40000 and left[500, 600] == 1000
    right = test["P_00003_R_CC"]["image"][..., 0]
    np.testing.assert_array_equal(right, left[:, ::-1])
    assert builder.info.metadata["image"]["window"] == [0, 65535]
    assert builder.info.metadata["image"]["spacing"] is None


def test_a_missing_cbis_ddsm_file_is_named(collection):
    folder = next(collection.glob("*/CBIS-DDSM/Mass-Training_P_00002_RIGHT_CC"))
    next(folder.rglob("*.dcm")).unlink()
    with pytest.raises(FileNotFoundError, match="P_00002_RIGHT_CC.*Received: 0 files"):
        cbis_ddsm.find(collection)
    (collection / "calc_case_description_test_set.csv").unlink()
    with pytest.raises(FileNotFoundError, match="calc_case_description_test_set.csv"):
        cbis_ddsm.find(collection)


def test_rescale_and_monochrome1(tmp_path):
    stored = np.full((32, 32), 100)
    stored[:, :10] = 1000
    write_dicom(tmp_path / "a.dcm", stored, slope=2, intercept=-50)
    np.testing.assert_array_equal(
        cbis_ddsm.read_mammogram(tmp_path / "a.dcm", 32)[..., 0], 2 * stored - 50
    )
    write_dicom(tmp_path / "b.dcm", 65535 - stored, photometric="MONOCHROME1")
    np.testing.assert_array_equal(cbis_ddsm.read_mammogram(tmp_path / "b.dcm", 32)[..., 0], stored)


@pytest.mark.parametrize("shape", [(5, 7), (16, 9), (3, 3)])
def test_area_resize_is_the_mean_over_each_rectangle(shape):
    image = np.random.default_rng(0).random((12, 21))
    small = cbis_ddsm.area_resize(image, *shape)
    # On a grid that both sizes divide, an area average is a plain block mean.
    fine = np.kron(image, np.ones(shape)).reshape(shape[0], 12, shape[1], 21).mean((1, 3))
    np.testing.assert_allclose(small, fine)
