"""zoo_datasets.chest_xray: the projection, what the radiographs look like, the builder."""

import numpy as np
import pytest

from source_harness import check_repeatable, check_simulated
from zoo.domain import Domain
from zoo.physics import radon
from zoo_datasets.chest_xray import phantom
from zoo_datasets.chest_xray.chest_xray_dataset_builder import Builder

TINY = phantom.Protocol(size=64, voxels=64, slices=48)


@pytest.fixture(scope="module")
def images():
    return [image for number in range(4) for image in phantom.patient(TINY, 0, number)]


@pytest.mark.parametrize("angle", [0.0, 0.07])
def test_line_integrals_are_lengths_times_attenuation(angle):
    hu = np.full((48, 64, 64), -1000.0, np.float32)
    hu[:, 20:40] = 0.0  # 20 rows of water from side to side
    thickness = 20 * phantom.FIELD / 64 / np.cos(angle)
    flat = phantom.line_integrals(TINY, hu, angle)
    assert flat.shape == (64, 64)
    np.testing.assert_allclose(flat, radon.MU_WATER * thickness, rtol=1e-3)


def test_a_turned_patient_moves_by_depth():
    """A rod in front and one at the back part when the rays turn."""
    hu = np.full((48, 64, 64), -1000.0, np.float32)
    hu[:, 10, 32] = hu[:, 50, 32] = 0.0
    angle = np.arctan(10 / 40)  # ten columns of shift between the two rows
    flat = phantom.line_integrals(TINY, hu, angle)[30]
    peaks = np.sort(np.argsort(flat)[-4:])
    assert peaks[-1] - peaks[0] in (10, 11)
    assert flat.sum() * np.cos(angle) == pytest.approx(
        phantom.line_integrals(TINY, hu, 0.0)[30].sum(), rel=1e-3
    )


def test_vessels_keep_their_volume():
    chest = phantom.Chest(np.random.default_rng(0), 64, phantom.FIELD / 64)
    chest.vessels = [np.array([[20.0, 0, 20, 60, 0, 60, 2.0], [60, 0, 60, 60, 0, 100, 1.0]])]
    lung = np.full((48, 64, 64), -860.0, np.float32)
    flat = phantom._vessels(TINY, chest, lung, 0.0)
    volume = np.pi * (4 * np.hypot(40, 40) + 1 * 40)
    expected = volume * 0.9 * radon.MU_WATER  # blood of 40 HU in place of lung
    assert flat.sum() * TINY.spacing**2 == pytest.approx(expected, rel=1e-3)
    assert phantom._vessels(TINY, chest, lung * 0, 0.0).max() == 0  # none outside the lungs


def test_they_look_like_radiographs(images):
    for image in images:
        assert image.shape == (64, 64) and image.dtype == np.uint16
        assert image.max() <= phantom.MAXIMUM and len(np.unique(image)) > 1000
        row = image[28].astype(float)  # through the heart
        spine, lungs = row[30:34].mean(), min(row[14:26].min(), row[38:50].min())
        assert spine > 1.5 * lungs > 0
        assert image[55, 20:44].mean() > 1.3 * image[20:35, 16:24].mean()  # liver, lung
        assert image[:3, :6].max() < 0.1 * phantom.MAXIMUM  # air above a shoulder


def test_the_heart_is_on_the_right_of_the_picture(images):
    sides = [im[24:36, 36:44].mean() - im[24:36, 20:28].mean() for im in map(np.float64, images)]
    assert np.mean(np.array(sides) > 0) > 0.8


def test_patient_follows_from_seed_and_number(images):
    check_repeatable(
        lambda seed, number: phantom.patient(TINY, seed, number),
        lambda one, other: (one[0] != other[0]).mean(),
        0.3,
    )
    assert (images[2] != images[3]).mean() > 0.3  # two exposures of one patient


def test_builder(tmp_path):
    builder = Builder(config="phantom_tiny", data_dir=tmp_path)
    image = ((64, 64, 1), np.uint16)
    splits = check_simulated(builder, (6, 2, 2), {"image": image}, each=2)
    domain = Domain.from_dict(builder.info.metadata["image"])
    assert domain.modality == "DX" and domain.spacing == (5.6, 5.6)
    example = splits["test"][0]
    number, i = map(int, example["name"][1:].split("-"))
    again = phantom.patient(builder.builder_config.protocol, 1, number)[i]
    np.testing.assert_array_equal(example["image"][..., 0], again)
