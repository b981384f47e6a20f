"""Deep image prior: a network that nobody trained, fitted to one measurement and stopped in time.

    minimise  sum of w |A G(z + e) - y|^2   over the weights of G, a U-Net with random input z,

e a little noise, other at each step (Ulyanov, Vedaldi and Lempitsky, CVPR 2018). A network of
convolutions learns anatomy before it learns noise, and so what matters is when it stops:

    discrepancy  when the misfit is what noise alone makes of it; needs to know the noise, and where
                 no image comes as near, as the model of the measurement is not right, takes that of
                 "variance"
    holdout      when the fit to a tenth of y that it has not seen was best
    variance     when the images of the last steps varied least (Wang et al., Early Stopping for
                 Deep Image Prior, TMLR 2023); it may come too early or too late, and is for want
                 of the others

The image is the mean of those of the steps, in which each counts 3 % less than the next.
"""

import time
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from zoo import loading, registry
from zoo.domain import Domain
from zoo.physics.operators import Operator
from zoo.reconstruction import weight
from zoo.reconstruction.record import Record, Result

STOPS = ("discrepancy", "holdout", "variance")
_INPUTS = 16  # channels of z
_JITTER = 1 / 30  # of z at each step
_FADING = 0.97  # of the mean of the images
_LOOK = 10  # steps between two looks at what stops
_WINDOW = 10  # looks whose images' variance counts


