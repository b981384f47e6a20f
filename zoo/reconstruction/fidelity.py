"""How badly a measurement fits: d(A x, y) as functions f of t = A x, with their conjugates.

For each measured value, w its weight (1 / variance; 0 leaves it out):

    l2       f(t) = w |t - y|^2 / 2
    l1       f(t) = sqrt(w) |t - y|
    poisson  f(t) = n (exp(y - t) - 1 + t - y),  n = photons exp(-y), real y

The last is the likelihood of the n photons that arrive, less its least value. With f comes its
conjugate f*(p) = max over t of p t - f(t) and the proximal step of that, which primal-dual methods
need. Tensors are of the shape of y; objectives are sums in float64.
"""

import tensorflow as tf

NAMES = ("l2", "poisson", "l1")


class Fidelity(tf.experimental.ExtensionType):
    """One of `NAMES` for the measurement `y`; a function of TensorFlow takes it as an argument.

    Args:
        name: which.
        y: the measurement.
        weights: w, real, of y's shape; of poisson, whose weights are n, only what is 0 counts.
        photons: photons before the object, for poisson.

    Raises:
        ValueError: for an unknown name, or poisson without photons or with complex values.
    """

    name: str
    y: tf.Tensor
    weights: tf.Tensor

    def __init__(self, name: str, y: tf.Tensor, weights: tf.Tensor, photons: float | None = None):
        if name not in NAMES:
            raise ValueError(f"fidelity: expected {', '.join(NAMES)}. Received: {name!r}")
        if name == "poisson" and (photons is None or y.dtype.is_complex):
            raise ValueError(
                "fidelity: expected photons, and real line integrals, for poisson. "
                f"Received: photons {photons}, {y.dtype.name}"
            )
        if name == "poisson":
            used = tf.cast(weights > 0, y.dtype)
            weights = used * tf.cast(photons, y.dtype) * tf.exp(-y)
        self.name, self.y, self.weights = name, y, weights

    @property
    def used(self) -> tf.Tensor:
        """What is measured at all, bool."""
        return self.weights > 0

    @property
    def _inverse(self) -> tf.Tensor:
        """1 / w, and 0 where nothing is measured."""
        return tf.cast(
            tf.math.divide_no_nan(tf.ones_like(self.weights), self.weights), self.y.dtype
        )

    def value(self, t: tf.Tensor) -> tf.Tensor:
        """f(t), summed."""
        return _sum(self._each(t))

    def squares(self, t: tf.Tensor) -> tf.Tensor:
        """The sum of w |t - y|^2, whichever the fidelity: what noise makes of one a value."""
        return _sum(self.weights * tf.abs(t - self.y) ** 2)

    def conjugate(self, p: tf.Tensor) -> tf.Tensor:
        """f*(p), summed; p must be one that `step` gave, or a mean of such."""
        linear = _sum(tf.math.real(tf.math.conj(p) * self.y))
        if self.name == "l1":
            return linear
        if self.name == "l2":
            return linear + 0.5 * _sum(tf.abs(p) ** 2 * tf.math.real(self._inverse))
        share = tf.minimum(p * self._inverse, 1.0)
        left = tf.where(share < 1, (1 - share) * tf.math.log1p(-tf.minimum(share, 1 - 1e-7)), 0.0)
        return linear + _sum(self.weights * left + p)

    def step(self, p: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        """The proximal step of sigma f* at p; sigma > 0 is real and of y's shape."""
        wide = tf.cast(sigma, p.dtype)
        if self.name == "l2":
            return tf.where(self.used, (p - wide * self.y) / (1 + wide * self._inverse), 0)
        if self.name == "l1":
            moved = p - wide * self.y
            size, bound = tf.abs(moved), tf.sqrt(self.weights)
            shrunk = tf.math.divide_no_nan(bound, tf.maximum(size, bound))
            return moved * tf.cast(shrunk, p.dtype)
        # By Moreau: p less sigma times the root of -n exp(-s) + n + sigma (s - v), s = t - y.
        v = p / sigma - self.y
        low, high = tf.minimum(v, 0), tf.maximum(v, 0)  # the root lies between
        s = high
        for _ in range(8):
            rest = sigma * (s - v) - self.weights * tf.math.expm1(-s)
            s = tf.clip_by_value(s - rest / (self.weights * tf.exp(-s) + sigma), low, high)
        return tf.where(self.used, -self.weights * tf.math.expm1(-s), 0)

    def _each(self, t: tf.Tensor) -> tf.Tensor:
        away = t - self.y
        if self.name == "l2":
            return 0.5 * self.weights * tf.abs(away) ** 2
        if self.name == "l1":
            return tf.sqrt(self.weights) * tf.abs(away)
        return self.weights * (tf.math.expm1(-away) + away)


def _sum(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(values, tf.float64))
