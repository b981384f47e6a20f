"""Magnetic resonance imaging in TensorFlow: Cartesian and any other trajectory, one coil or many.

An image x of H x W pixels at the pitch d mm is measured at places k = (k_v, k_u) in 1/mm of its
Fourier transform,

    (A x)[c, m] = (H W)^(-1/2) sum over r, q of S_c[r, q] x[r, q]
                  exp(-2 pi i d (k_v[m] (r - H // 2) + k_u[m] (q - W // 2))),

S_c the sensitivity of coil c, without coils S = 1: the convention of `zoo.physics.fourier`.
Images and measurements are complex.
"""

import numpy as np
import scipy.sparse
import tensorflow as tf

from zoo.physics import fourier
from zoo.physics.operators import Operator, SparseMatrix, batched, precision

_COMPLEX = {"float32": "complex64", "float64": "complex128"}
# Gridding: each sample is a sum over this many points along each axis of a grid twice as fine.
_WIDTH, _FINER = 6, 2
# Of a Kaiser-Bessel kernel of that width (Beatty et al., IEEE Trans. Med. Imaging 24, 2005).
_SHAPE = np.pi * np.sqrt((_WIDTH / _FINER * (_FINER - 0.5)) ** 2 - 0.8)


class _MRI(Operator):
    """What the coils see, measured: a subclass measures images without coils.

    Args:
        size: (H, W) of the image.
        samples: shape of what one coil measures.
        maps: complex `[coils, H, W]`, or None for one coil with the same sensitivity everywhere.
        dtype: "float32" or "float64", of real and imaginary part.
    """

    def __init__(
        self, size: tuple[int, int], samples: tuple[int, ...], maps: np.ndarray | None, dtype: str
    ):
        kind = _COMPLEX[precision(dtype)]
        coils: tuple[int, ...] = ()
        self.maps: np.ndarray | None = None
        if maps is not None:
            self.maps = np.asarray(maps, kind)
            if self.maps.ndim != 3 or self.maps.shape[1:] != size or not len(self.maps):
                raise ValueError(
                    f"maps: expected shape (coils, {size[0]}, {size[1]}). "
                    f"Received: {self.maps.shape}"
                )
            coils = self.maps.shape[:1]
        super().__init__(size, (*coils, *samples), kind)
        self._samples = samples

    def _measure(self, images: tf.Tensor) -> tf.Tensor:
        """Images `[N, H, W]` to `[N, *samples]`."""
        raise NotImplementedError

    def _measured_back(self, measured: tf.Tensor) -> tf.Tensor:
        """The adjoint of `_measure`."""
        raise NotImplementedError

    def _compensated(self, measured: tf.Tensor) -> tf.Tensor:
        """`[N, *samples]`, weighted so that the adjoint comes near the inverse."""
        return measured

    def _forward(self, images: tf.Tensor) -> tf.Tensor:
        if self.maps is None:
            return self._measure(images)
        seen = tf.reshape(images[:, None] * self.maps, [-1, *self.domain_shape])
        return tf.reshape(self._measure(seen), [-1, *self.range_shape])

    def _adjoint(self, measured: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(measured, [-1, *self._samples])
        images = self._measured_back(flat)
        if self.maps is None:
            return images
        seen = tf.reshape(images, [-1, *self.maps.shape])
        return tf.reduce_sum(seen * self.maps.conj(), axis=1)

    def pseudo_inverse(self, measured) -> tf.Tensor:
        """Zero filling: what is not measured is zero, and samples count by the area they stand for.

        Coils are put together by their sensitivities, sum of conj(S_c) x_c over sum of |S_c|^2, and
        where there is none the image is zero.

        Raises:
            ValueError: for another shape.
        """

        def of_batch(measured):
            flat = tf.reshape(measured, [-1, *self._samples])
            return self._adjoint(self._compensated(flat))

        images = batched(
            self.checked("measured", measured), len(self.range_shape), of_batch, self.domain_shape
        )
        if self.maps is None:
            return images
        total = np.sum(np.abs(self.maps) ** 2, 0)
        share = np.where(total > 1e-6 * total.max(), 1 / np.maximum(total, 1e-30), 0)
        return images * share.astype(self.maps.dtype)


class CartesianMRI(_MRI):
    """Points of the grid of k-space, as `zoo.physics.fourier.Cartesian` measures whole lines.

    Args:
        mask: bool `[H]`, True for the lines (rows) measured, with `width` W; or bool `[H, W]`. The
            zero frequency is at (H // 2, W // 2).
        width: W, where the mask is `[H]`; None is H.
        maps: complex `[coils, H, W]`; None is one coil.
        dtype: "float32" or "float64", of real and imaginary part.

    Images are `[..., H, W]`, measurements `[..., H, W]` or `[..., coils, H, W]`, zero where not
    measured. The norm is 1 without coils.

    Raises:
        ValueError: for a mask that is empty, or maps of another size.
    """

    def __init__(
        self,
        mask: np.ndarray,
        width: int | None = None,
        maps: np.ndarray | None = None,
        dtype: str = "float32",
    ):
        mask = np.asarray(mask, bool)
        if mask.ndim == 1:
            mask = np.repeat(mask[:, None], width or len(mask), 1)
        if mask.ndim != 2 or not mask.any() or (width and mask.shape[1] != width):
            raise ValueError(
                f"mask: expected bool (H,) or (H, W), W as `width` says, with at least one True. "
                f"Received: shape {mask.shape}, {int(mask.sum())} True, width {width}"
            )
        super().__init__(mask.shape, mask.shape, maps, dtype)
        self.mask = mask

    def _measure(self, images: tf.Tensor) -> tf.Tensor:
        return fourier.to_kspace(images) * self.mask.astype(self.dtype.as_numpy_dtype)

    def _measured_back(self, measured: tf.Tensor) -> tf.Tensor:
        return fourier.from_kspace(measured * self.mask.astype(self.dtype.as_numpy_dtype))


class NonCartesianMRI(_MRI):
    """Any trajectory, by a non-uniform fast Fourier transform.

    The image is divided by the transform of a Kaiser-Bessel kernel of 6 points, padded to twice its
    size and transformed, and each sample is a weighted sum of the 6 x 6 points around it (Jackson
    et al., IEEE Trans. Med. Imaging 10, 1991; Beatty et al. 2005): right to about 1e-5 of the norm.

    Args:
        size: (H, W) of the image.
        spacing_mm: pixel pitch d.
        trajectory: places (k_v, k_u) in 1/mm, `[..., 2]`; the grid of k-space ends at 1 / (2 d).
        maps: complex `[coils, H, W]`; None is one coil.
        dtype: "float32" or "float64", of real and imaginary part.

    Images are `[..., H, W]`; measurements have the trajectory's shape without its last dimension,
    after the coils where there are any.

    Raises:
        ValueError: for places beyond 1 / (2 d), or maps of another size.
    """

    def __init__(
        self,
        size: tuple[int, int],
        spacing_mm: float,
        trajectory: np.ndarray,
        maps: np.ndarray | None = None,
        dtype: str = "float32",
    ):
        trajectory = np.asarray(trajectory, np.float64)
        if trajectory.ndim < 2 or trajectory.shape[-1] != 2 or not trajectory.size:
            raise ValueError(f"trajectory: expected shape (..., 2). Received: {trajectory.shape}")
        turns = trajectory.reshape(-1, 2) * spacing_mm  # a pixel
        if not np.abs(turns).max() <= 0.5 + 1e-9:
            raise ValueError(
                f"trajectory: expected places up to {0.5 / spacing_mm:g} 1/mm. "
                f"Received: up to {np.abs(trajectory).max():g}"
            )
        height, width = map(int, size)
        super().__init__((height, width), trajectory.shape[:-1], maps, dtype)
        self.trajectory, self.spacing_mm = trajectory, float(spacing_mm)
        self._matrix_of_places = _gridding(turns, (height, width))
        rows = np.repeat(np.arange(len(turns)), _WIDTH**2)
        kept = self._matrix_of_places
        self._matrix = SparseMatrix(
            rows, kept.indices, kept.data, kept.shape, self.dtype.real_dtype
        )
        # The kernel's transform along each axis, and the scale of a unitary transform.
        by_row, by_column = (_transform_of_kernel(n) for n in (height, width))
        scale = np.sqrt(height * width)
        self._divided = (1 / (scale * by_row[:, None] * by_column)).astype(
            self.dtype.as_numpy_dtype
        )
        self._weights: np.ndarray | None = None

    def _padding(self) -> list[list[int]]:
        """Pixel n // 2 of an axis goes to the middle n of the finer grid of 2 n."""
        return [[0, 0], *([n - n // 2, n - (n - n // 2)] for n in self.domain_shape)]

    def _measure(self, images: tf.Tensor) -> tf.Tensor:
        fine = tf.pad(images * self._divided, self._padding())
        spectrum = tf.signal.fft2d(tf.signal.ifftshift(fine, axes=(-2, -1)))
        columns = tf.transpose(tf.reshape(spectrum, [-1, 4 * self._divided.size]))
        # Real and imaginary parts are columns beside each other.
        both = tf.concat([tf.math.real(columns), tf.math.imag(columns)], -1)
        real, imaginary = tf.split(self._matrix.times(both), 2, -1)
        return tf.reshape(tf.transpose(tf.complex(real, imaginary)), [-1, *self._samples])

    def _measured_back(self, measured: tf.Tensor) -> tf.Tensor:
        height, width = self.domain_shape
        columns = tf.transpose(tf.reshape(measured, [-1, np.prod(self._samples)]))
        both = tf.concat([tf.math.real(columns), tf.math.imag(columns)], -1)
        real, imaginary = tf.split(self._matrix.transposed_times(both), 2, -1)
        spectrum = tf.transpose(tf.complex(real, imaginary))
        spectrum = tf.reshape(spectrum, [-1, 2 * height, 2 * width])
        fine = tf.signal.fftshift(tf.signal.ifft2d(spectrum), axes=(-2, -1))
        _, rows, columns = self._padding()
        images = fine[:, rows[0] : rows[0] + height, columns[0] : columns[0] + width]
        return images * (self._divided * (4 * height * width))

    def _compensated(self, measured: tf.Tensor) -> tf.Tensor:
        return measured * self.density().astype(self.dtype.as_numpy_dtype)

    def density(self) -> np.ndarray:
        """The weight of each sample in zero filling, of the samples' shape.

        Gridded by the kernel and read again, the weights give one everywhere (Pipe and Menon, Magn.
        Reson. Med. 41, 1999); a broad blob in the middle keeps its height.
        """
        if self._weights is None:
            kernel = self._matrix_of_places
            weights = np.ones(kernel.shape[0])
            for _ in range(20):
                weights /= kernel @ (kernel.T @ weights)
            weights = weights.reshape(self._samples)
            # A Gaussian of a tenth of the field, seen without coils.
            r, q = (np.arange(n) - n // 2 for n in self.domain_shape)
            h, w = self.domain_shape
            blob = np.exp(-0.5 * ((r[:, None] / (0.1 * h)) ** 2 + (q / (0.1 * w)) ** 2))
            with tf.init_scope():  # values, also where a graph is being made
                seen = self._measure(tf.constant(blob[None], self.dtype)).numpy()
                found = self._measured_back(tf.constant(seen * weights, self.dtype)).numpy()
            found = found[0].real
            self._weights = weights * ((blob**2).sum() / (blob * found).sum())
        return self._weights


def radial(spokes: int, samples: int, spacing_mm: float, golden: bool = False) -> np.ndarray:
    """Places of radial sampling in 1/mm, `[spokes, samples, 2]`.

    Args:
        spokes: lines through the middle, at even angles over half a turn.
        samples: of each, from -1 / (2 d) on in even steps; number `samples // 2` is the middle.
        spacing_mm: pixel pitch d.
        golden: at steps of 111.25 degrees instead, so that any run of spokes is spread evenly.
    """
    step = np.pi * (np.sqrt(5) - 1) / 2 if golden else np.pi / spokes
    angles = np.arange(spokes) * step
    k = (np.arange(samples) - samples // 2) / (samples * spacing_mm)
    return np.stack([np.sin(angles)[:, None] * k, np.cos(angles)[:, None] * k], -1)


def _kernel(distance: np.ndarray) -> np.ndarray:
    """The Kaiser-Bessel window at a distance in points of the finer grid."""
    inside = np.maximum(1 - (2 * distance / _WIDTH) ** 2, 0)
    return np.i0(_SHAPE * np.sqrt(inside)) / np.i0(_SHAPE)


def _transform_of_kernel(n: int) -> np.ndarray:
    """The kernel's Fourier transform at the pixels of an axis, `[n]`."""
    place = (np.arange(n) - n // 2) / (_FINER * n)
    root = np.sqrt(_SHAPE**2 - (np.pi * _WIDTH * place) ** 2)
    return _WIDTH * np.sinh(root) / (root * np.i0(_SHAPE))


def _gridding(turns: np.ndarray, size: tuple[int, int]) -> scipy.sparse.csr_matrix:
    """The kernel's weights `[samples, points of the finer grid]`, zero frequency at point 0."""
    points, weights = [], []
    for axis, n in enumerate(size):
        place = turns[:, axis, None] * (_FINER * n)
        first = np.ceil(place - _WIDTH / 2)
        point = first + np.arange(_WIDTH)
        weights.append(_kernel(place - point))
        points.append(point.astype(np.int64) % (_FINER * n))
    columns = points[0][:, :, None] * (_FINER * size[1]) + points[1][:, None]
    values = weights[0][:, :, None] * weights[1][:, None]
    starts = np.arange(len(turns) + 1) * _WIDTH**2
    shape = (len(turns), _FINER**2 * size[0] * size[1])
    return scipy.sparse.csr_matrix((values.ravel(), columns.ravel(), starts), shape=shape)
