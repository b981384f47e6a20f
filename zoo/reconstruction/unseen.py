"""What of an image is measured, and what was added to it: data fidelity and the null space.

With the measurement y of the operator A, an image x and the quick image q = A.pseudo_inverse(y):

    misfit        |A x - y| / |y|
    misfit_noise  root of the mean of w |A x - y|^2 over what is measured, w = 1 / variance of each
                  real part: 1 is as far as noise alone takes it
    added         |d|^2 / |x|^2,  d = x - q: the share of the image's energy beyond the quick image
    null_space    |d - A+ A d|^2 / |d|^2: the share of that which no measurement can tell from
                  nothing, and which so comes from the prior or the network alone

The last is the null-space component of the hallucination maps of Bhadra, Kelkar, Brooks and
Anastasio (IEEE Trans. Med. Imaging 40, 2021, arXiv:2012.00646), of the image itself and so without
the truth, which they need. A+ A d is found by conjugate gradients from 0 (CGLS): the iterates lie
in the row space of A, and end at the least image that A cannot tell from d. They stop where what is
left of A d is `TOLERANCE` of it; directions that A measures more weakly than that count as unseen.
"""

import numpy as np
import tensorflow as tf

from zoo.physics.operators import Operator
from zoo.reconstruction import weight

TOLERANCE = 1e-3
_ITERATIONS = 100


def figures(
    image: np.ndarray,
    measured,
    operator: Operator,
    sigma: float | np.ndarray | None = None,
    photons: float | None = None,
) -> dict[str, float | None]:
    """The four figures above, by name; None where the noise is not known, or nothing is there.

    Args:
        image: x, of `operator.domain_shape`, as `zoo.reconstruct` gives it.
        measured: y, of `operator.range_shape`.
        operator: A.
        sigma, photons: the noise, as of `zoo.reconstruction.tv.reconstruct`.

    Raises:
        ValueError: for other shapes, or both kinds of noise.
    """
    x, y = operator.checked("image", image), operator.checked("measured", measured)
    weights = weight.of_noise(y, operator, sigma, photons)
    # How well it fits what is measured.
    away = operator.forward(x) - y
    seen = tf.cast(weights > 0, weights.dtype)
    parts = 2 if operator.dtype.is_complex else 1
    count = parts * float(tf.reduce_sum(seen))
    fitted = float(np.sqrt(_energy(weights, away) / max(count, 1)))
    # What it has beyond the quick image, and what of that A sees.
    added = x - operator.pseudo_inverse(y)
    whole, energy = _energy(1, added), _energy(1, x)
    unseen = None
    if whole > 1e-9 * energy > 0:
        unseen = _energy(1, added - visible(added, operator)) / whole
    found: dict[str, float | None] = {
        "misfit": float(np.sqrt(_energy(seen, away) / max(_energy(seen, y), 1e-30))),
        "misfit_noise": None,
        "added": None,
        "null_space": unseen,
    }
    if sigma is not None or photons is not None:
        found["misfit_noise"] = fitted
    if energy:
        found["added"] = whole / energy
    return found


def visible(
    image: tf.Tensor,
    operator: Operator,
    tolerance: float = TOLERANCE,
    iterations: int = _ITERATIONS,
) -> tf.Tensor:
    """A+ A d: what is left of an image d without the null space of A.

    Args:
        image: d, of `operator.domain_shape`.
        operator: A.
        tolerance: what may be left of A d, as a share of it.
        iterations: at most.
    """
    step = operator.graph(_step)
    left = operator.forward(image)
    enough = tolerance**2 * _energy(1, left)
    direction = operator.adjoint(left)
    found = tf.zeros_like(image)
    steep = tf.reduce_sum(tf.abs(direction) ** 2)
    for _ in range(iterations):
        if _energy(1, left) <= enough or float(steep) == 0:
            break
        found, left, direction, steep = step(found, left, direction, steep)
    return found


def _step(
    operator: Operator, found: tf.Tensor, left: tf.Tensor, direction: tf.Tensor, steep: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """One step of CGLS."""
    moved = operator.forward(direction)
    length = tf.math.divide_no_nan(steep, tf.reduce_sum(tf.abs(moved) ** 2))
    found += tf.cast(length, found.dtype) * direction
    left -= tf.cast(length, left.dtype) * moved
    towards = operator.adjoint(left)
    flatter = tf.reduce_sum(tf.abs(towards) ** 2)
    share = tf.cast(tf.math.divide_no_nan(flatter, steep), direction.dtype)
    return found, left, towards + share * direction, flatter


def _energy(weights, values: tf.Tensor) -> float:
    squares = tf.cast(tf.abs(values) ** 2, tf.float64)
    return float(tf.reduce_sum(tf.cast(weights, tf.float64) * squares))
