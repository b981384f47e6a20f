"""A critic as prior: images go down what a network calls wrong, held by the measurement.

With C a trained critic (`zoo.models.critic`), N the pixels of an image and s how many of the
critic's values are one of the operator's unit,

    F(x) = sum of w |A x - y|^2 / 2 + lam R(x),    R(x) = sqrt(N) C(x) / s.

C is nowhere steeper than 1 by root mean squares, and so is R by the length of x: the prior of Lunz,
Öktem and Schönlieb (NeurIPS 2018, arXiv:1805.11572). At the true image the misfit pulls with
A* W e, e the noise, and the prior with no more than lam, so that their weight is

    lam = E |A* W e|.

An iteration is a step down the critic together with one towards the measurement,

    (A* W A + rho) x' = A* W y + rho x - lam R'(x),

by conjugate gradients from x; it begins at the quick image. The step down is a fifth of what the
critic has learned to be the way from there to the true image; where F rises, rho doubles. R has no
least value, and means nothing far from what C has seen, so what matters is when it stops:

    holdout      when the fit to a tenth of y that it has not seen was best; so many iterations with
                 all of y make the image
    discrepancy  when the misfit is what noise alone makes of it, or least
"""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf

from zoo import guards, loading, registry
from zoo.physics.operators import Operator
from zoo.reconstruction import pnp, units, weight
from zoo.reconstruction.fidelity import Fidelity
from zoo.reconstruction.learned import quick_image
from zoo.reconstruction.record import Record, Result
from zoo.translator import Translator

STOPS = ("holdout", "discrepancy")
_SHARE = 0.2  # of the way that the critic has learned, down in an iteration
_SMALLEST = 2.0**-10  # of a first step, below which F has no lower value

Slope = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class Step(NamedTuple):
    """An iterate, A of it, and F there."""

    x: tf.Tensor
    ax: tf.Tensor
    objective: float


