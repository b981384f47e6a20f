"""Linear operators of measurement in TensorFlow: what all of them can do.

An operator A takes images `[..., *domain_shape]` to measurements `[..., *range_shape]`; leading
dimensions are a batch. `forward` and `adjoint` are each the registered gradient of the other,

    <A x, y> = <x, A* y>,    d/dx f(A x) = A* f'(A x),    d/dy g(A* y) = A g'(A* y),

so derivatives of any order pass through, and a network that holds both can be trained. All is made
of TensorFlow's own operations and constants: it runs where TensorFlow runs, and can be exported in
a SavedModel.
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

PRECISIONS = ("float32", "float64")
# TensorFlow's product with 32 columns takes twenty times that with 24 on a CPU.
_COLUMNS = 24


class Operator:
    """A linear operator; a subclass defines `_forward` and `_adjoint` of a batch, and an inverse.

    Args:
        domain_shape: of one image.
        range_shape: of one measurement.
        dtype: of both: float32, float64, or for MRI complex64, complex128.
        nonnegative: whether images are so by nature, as attenuation is.
    """

    def __init__(
        self,
        domain_shape: tuple[int, ...],
        range_shape: tuple[int, ...],
        dtype: str,
        nonnegative: bool = False,
    ):
        self.domain_shape, self.range_shape = tuple(domain_shape), tuple(range_shape)
        self.dtype = tf.as_dtype(dtype)
        self.nonnegative = nonnegative
        self._norm: float | None = None
        self._graphs: dict[Callable, Callable] = {}

    def forward(self, image) -> tf.Tensor:
        """A x: `[..., *domain_shape]` to `[..., *range_shape]`.

        Raises:
            ValueError: for another shape.
        """
        return self._linear("image", image, self._forward, self.adjoint)

    def adjoint(self, measured) -> tf.Tensor:
        """A* y: `[..., *range_shape]` to `[..., *domain_shape]`, the (conjugate) transpose.

        Raises:
            ValueError: for another shape.
        """
        return self._linear("measured", measured, self._adjoint, self.forward)

    def pseudo_inverse(self, measured) -> tf.Tensor:
        """A quick image of `[..., *range_shape]`: filtered back-projection, or zero filling.

        Raises:
            ValueError: for another shape.
        """
        raise NotImplementedError

    def norm(self) -> float:
        """The largest singular value, by the power method on A* A; within 1 %, from below."""
        if self._norm is None:
            rng = np.random.default_rng(0)
            x = rng.uniform(0.5, 1.5, self.domain_shape)
            if self.dtype.is_complex:
                x = x * np.exp(2j * np.pi * rng.uniform(size=self.domain_shape))
            step = tf.function(lambda x: self.adjoint(self.forward(x)))
            found = 0.0
            for _ in range(200):
                x = step(tf.constant(x / np.linalg.norm(x), self.dtype)).numpy()
                before, found = found, float(np.linalg.norm(x))
                if found == 0 or abs(found - before) < 1e-5 * found:
                    break
            self._norm = float(np.sqrt(found))
        return self._norm

    def graph(self, function: Callable) -> Callable:
        """`function(operator, …)` without its first argument, as a graph that is made once.

        Args:
            function: one of a module, of tensors and structures of them.
        """
        if function not in self._graphs:
            of_this = functools.partial(function, self)
            self._graphs[function] = tf.function(of_this, reduce_retracing=True)
        return self._graphs[function]

    def checked(self, name: str, values) -> tf.Tensor:
        """An "image" or something "measured" as a tensor of the operator's type.

        Raises:
            ValueError: for another shape.
        """
        shape = self.domain_shape if name == "image" else self.range_shape
        values = tf.convert_to_tensor(values)
        received = values.shape
        if received.rank is None or not received[-len(shape) :].is_compatible_with(shape):
            expected = ", ".join(map(str, shape))
            raise ValueError(f"{name}: expected shape (..., {expected}). Received: {received}")
        return tf.cast(values, self.dtype)

    def _forward(self, images: tf.Tensor) -> tf.Tensor:
        """`[batch, *domain_shape]` to `[batch, *range_shape]`."""
        raise NotImplementedError

    def _adjoint(self, measured: tf.Tensor) -> tf.Tensor:
        """`[batch, *range_shape]` to `[batch, *domain_shape]`."""
        raise NotImplementedError

    def _linear(self, name: str, values, of_batch: Callable, gradient: Callable) -> tf.Tensor:
        """`of_batch` for any leading dimensions, with `gradient` as its derivative's transpose."""

        @tf.custom_gradient
        def apply(values):
            return batched(values, len(own), of_batch, other), gradient

        shapes = self.domain_shape, self.range_shape
        own, other = shapes if name == "image" else shapes[::-1]
        return apply(self.checked(name, values))


def batched(values: tf.Tensor, rank: int, of_batch: Callable, shape: tuple[int, ...]) -> tf.Tensor:
    """`of_batch`, which takes one leading dimension, for any number of them.

    Args:
        values: `[..., *own]`, where `own` are the last `rank` dimensions.
        rank: of one item.
        of_batch: `[batch, *own]` to `[batch, *shape]`.
        shape: of one item of the result.
    """
    leading = tf.shape(values)[:-rank]
    flat = tf.reshape(values, [-1, *values.shape[-rank:]])
    result = tf.reshape(of_batch(flat), tf.concat([leading, shape], 0))
    result.set_shape(values.shape[:-rank] + shape)
    return result


class SparseMatrix:
    """A real sparse matrix `[m, n]` and its transpose, applied to columns.

    It is kept as a constant of 20 bytes an entry (24 in float64), in memory and in a SavedModel.

    Args:
        rows, columns: places of the entries, ordered by rows.
        values: the entries.
        shape: (m, n).
        dtype: float32 or float64.
    """

    def __init__(self, rows, columns, values, shape: tuple[int, int], dtype: tf.DType):
        places = np.stack([rows, columns], -1).astype(np.int64)
        with tf.init_scope():  # a constant of no one graph
            values = tf.constant(values, dtype)
            self.entries = tf.SparseTensor(tf.constant(places), values, shape)

    def times(self, columns: tf.Tensor) -> tf.Tensor:
        """M X: `[n, k]` to `[m, k]`."""
        return _in_parts(columns, lambda part: tf.sparse.sparse_dense_matmul(self.entries, part))

    def transposed_times(self, columns: tf.Tensor) -> tf.Tensor:
        """M^T Y: `[m, k]` to `[n, k]`."""
        return _in_parts(
            columns,
            lambda part: tf.sparse.sparse_dense_matmul(self.entries, part, adjoint_a=True),
        )


def _in_parts(columns: tf.Tensor, product: Callable) -> tf.Tensor:
    """`product` of a few columns at a time."""

    def of_parts():
        parts = -(-count // _COLUMNS)
        padded = tf.pad(columns, [[0, 0], [0, parts * _COLUMNS - count]])
        stacked = tf.reshape(padded, [-1, parts, _COLUMNS])
        found = tf.map_fn(product, tf.transpose(stacked, [1, 0, 2]))
        flat = tf.reshape(tf.transpose(found, [1, 0, 2]), [-1, parts * _COLUMNS])
        return flat[:, :count]

    count = tf.shape(columns)[1]
    return tf.cond(count <= _COLUMNS, lambda: product(columns), of_parts)


def precision(dtype: str) -> str:
    """The `dtype` of an operator's arguments.

    Raises:
        ValueError: where it is not float32 or float64.
    """
    if dtype not in PRECISIONS:
        raise ValueError(f"dtype: expected float32 or float64. Received: {dtype!r}")
    return dtype
