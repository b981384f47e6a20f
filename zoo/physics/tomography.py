"""Computed tomography in TensorFlow: line integrals along parallel or fan-shaped rays.

Each ray is a line u cos(phi) + v sin(phi) = s, u to the right (columns) and v downwards (rows), in
mm from the image's centre, and

    (A x)[k, j] = integral of x over ray j of view k,

with x in 1/mm, so that A x has no unit. Integrals follow Joseph (IEEE Trans. Med. Imaging 1, 1982),
with the weights of `zoo.physics.radon.joseph`. `zoo.physics.radon` turns HU into 1/mm and back.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from zoo.physics import radon
from zoo.physics.operators import Operator, SparseMatrix, batched, precision

# The filtered projections are interpolated to this many samples a detector.
_OVERSAMPLING = 8
# The symmetries of a square, (transpose, then upside down, then left to right), and the groups of
# them that rays are tried for: with more of them less of the matrix is kept.
_TURNED = [(False, False, False), (False, True, True)]
_GROUPS = [
    [(swap, v, u) for swap in (False, True) for v in (False, True) for u in (False, True)],
    [*_TURNED, (False, True, False), (False, False, True)],
    [*_TURNED, (True, False, False), (True, True, True)],
    _TURNED,
    _TURNED[:1],
]


class _Tomography(Operator):
    """Line integrals along given rays.

    Rays that a symmetry of the square turns into each other share one row of weights: it is applied
    to the images that the symmetry makes of the image, as columns beside each other.
    """

    def __init__(
        self,
        size: int,
        spacing_mm: float,
        angles: np.ndarray,
        detectors: int,
        detector_mm: float,
        dtype: str,
    ):
        positive = size >= 1 and detectors >= 1 and spacing_mm > 0 and detector_mm > 0
        if not positive or angles.ndim != 1 or not len(angles) or not np.isfinite(angles).all():
            raise ValueError(
                "size, spacing_mm, views, detectors, detector_mm: expected positive numbers, and "
                f"one or more angles. Received: {size}, {spacing_mm}, {angles.shape}, "
                f"{detectors}, {detector_mm}"
            )
        super().__init__((size, size), (len(angles), detectors), precision(dtype), True)
        self.size, self.spacing_mm = int(size), float(spacing_mm)
        self.angles, self.detectors = angles, int(detectors)
        self.detector_mm = float(detector_mm)
        phi, offset = self.rays()
        group, lines, cells = _shared(phi.ravel(), offset.ravel(), self.spacing_mm)
        self._group, self._rows = group, len(lines)
        self._cells = cells
        self._matrix = self._weights(lines)

    @property
    def views(self) -> int:
        """Number of views."""
        return len(self.angles)

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """phi in radians and s in mm of every ray, `[views, detectors]` each."""
        raise NotImplementedError

    def _positions(self, across, along):
        """Where a pixel is seen: its place on the detector in mm, and its weight in `fbp`.

        Args:
            across, along: the pixel's place in mm along the detector and along the middle ray.
        """
        raise NotImplementedError

    def _before_filter(self) -> tuple[np.ndarray, float]:
        """Weights `[views, detectors]` of the rays in `fbp`, and the pitch at the centre in mm."""
        raise NotImplementedError

    def _places(self) -> np.ndarray:
        """The detectors' places in mm, `[detectors]`."""
        return (np.arange(self.detectors) - (self.detectors - 1) / 2) * self.detector_mm

    def _weights(self, lines: np.ndarray) -> SparseMatrix:
        """Joseph's weights of lines (cos, sin, offset), `[n, 3]`."""
        parts = []
        steep = np.abs(lines[:, 0]) >= np.abs(lines[:, 1])
        # The others cross the columns more steeply: they are lines of the transposed image.
        for chosen, cos, sin, transposed in ((steep, 0, 1, False), (~steep, 1, 0, True)):
            of_kind = lines[chosen]
            pixel, weight, starts = radon.joseph(
                of_kind[:, 2],
                of_kind[:, cos, None],
                of_kind[:, sin, None],
                self.size,
                self.spacing_mm,
                np.float64,
            )
            if transposed:
                pixel = pixel % self.size * self.size + pixel // self.size
            parts.append((np.repeat(np.flatnonzero(chosen), np.diff(starts)), pixel, weight))
        row, column, weight = [np.concatenate(part) for part in zip(*parts, strict=True)]
        order = np.argsort(row, kind="stable")
        shape = (len(lines), self.size**2)
        return SparseMatrix(row[order], column[order], weight[order], shape, self.dtype)

    def _forward(self, images: tf.Tensor) -> tf.Tensor:
        count, n = len(self._group), self.size
        turned = tf.stack([_turned(images, element) for element in self._group])
        columns = tf.transpose(tf.reshape(turned, [-1, n * n]))
        # Column (g, b) of row r is the cell (r, g) of image b.
        cells = tf.reshape(self._matrix.times(columns), [self._rows * count, -1])
        rays = tf.gather(cells, self._cells)
        return tf.reshape(tf.transpose(rays), [-1, *self.range_shape])

    def _adjoint(self, measured: tf.Tensor) -> tf.Tensor:
        count, n = len(self._group), self.size
        rays = tf.transpose(tf.reshape(measured, [-1, self.views * self.detectors]))
        cells = tf.math.unsorted_segment_sum(rays, self._cells, self._rows * count)
        columns = self._matrix.transposed_times(tf.reshape(cells, [self._rows, -1]))
        turned = tf.reshape(tf.transpose(columns), [count, -1, n, n])
        back = [_turned_back(turned[g], element) for g, element in enumerate(self._group)]
        return tf.add_n(back)

    def pseudo_inverse(self, measured, filter: str = "ramp") -> tf.Tensor:
        """Filtered back-projection: `[..., views, detectors]` to attenuation in 1/mm.

        As `zoo.physics.radon.ParallelBeam.fbp`: the band-limited ramp or the ramp with a Hann
        window, and band-limited interpolation. A view counts for half the angles to its neighbours,
        a ray that is measured from both sides for half.

        Raises:
            ValueError: for an unknown filter, or another shape.
        """
        weights, pitch = self._before_filter()
        response, length = radon.ramp(self.detectors, pitch, filter)
        response = tf.constant(response * _OVERSAMPLING, self.dtype)

        def of_batch(measured):
            weighted = measured * tf.constant(weights, self.dtype)
            spectrum = tf.signal.rfft(weighted, [length])
            spectrum *= tf.cast(response, spectrum.dtype)
            rows = tf.signal.irfft(spectrum, [length * _OVERSAMPLING])
            return self._back_project(rows[..., : self.detectors * _OVERSAMPLING])

        measured = self.checked("measured", measured)
        return batched(measured, 2, of_batch, self.domain_shape)

    @tf.function(reduce_retracing=True)
    def _back_project(self, rows: tf.Tensor) -> tf.Tensor:
        """Filtered rows `[batch, views, samples]` to images."""
        samples = self.detectors * _OVERSAMPLING
        # Beyond the last detector nothing was measured: the sample after the last one is zero.
        tables = tf.transpose(tf.pad(rows, [[0, 0], [0, 0], [0, 1]]), [1, 2, 0])
        axis = (np.arange(self.size) - (self.size - 1) / 2) * self.spacing_mm
        u = tf.constant(np.tile(axis, self.size), self.dtype)
        v = tf.constant(np.repeat(axis, self.size), self.dtype)
        cos = tf.constant(np.cos(self.angles), self.dtype)
        sin = tf.constant(np.sin(self.angles), self.dtype)
        centre = (self.detectors - 1) / 2 * _OVERSAMPLING + 0.5

        def add(k, total):
            place, weight = self._positions(u * cos[k] + v * sin[k], v * cos[k] - u * sin[k])
            position = place * (_OVERSAMPLING / self.detector_mm) + centre
            inside = (position >= 0) & (position < samples)
            index = tf.where(inside, tf.cast(position, tf.int32), samples)
            return k + 1, total + tf.gather(tables[k], index) * weight[:, None]

        total = tf.zeros([self.size**2, tf.shape(rows)[0]], self.dtype)
        _, total = tf.while_loop(lambda k, _: k < self.views, add, (0, total))
        return tf.reshape(tf.transpose(total), [-1, self.size, self.size])


