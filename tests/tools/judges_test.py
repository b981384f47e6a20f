"""tools/judges: the measures that are its own."""

import numpy as np
import pydicom
import pydicom.data
import pytest

from tools import scans
from tools.judges import low_dose, unpaired


def test_noise_power_of_white_noise_is_its_variance():
    image = 7 * np.random.default_rng(0).standard_normal((256, 256))
    spectrum = low_dose.noise_power(image, low_dose.flat_places(image))
    assert spectrum.shape == (15,)
    # The fitted planes take some of the lowest frequencies with them.
    np.testing.assert_allclose(spectrum[3:], 49, rtol=0.3)
    assert low_dose.decades(spectrum, 10 * spectrum) == pytest.approx(1)


def test_edges_correlate_where_they_are():
    image = np.zeros((64, 64))
    image[20:40, 24:50] = 300.0
    correlation = unpaired.edge_correlation
    assert correlation(image, 0.5 * image - 40) == pytest.approx(1)
    assert correlation(image, np.roll(image, 4, 1)) < 0.8


def test_noise_of_the_level_asked_for():
    head = pydicom.dcmread(pydicom.data.get_testdata_file("J2K_pixelrep_mismatch.dcm"))
    image = np.clip(head.pixel_array[128:384, 128:384], -1024, 3071).astype("float32")
    scan = scans.Slice(
        name="head",
        patient="somebody",
        region="head",
        contrast="none",
        image=image,
        spacing=(0.43, 0.43),
        source="pydicom",
    )
    source = low_dose.noisy(scan, 30, 0.25, "hann")
    body = scan.image > -500
    assert (source - scan.image)[body].std() == pytest.approx(30, rel=0.03)
    np.testing.assert_array_equal(source, low_dose.noisy(scan, 30, 0.25, "hann"))
