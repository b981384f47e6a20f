"""Plug and play: a denoiser that a data set taught, in place of a prior that somebody wrote down.

With D the denoiser, H = A* W A, W the weights of the l2 fidelity, the image is the one where what
the measurement pulls and what the denoiser takes away are in balance,

    A* W (A x - y) + lam (x - D(x)) = 0,

the fixed point of plug-and-play (Venkatakrishnan, Bouman and Wohlberg, GlobalSIP 2013) and of
regularisation by denoising (Romano, Elad and Milanfar, SIAM J. Imaging Sci. 10, 2017; Cohen, Elad
and Milanfar, SIAM J. Imaging Sci. 14, 2021). It is found by

    (H + lam / a) x' = A* W y + lam / a (a D(x) + (1 - a) x),

by conjugate gradients from x. Where D moves no two images further apart than they are, this
converges; how far it does is measured, the largest singular value of its Jacobian at the first
image, by the power method. Where that is L > 1 the denoiser is damped by a = 1 / L, down to
1 + a (L - 1) at most, which leaves the balance where it is and makes the steps smaller: what a
denoiser overdoes then does no harm. One that makes images less alike has no balance to find; the
image is then the last one before it ran away, and the record says so.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from zoo import guards, loading, registry
from zoo.physics.operators import Operator
from zoo.reconstruction import units, weight
from zoo.reconstruction.fidelity import Fidelity
from zoo.reconstruction.record import Result
from zoo.reconstruction.weight import Solution
from zoo.translator import Translator

_INNER = 8  # steps of conjugate gradients, which begin at the last image
_POWER = 12  # of the power method

Denoiser = Callable[[tf.Tensor], tf.Tensor]


class State(NamedTuple):
    """An iterate and A of it."""

    x: tf.Tensor
    ax: tf.Tensor


class PlugAndPlay:
    """Solves for one measurement and denoiser, with any weights lam one after the other.

    Args:
        operator: A.
        fidelity: f, an "l2".
        denoise: D, a graph of images of the operator's shape and type.
        damping: a.
    """

    stride = 8.0  # its weight matters less than that of other priors

    def __init__(self, operator: Operator, fidelity: Fidelity, denoise: Denoiser, damping: float):
        self.operator, self.fidelity = operator, fidelity
        self.denoise, self.damping = denoise, damping
        weights = tf.cast(fidelity.weights, operator.dtype)
        self._pull = operator.adjoint(weights * fidelity.y)
        self._first = operator.pseudo_inverse(fidelity.y)
        # Where what the noise pulls is as large as what the denoiser takes from the first image.
        noise = tf.cast(
            np.random.default_rng(0).standard_normal(operator.range_shape), weights.dtype
        )
        pulled = operator.adjoint(tf.sqrt(weights) * noise)
        self.guess = _size(pulled) / max(_size(self._first - denoise(self._first)), 1e-30)

    def start(self) -> State:
        """The operator's quick image."""
        return State(self._first, self.operator.forward(self._first))

    def solve(
        self,
        lam: float,
        start: State,
        tolerance: float,
        iterations: int,
        progress: Callable[[int, float], None] | None = None,
    ) -> Solution:
        """Iterates until an image differs from the last by at most `tolerance`, or so many times.

        Args:
            lam: weight of the denoiser.
            start: where to begin.
            tolerance: of |x' - x| / |x|.
            iterations: at most.
            progress: called with the iterations done and the change.
        """
        step = self.operator.graph(least_squares)
        real = self.operator.dtype.real_dtype
        share = tf.cast(lam / self.damping, real)
        x, done, change = start.x, 0, math.inf
        size = _size(self._first)
        while done < iterations and change > tolerance:
            kept = x + self.damping * (self.denoise(x) - x)
            found = step(self.fidelity.weights, self._pull, share, kept, x)
            if not _size(found) < 10 * size:  # it runs away
                break
            change = _size(found - x) / max(_size(x), 1e-30)
            x, done = found, done + 1
            if progress:
                progress(done, change)
        if iterations < 1:
            raise ValueError(f"iterations: expected a positive number. Received: {iterations}")
        return Solution(State(x, self.operator.forward(x)), None, change, done)


def least_squares(operator: Operator, weights, pull, share, kept, x) -> tf.Tensor:
    """The image of (A* W A + share) x' = pull + share kept, from x, by conjugate gradients."""
    wide, weights = tf.cast(share, operator.dtype), tf.cast(weights, operator.dtype)

    def system(x):
        return operator.adjoint(weights * operator.forward(x)) + wide * x

    rest = pull + wide * kept - system(x)
    along, size = rest, _square(rest)
    for _ in range(_INNER):
        image = system(along)
        step = tf.math.divide_no_nan(size, _dot(along, image))
        x += tf.cast(step, x.dtype) * along
        rest -= tf.cast(step, x.dtype) * image
        before, size = size, _square(rest)
        along = rest + tf.cast(tf.math.divide_no_nan(size, before), x.dtype) * along
    return x


def _dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.math.real(tf.math.conj(a) * b))