class _Prior:
    """A network, its input and the mean of its images, for one operator.

    Args:
        operator: A, of images (H, W).
        scale: of the image: what the network's 1 is.
        levels, base_filters: of the U-Net.
        rate: of Adam.
        seed: of the weights and the input.
    """

    def __init__(
        self,
        operator: Operator,
        scale: float,
        levels: int,
        base_filters: int,
        rate: float,
        seed: int,
    ):
        self.operator, self.scale = operator, scale
        overrides = {
            "seed": seed,
            "levels": levels,
            "base_filters": base_filters,
            "norm": "instance",
            "upsampling": "resize",
            "output": "image",
            "precision": "float32",
        }
        parts = 2 if operator.dtype.is_complex else 1
        entry = registry.lookup("encoder_decoder", overrides=overrides)
        domains = Domain(channels=_INPUTS), Domain(channels=parts)
        self.network = loading.build(entry, *domains).network
        multiple = 2 ** (levels - 1)
        sides = [-(-side // multiple) * multiple for side in operator.domain_shape]
        self.random = tf.random.Generator.from_seed(seed)
        self.input = self.random.uniform([1, *sides, _INPUTS], -0.5, 0.5)
        self.optimizer = keras.optimizers.Adam(rate)
        self.optimizer.build(self.network.trainable_variables)
        self.mean = tf.Variable(tf.zeros(operator.domain_shape, operator.dtype), trainable=False)
        self.step = tf.function(self._step)

    def _image(self) -> tf.Tensor:
        height, width = self.operator.domain_shape
        noise = self.random.normal(self.input.shape, stddev=_JITTER)
        found = self.network(self.input + noise, training=True)[0, :height, :width]
        if self.operator.dtype.is_complex:
            image = tf.complex(found[..., 0], found[..., 1])
        else:
            image = found[..., 0]
            # Softplus keeps attenuation positive and has a gradient at 0.
            image = tf.math.softplus(4 * image) / 4 if self.operator.nonnegative else image
        return tf.cast(image, self.operator.dtype) * tf.cast(self.scale, self.operator.dtype)

    def _step(self, y: tf.Tensor, weights: tf.Tensor, fading: tf.Tensor) -> tf.Tensor:
        """One step of Adam; the image before it, which the mean takes in."""
        variables = self.network.trainable_variables
        with tf.GradientTape() as tape:
            image = self._image()
            misfit = tf.reduce_sum(weights * tf.abs(self.operator.forward(image) - y) ** 2)
            loss = misfit / tf.reduce_sum(weights * tf.abs(y) ** 2)
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply(gradients, variables)
        self.mean.assign(self.mean + tf.cast(1 - fading, image.dtype) * (image - self.mean))
        return image


def reconstruct(
    measured,
    operator: Operator,
    stop: Literal["discrepancy", "holdout", "variance"] | None = None,
    sigma: float | np.ndarray | None = None,
    photons: float | None = None,
    iterations: int = 2000,
    levels: int = 4,
    base_filters: int = 24,
    rate: float = 5e-3,
    seed: int = 0,
    patience: int = 300,
    progress: Callable[[int, float], None] | None = None,
    watch: Callable[[int, np.ndarray], None] | None = None,
) -> Result:
    """The image of a network that is fitted to the measurement.

    Args:
        measured: y, of the operator's range.
        operator: A, of images (H, W).
        stop: "discrepancy", "holdout" or "variance"; None is the first where the noise is known,
            else the second.
        sigma, photons: the noise, as of `zoo.reconstruction.tv`.
        iterations: steps, at most.
        levels, base_filters: of the U-Net.
        rate: of Adam.
        seed: of weights, input, its noise, and of what is held out.
        patience: steps without a better image after which it stops.
        progress: called with the steps done and what stops.
        watch: called with the steps done and the image as it is then.

    Raises:
        ValueError: for bad arguments, and a rule that needs noise that is not known.
    """
    begun = time.perf_counter()
    y = operator.checked("measured", measured)
    weights = weight.of_noise(y, operator, sigma, photons)
    known = sigma is not None or photons is not None
    by_itself: str = "discrepancy" if known else "holdout"
    rule = by_itself if stop is None else stop
    if rule not in STOPS or (rule == "discrepancy" and not known):
        raise ValueError(
            f"stop: expected one of {', '.join(STOPS)}, the first with sigma or photons. "
            f"Received: {stop}"
        )
    if iterations < _LOOK:
        raise ValueError(f"iterations: expected {_LOOK} or more. Received: {iterations}")
    # What is fitted, and what is kept to look at.
    held, kept = weights, weights
    if rule == "holdout":
        held, kept = weight.held_out(operator, weights, np.random.default_rng(seed))
    scale = float(np.quantile(np.abs(operator.pseudo_inverse(y)), 0.999))
    prior = _Prior(operator, scale, levels, base_filters, rate, seed)
    # Steps, until the rule has not had a better image for a while.
    forward = operator.graph(_forward)
    parts = 2 if operator.dtype.is_complex else 1
    expected = parts * float(np.count_nonzero(weights))
    record, best = Record("dip"), 0
    last: list[np.ndarray] = []
    found: Any = None
    steady: tuple[float, int, Any] = (np.inf, 0, None)
    for done in range(1, iterations + 1):
        # At first the mean is one of all images.
        fading = min(_FADING, 1 - 1 / done)
        image = prior.step(y, kept, tf.constant(fading, operator.dtype.real_dtype))
        if done % _LOOK:
            continue
        mean = prior.mean.numpy()
        last = [*last, image.numpy()][-_WINDOW:]
        variance = float(np.var(last, axis=0).mean()) if len(last) == _WINDOW else np.inf
        if variance < steady[0]:
            steady = variance, done, mean
        if rule == "variance":
            value = variance
        else:
            misfit = held * tf.abs(forward(mean) - y) ** 2
            value = float(tf.reduce_sum(tf.cast(misfit, tf.float64)))
        if found is None or value < record.tried[best][1]:
            best, found = len(record.tried), mean
        record.tried.append((float(done), value))
        if progress:
            progress(done, value)
        if watch:
            watch(done, mean)
        enough = rule == "discrepancy" and value <= expected
        if enough or done - record.tried[best][0] >= patience:
            break
    else:
        record.converged = False
        record.notes.append(f"stopped after {iterations} iterations, before the rule said so")
    # The best image, and why.
    record.iterations, value = int(record.tried[best][0]), record.tried[best][1]
    record.why = f"{rule}: {value:.6g}"
    if rule == "discrepancy":
        record.why += f", expected of the noise {expected:.6g}"
    if rule == "discrepancy" and value > expected:
        record.notes.append("no image came as near as the noise; that of least variance")
        if steady[1]:
            _, record.iterations, found = steady
    record.seconds = time.perf_counter() - begun
    return found, record


def _forward(operator: Operator, image: tf.Tensor) -> tf.Tensor:
    return operator.forward(image)