class ParallelBeam(_Tomography):
    """Parallel rays: detector s_j of the view at theta_k measures the line with phi = theta_k.

    Sparse views are few, limited angles an arc. The arguments in this order are those of
    `zoo.physics.radon.ParallelBeam`, which gives the same to rounding.

    Args:
        size: height and width of the image in pixels.
        spacing_mm: pixel pitch in mm.
        views: number of views over half a turn, theta_k = (k + 1/2) pi / views, or their angles in
            radians.
        detectors: number of detector elements; None covers the image's diagonal.
        detector_mm: detector pitch in mm; None takes the pixel pitch.
        dtype: "float32" or "float64".

    Images are `[..., size, size]` in 1/mm, measurements `[..., views, detectors]`.

    Raises:
        ValueError: for a geometry that is empty.
    """

    def __init__(
        self,
        size: int,
        spacing_mm: float,
        views: int | Sequence[float] | np.ndarray,
        detectors: int | None = None,
        detector_mm: float | None = None,
        dtype: str = "float32",
    ):
        if isinstance(views, int | np.integer):
            angles = (np.arange(max(views, 0)) + 0.5) * np.pi / max(views, 1)
        else:
            angles = np.asarray(views, np.float64)
        pitch = spacing_mm if detector_mm is None else detector_mm
        if detectors is None:
            detectors = radon.covering(size, spacing_mm, pitch) if pitch > 0 else 0
        super().__init__(size, spacing_mm, angles, detectors, pitch, dtype)

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        phi, offset = np.broadcast_arrays(self.angles[:, None], self._places())
        return phi, offset

    def _positions(self, across, along):
        return across, tf.ones_like(across)

    def _before_filter(self) -> tuple[np.ndarray, float]:
        return _angular_weights(self.angles, np.pi)[:, None], self.detector_mm