def _square(a: tf.Tensor) -> tf.Tensor:
    return _dot(a, a)


def _size(a: tf.Tensor) -> float:
    return math.sqrt(float(_square(a)))


def lipschitz(denoise: Denoiser, x: tf.Tensor, seed: int = 0) -> float:
    """How far `denoise` moves images near x apart: its Jacobian's largest singular value.

    Args:
        denoise: real images to real images.
        x: a real image.
        seed: of the first direction.

    Returns:
        The value by the power method on the Jacobian's transpose times it, from below.
    """

    @tf.function
    def step(v):
        with tf.autodiff.ForwardAccumulator(x, v) as forward:
            moved = denoise(x)
        moved = forward.jvp(moved)
        with tf.GradientTape() as tape:
            tape.watch(x)
            product = tf.reduce_sum(denoise(x) * moved)
        back = tape.gradient(product, x)
        return tf.norm(moved), back / tf.maximum(tf.norm(back), 1e-30)

    v = tf.cast(np.random.default_rng(seed).standard_normal(x.shape), x.dtype)
    v, found = v / tf.norm(v), 0.0
    for _ in range(_POWER):
        size, v = step(v)
        found = max(found, float(size))
    return found


def _of_model(
    model: Translator, operator: Operator, first: tf.Tensor
) -> tuple[Denoiser, list[str]]:
    """A model of the zoo as a denoiser of real images in the operator's unit, and its warnings."""
    source, target, unit = model.source, model.target, units.of_model(model, operator, first)
    image = source.channels == target.channels == model.scale == 1 and not model.classes
    if not image or model.dimensions != 2 or source.unit != target.unit:
        raise ValueError(
            "denoiser: expected a model whose input and output are one kind of image. "
            f"Received: {model.name}, {source.channels} x {source.unit} to {target.unit}"
        )

    def denoise(x):
        images = tf.cast(x, tf.float32)[None, ..., None] * unit.factor + unit.level
        return tf.cast((model(images)[0, ..., 0] - unit.level) / unit.factor, x.dtype)

    spacing = (operator.spacing_mm,) * 2 if hasattr(operator, "spacing_mm") else None
    reasons = guards.reasons(model, unit.shown(first), spacing)
    return denoise, [f"{model.name}: {reason}" for reason in reasons]


def reconstruct(
    measured,
    operator: Operator,
    denoiser: str | Translator | Denoiser = "encoder_decoder_ldct",
    lam: float | str | None = None,
    sigma: float | np.ndarray | None = None,
    photons: float | None = None,
    tolerance: float = 1e-3,
    iterations: int = 60,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Result:
    """The image where the measurement and a denoiser are in balance.

    Complex images are denoised in magnitude and keep their phase.

    Args:
        measured: y, of the operator's range.
        operator: A, of images (H, W).
        denoiser: a pretrained model, a run folder or a loaded model, of images in HU for
            attenuation, else in signal; or a function of TensorFlow, of a real image in the
            operator's unit.
        lam: weight of what it takes away, a number or a rule (`zoo.reconstruction.weight`).
        sigma, photons: the noise, as of `zoo.reconstruction.tv`.
        tolerance: the change of an image, as a share of it, to stop at.
        iterations: at most, in each solve.
        seed: of the draws of "sure" and "holdout".
        progress: called with the iterations done and the change.

    Raises:
        UnknownName: for a denoiser that is not there.
        ValueError: for bad arguments, and a denoiser of other images.
    """
    y = operator.checked("measured", measured)
    weights = weight.of_noise(y, operator, sigma, photons)
    first = operator.pseudo_inverse(y)
    real = tf.math.abs(first) if first.dtype.is_complex else first
    # The denoiser, and how far it moves images apart.
    function: Any = denoiser
    notes: list[str] = []
    if isinstance(denoiser, str):
        denoiser = loading.build(registry.lookup(denoiser))
    if isinstance(denoiser, Translator):
        function, notes = _of_model(denoiser, operator, first)
    moved = lipschitz(function, real, seed)
    damping = 1 / max(moved, 1.0)

    @tf.function
    def denoise(x):
        if not x.dtype.is_complex:
            return function(x)
        size = tf.math.abs(x)
        return x * tf.cast(tf.math.divide_no_nan(function(size), size), x.dtype)

    def problem(y: tf.Tensor, weights: tf.Tensor) -> PlugAndPlay:
        return PlugAndPlay(operator, Fidelity("l2", y, weights), denoise, damping)

    # Its weight, and the image with it.
    known = sigma is not None or photons is not None
    search = weight.Search(
        "pnp", problem, operator, y, weights, known, tolerance, iterations, seed, progress
    )
    found, record = search.solved(lam)
    record.iterations, record.change = found.iterations, found.gap
    record.lipschitz, record.damping = moved, damping
    record.converged = found.gap <= tolerance
    if not record.converged:
        why = "it ran away" if found.iterations < iterations else "the change asked for"
        notes.append(f"stopped after {found.iterations} iterations, before {why}")
    record.notes += notes
    return found.state.x.numpy(), record
