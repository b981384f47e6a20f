"""Bicubic enlargement by convolutions, for engines that know no other."""

import numpy as np
import pytest
import tensorflow as tf

from zoo import bicubic


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_convolutions_enlarge_as_the_operation_does(factor):
    """Edges too, and images of fewer pixels than the kernel."""
    draw = np.random.default_rng(0)
    for shape in ((2, 9, 7, 1), (1, 1, 2, 3), (1, 4, 3, 2)):
        images = draw.uniform(-1000, 1500, shape).astype("float32")
        expected = bicubic.enlarge(tf.constant(images), factor)
        with bicubic.by_convolutions():
            found = bicubic.enlarge(tf.constant(images), factor)
        assert np.abs(found - expected).max() < 1e-6 * 2500
        again = bicubic.enlarge(tf.constant(images), factor)
        np.testing.assert_array_equal(again, expected)