class FanBeam(_Tomography):
    """A point source and a flat detector opposite, which turn about the image's centre.

    At theta the source is at `source_mm` (sin theta, -cos theta) in (u, v), and the element at t_j,
    which runs along (cos theta, sin theta), measures the line with

        phi = theta - gamma,   s = source_mm sin(gamma),   tan(gamma) = t_j / source_to_detector_mm.

    Args:
        size: height and width of the image in pixels.
        spacing_mm: pixel pitch in mm.
        views: number of views over a whole turn, theta_k = (k + 1/2) 2 pi / views, or their angles
            in radians.
        detectors: number of detector elements.
        detector_mm: detector pitch in mm, on the detector.
        source_mm: distance from source to centre.
        source_to_detector_mm: distance from source to detector.
        dtype: "float32" or "float64".

    Images are `[..., size, size]` in 1/mm, measurements `[..., views, detectors]`.

    Raises:
        ValueError: for a geometry that is empty, or a source inside the image.
    """

    def __init__(
        self,
        size: int,
        spacing_mm: float,
        views: int | Sequence[float] | np.ndarray,
        detectors: int,
        detector_mm: float,
        source_mm: float,
        source_to_detector_mm: float,
        dtype: str = "float32",
    ):
        if not source_mm > size * spacing_mm / np.sqrt(2) or not source_to_detector_mm > 0:
            raise ValueError(
                "source_mm, source_to_detector_mm: expected a source outside the image. "
                f"Received: {source_mm}, {source_to_detector_mm}"
            )
        self.source_mm = float(source_mm)
        self.source_to_detector_mm = float(source_to_detector_mm)
        if isinstance(views, int | np.integer):
            angles = (np.arange(max(views, 0)) + 0.5) * 2 * np.pi / max(views, 1)
        else:
            angles = np.asarray(views, np.float64)
        super().__init__(size, spacing_mm, angles, detectors, detector_mm, dtype)

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        gamma = np.arctan(self._places() / self.source_to_detector_mm)
        phi = self.angles[:, None] - gamma
        return phi, np.broadcast_to(self.source_mm * np.sin(gamma), phi.shape)

    def _positions(self, across, along):
        distance = self.source_mm + along
        return across * self.source_to_detector_mm / distance, (self.source_mm / distance) ** 2

    def _before_filter(self) -> tuple[np.ndarray, float]:
        gamma = np.arctan(self._places() / self.source_to_detector_mm)
        arc = _angular_weights(self.angles, 2 * np.pi)[:, None]
        # The same line from the other side is a ray of the view at theta + pi - 2 gamma.
        opposite = self.angles[:, None] + np.pi - 2 * gamma
        twice = _covered(opposite, self.angles, 2 * np.pi)
        weights = arc * np.cos(gamma) / np.where(twice, 2, 1)
        return weights, self.detector_mm * self.source_mm / self.source_to_detector_mm