def prior(critic: Any, operator: Operator, quick: tf.Tensor) -> tuple[Slope, float]:
    """R with its slope as a function of an image, and the way that the critic has learned.

    Args:
        critic: a model `critic` of images in HU for attenuation, else of signal; of complex ones
            it sees |x|.
        operator: A, of images (H, W).
        quick: a quick image, whose brightness counts where signal has no unit.

    Raises:
        ValueError: for a critic of images in another unit.
    """
    domain, unit = critic.source, units.of_model(critic, operator, quick)
    steepest = float(np.sqrt(quick.shape.num_elements())) * domain.span / (2 * unit.factor)

    @tf.function
    def slope(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            real = tf.math.abs(x) if x.dtype.is_complex else x
            values = domain.scale(tf.cast(real, tf.float32) * unit.factor + unit.level)
            height = steepest * critic.critic(values[None, ..., None])[0, 0]
        return height, tape.gradient(height, x)

    return slope, steepest * critic.length


def descent(
    operator: Operator,
    fidelity: Fidelity,
    slope: Slope,
    lam: float,
    length: float,
    x: tf.Tensor,
) -> Iterator[Step]:
    """Iterates from x on, F lower from each to the next, until there is none lower nearby.

    Args:
        operator, fidelity: A, and an "l2" of y.
        slope: as `prior` gives it.
        lam: its weight, positive.
        length: of the first step down.
        x: where it begins, not given again.
    """
    weights, real = fidelity.weights, operator.dtype.real_dtype
    pull = operator.adjoint(tf.cast(weights, operator.dtype) * fidelity.y)
    step, forward = operator.graph(pnp.least_squares), operator.graph(_forward)

    def at(x: tf.Tensor) -> tuple[Step, tf.Tensor]:
        ax, (height, down) = forward(x), slope(x)
        return Step(x, ax, float(fidelity.value(ax)) + lam * float(height)), down

    last, down = at(x)
    shortest = length * _SMALLEST
    while length >= shortest:
        rho = lam / length
        kept = last.x - tf.cast(length, x.dtype) * down
        found, steeper = at(step(weights, pull, tf.cast(rho, real), kept, last.x))
        if found.objective < last.objective:
            last, down = found, steeper
            yield last
        else:
            length /= 2


def _forward(operator: Operator, image: tf.Tensor) -> tf.Tensor:
    return operator.forward(image)


def reconstruct(
    measured,
    operator: Operator,
    critic: str | Translator,
    lam: float | None = None,
    stop: Literal["holdout", "discrepancy"] = "holdout",
    sigma: float | np.ndarray | None = None,
    photons: float | None = None,
    iterations: int = 60,
    patience: int = 5,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Result:
    """The image that a critic and the measurement agree on.

    Args:
        measured: y, of the operator's range.
        operator: A, of images (H, W).
        critic: a run of `critic`, a pretrained or a loaded one, of images in HU for attenuation,
            else in signal.
        lam: weight of the critic; None: as the noise has it.
        stop: "holdout" or "discrepancy".
        sigma, photons: the noise, as of `zoo.reconstruction.tv`.
        iterations: at most.
        patience: iterations without a better fit after which it stops.
        seed: of what is held out.
        progress: called with the iterations done and the misfit that stops.

    Raises:
        UnknownName: for a critic that is not there.
        ValueError: for bad arguments, another model than a critic, one of other images, and a
            weight or a stop that needs the noise where it is not known.
    """
    begun = time.perf_counter()
    y = operator.checked("measured", measured)
    weights = weight.of_noise(y, operator, sigma, photons)
    _check(lam, stop, iterations, patience, sigma is not None or photons is not None)
    # The critic, and where it begins.
    model = loading.build(registry.lookup(critic)) if isinstance(critic, str) else critic
    if not hasattr(model, "critic"):
        raise ValueError(f"critic: expected a model of critic. Received: {model.name}")
    quick = quick_image(model, operator, y)
    slope, way = prior(model, operator, quick)
    if not way > 0:
        raise ValueError(f"critic: expected one that learned a way down. Received: {way:g}")
    why = "as given"
    if lam is None:
        lam, why = _pull_of_noise(operator, weights), "noise"
    record, chosen = Record("adversarial", lam=lam, why=why), float(lam)
    shown = units.of_model(model, operator, quick).shown(quick)
    spacing = (operator.spacing_mm,) * 2 if hasattr(operator, "spacing_mm") else None
    reasons = guards.reasons(model, shown, spacing)
    record.notes = [f"{model.name}: {reason}" for reason in reasons]

    def steps(weights: tf.Tensor) -> Iterator[Step]:
        fidelity = Fidelity("l2", y, weights)
        return descent(operator, fidelity, slope, chosen, _SHARE * way, quick)

    # Iterations, until there has not been a better fit for a while.
    held, kept = weights, weights
    if stop == "holdout":
        held, kept = weight.held_out(operator, weights, np.random.default_rng(seed))
    parts = 2 if operator.dtype.is_complex else 1
    expected = parts * float(np.count_nonzero(weights))
    best, least, found, ended = 0, np.inf, Step(quick, y, np.nan), True
    for done, each in enumerate(steps(kept), 1):
        value = float(Fidelity("l2", y, held).squares(each.ax))
        record.tried.append((float(done), value))
        if value < least:
            best, least, found = done, value, each
        if progress:
            progress(done, value)
        if (stop == "discrepancy" and value <= expected) or done - best >= patience:
            break
        if done == iterations:
            ended = False
            break
    # So many with all of the measurement.
    if stop == "holdout":
        for each in itertools.islice(steps(weights), best):
            found = each
    record.iterations, record.objective, record.converged = best, found.objective, ended
    record.why += f": stopped by {stop} at a misfit of {least:.6g}"
    if stop == "discrepancy":
        record.why += f", expected of the noise {expected:.6g}"
    if not ended:
        record.notes.append(f"stopped after {iterations} iterations, before the rule said so")
    record.seconds = time.perf_counter() - begun
    return found.x.numpy(), record


def _check(lam: float | None, stop: str, iterations: int, patience: int, known: bool) -> None:
    if stop not in STOPS or (stop == "discrepancy" and not known):
        raise ValueError(
            f"stop: expected one of {', '.join(STOPS)}, the last with sigma or photons. "
            f"Received: {stop}"
        )
    if lam is None and not known:
        raise ValueError("lam: expected a number, or sigma or photons. Received: none of them")
    if lam is not None and not (isinstance(lam, int | float) and 0 < lam < np.inf):
        raise ValueError(f"lam: expected a number above 0. Received: {lam}")
    for name, value in (("iterations", iterations), ("patience", patience)):
        if value < 1:
            raise ValueError(f"{name}: expected 1 or more. Received: {value}")


def _pull_of_noise(operator: Operator, weights: tf.Tensor) -> float:
    """|A* W e| of one draw of the noise e, which hardly varies from one to the next."""
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal(operator.range_shape)
    if operator.dtype.is_complex:
        drawn = drawn + 1j * rng.standard_normal(operator.range_shape)
    noise = tf.cast(tf.sqrt(weights), operator.dtype) * tf.cast(drawn, operator.dtype)
    return float(tf.norm(tf.math.abs(operator.adjoint(noise))))
