"""zoo.imaging.dicom.encoding: stored integers and the values they stand for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.imaging.dicom.encoding import Encoding


@given(
    bits=st.integers(1, 16),
    signed=st.booleans(),
    slope=st.floats(1e-4, 1e4) | st.floats(-1e4, -1e-4),
    offset=st.integers(-100_000, 100_000),
    position=st.lists(st.floats(0, 1), min_size=1, max_size=20),
)
def test_stored_values_survive_decode_and_encode(bits, signed, slope, offset, position):
    encoding = Encoding(slope=slope, intercept=offset * slope, bits=bits, signed=signed)
    low, high = encoding.limits
    stored = np.array([round(low + p * (high - low)) for p in position])
    np.testing.assert_array_equal(encoding.encode(encoding.decode(stored)), stored)
    beyond = np.array([-1e12, 1e12]) * np.sign(slope)
    assert encoding.encode(beyond).tolist() == [low, high]


@given(
    bits=st.integers(8, 16),
    signed=st.booleans(),
    rescaled=st.booleans(),
    slope=st.sampled_from([1.0, 0.1, 2.5, 0.00390625, -1.0]),
    intercept=st.sampled_from([0.0, -1024.0, 7.3]),
    first=st.floats(-60_000, 60_000),
    width=st.floats(0, 65_000),
)
def test_fitted_encodings_hold_the_range_at_half_a_step(
    bits, signed, rescaled, slope, intercept, first, width
):
    if not rescaled:
        slope, intercept = 1.0, 0.0
    encoding = Encoding(
        slope=slope, intercept=intercept, bits=bits, signed=signed, rescaled=rescaled
    )
    low, high = sorted((first * slope, (first + width) * slope))
    fitted = encoding.fit(low, high)
    values = np.linspace(low, high, 97)
    error = np.abs(np.float64(fitted.slope) * fitted.encode(values) + fitted.intercept - values)
    assert error.max() <= abs(slope) * (0.5 + 1e-6)
    assert fitted.slope == slope
    assert encoding.fits(low, high) == (fitted == encoding)
    # old steps stay on the new grid, to what a decimal string of 16 characters holds
    shift = (fitted.intercept - intercept) / slope
    assert shift == pytest.approx(round(shift), abs=1e-6)


@given(st.floats(-1e6, 1e6), st.floats(70_000, 1e9), st.sampled_from([1.0, -1.0]))
def test_a_range_beyond_65536_steps_takes_coarser_steps_and_does_not_saturate(low, width, slope):
    encoding = Encoding(slope=slope, bits=12, rescaled=True).fit(low, low + width)
    values = np.linspace(low, low + width, 101)
    error = np.abs(encoding.slope * encoding.encode(values) + encoding.intercept - values)
    assert error.max() <= abs(encoding.slope) * 0.51
    assert abs(encoding.slope) < width / 65_000


@given(st.floats(-50, 50), st.floats(0, 1e5), st.sampled_from([1e-3, 1.0, -1.0]))
def test_pet_has_no_intercept(low, width, slope):
    encoding = Encoding(slope=slope, bits=12, rescaled=True).around_zero(low, low + width)
    values = np.linspace(low, low + width, 101)
    error = np.abs(encoding.slope * encoding.encode(values) - values)
    assert encoding.intercept == 0
    assert error.max() <= abs(encoding.slope) * 0.51