def _gaps(angles: np.ndarray, period: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order of angles on a circle, and the gaps before and after each in that order.

    A gap three times the median one is not between neighbours: there counts the median.
    """
    wrapped = angles % period
    order = np.argsort(wrapped, kind="stable")
    after = np.diff(wrapped[order], append=wrapped[order[0]] + period)
    usual = np.median(after) if len(angles) > 1 else period
    after = np.where(after > 3 * usual + 1e-9, usual, after)
    return order, np.roll(after, 1), after


def _angular_weights(angles: np.ndarray, period: float) -> np.ndarray:
    """Radians that each view stands for."""
    order, before, after = _gaps(angles, period)
    weights = np.empty(len(angles))
    weights[order] = (before + after) / 2
    return weights


def _covered(wanted: np.ndarray, angles: np.ndarray, period: float) -> np.ndarray:
    """Whether the angles `wanted` lie within the arcs that the views stand for."""
    order, before, after = _gaps(angles, period)
    wrapped = angles[order] % period
    right = np.searchsorted(wrapped, wanted % period)
    left, right = (right - 1) % len(angles), right % len(angles)
    from_left = (wanted - wrapped[left]) % period
    to_right = (wrapped[right] - wanted) % period
    return (from_left <= after[left] / 2 + 1e-9) | (to_right <= before[right] / 2 + 1e-9)


def _turned(images: tf.Tensor, element: tuple[bool, bool, bool]) -> tf.Tensor:
    """`[B, n, n]` after a symmetry of the square."""
    swap, v, u = element
    images = tf.transpose(images, [0, 2, 1]) if swap else images
    axes = [axis for axis, flipped in ((1, v), (2, u)) if flipped]
    return tf.reverse(images, axes) if axes else images


def _turned_back(images: tf.Tensor, element: tuple[bool, bool, bool]) -> tf.Tensor:
    """The inverse of `_turned`."""
    swap, v, u = element
    images = _turned(images, (False, v, u))
    return tf.transpose(images, [0, 2, 1]) if swap else images


def _turned_lines(lines: np.ndarray, element: tuple[bool, bool, bool]) -> np.ndarray:
    """What `_turned` makes of lines (cos, sin, offset): `[n, 3]`, cos >= 0."""
    swap, v, u = element
    cos, sin, offset = (lines[:, [1, 0, 2]] if swap else lines).T
    cos, sin = cos * (1 - 2 * u), sin * (1 - 2 * v)
    sign = np.where((cos < -1e-12) | ((cos < 1e-12) & (sin < 0)), -1.0, 1.0)
    return np.stack([cos * sign, sin * sign, offset * sign], -1)


def _shared(
    phi: np.ndarray, offset: np.ndarray, spacing_mm: float
) -> tuple[list[tuple[bool, bool, bool]], np.ndarray, np.ndarray]:
    """Rays as few lines and the symmetries that turn them into those.

    Returns:
        The symmetries of the group that serves best; lines (cos, sin, offset), `[rows, 3]`; and
        for each ray the number of its line times the number of symmetries, plus that of its own.
    """
    rays = np.stack([np.cos(phi), np.sin(phi), offset], -1)
    best = None
    for group in _GROUPS:
        turned = np.stack([_turned_lines(rays, element) for element in group])
        # Equal to a billionth of a radian and a millionth of a pixel is equal.
        angle = np.rint(np.arctan2(turned[..., 1], turned[..., 0]) * 1e9)
        place = np.rint(turned[..., 2] / spacing_mm * 1e6)
        _, ranks = np.unique(angle + 1j * place, return_inverse=True)
        ranks = ranks.reshape(angle.shape)
        chosen = ranks.argmin(0)
        _, first, row = np.unique(ranks.min(0), return_index=True, return_inverse=True)
        # What an entry costs in memory and time, and what each column beside it adds.
        cost = len(first) * (8 + len(group))
        if best is None or cost < best[0]:
            best = cost, group, turned[chosen[first], first], row * len(group) + chosen
        if len(first) * len(group) <= 1.05 * len(rays):
            break  # no smaller group does better
    assert best is not None
    return best[1:]
