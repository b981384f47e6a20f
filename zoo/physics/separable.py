"""Blur and lower resolution in TensorFlow, as operators: rows and columns one after the other.

    A x = L x R^T,   A* y = L^T y R,

with a matrix L for the rows and R for the columns.
"""

import numpy as np
import scipy.ndimage
import tensorflow as tf

from zoo.physics import resolution
from zoo.physics.operators import Operator, precision


class Separable(Operator):
    """L x R^T of images `[..., H, W]`.

    Args:
        left: L, real `[h, H]`.
        right: R, real `[w, W]`.
        dtype: "float32" or "float64".

    Raises:
        ValueError: where one is not a matrix.
    """

    def __init__(self, left: np.ndarray, right: np.ndarray, dtype: str = "float32"):
        left, right = np.asarray(left), np.asarray(right)
        if left.ndim != 2 or right.ndim != 2:
            raise ValueError(
                f"left, right: expected two matrices. Received: {left.shape}, {right.shape}"
            )
        result, own = zip(left.shape, right.shape, strict=True)
        super().__init__(own, result, precision(dtype))
        kind = self.dtype.as_numpy_dtype
        self._left, self._right = left.astype(kind), right.astype(kind)
        self._inverses = [np.linalg.pinv(m.astype(np.float64), 1e-3) for m in (left, right)]

    def _forward(self, images: tf.Tensor) -> tf.Tensor:
        return self._left @ images @ self._right.T

    def _adjoint(self, measured: tf.Tensor) -> tf.Tensor:
        return self._left.T @ measured @ self._right

    def pseudo_inverse(self, measured) -> tf.Tensor:
        """The image of least norm of those that fit best; singular values below 0.1 % count as 0.

        Raises:
            ValueError: for another shape.
        """
        left, right = (m.astype(self.dtype.as_numpy_dtype) for m in self._inverses)
        return left @ self.checked("measured", measured) @ right.T


def gaussian_blur(
    size: tuple[int, int], spacing_mm: float, fwhm_mm: float, dtype: str = "float32"
) -> Separable:
    """Blur by a Gaussian of this full width at half maximum; the image goes on as its mirror."""
    sigma = fwhm_mm / spacing_mm / np.sqrt(8 * np.log(2))
    left, right = (scipy.ndimage.gaussian_filter1d(np.eye(n), sigma, axis=0) for n in size)
    return Separable(left, right, dtype)


def block_mean(size: tuple[int, int], scale: int, dtype: str = "float32") -> Separable:
    """Pixels `scale` times as wide, as `zoo.physics.resolution.block_mean` makes them.

    Raises:
        ValueError: for a scale below 1, or sizes that are no multiples of it.
    """
    left, right = (resolution.block_mean(np.eye(n), scale, axes=[0]) for n in size)
    return Separable(left, right, dtype)
