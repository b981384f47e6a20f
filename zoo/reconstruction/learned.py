"""Images by a trained model of the zoo, from the measurement or from its quick image.

A model of sinograms or k-space (`learned_primal_dual`, `varnet`, `automap`) is asked for the image.
One of images gets the operator's quick one, filtered back-projection or zero filling, made as those
that it learned from where its `source.quick` says how (`zoo.domain.Domain`). Either can be held to
the measurement afterwards: of the model's image m,

    minimise  sum of w |A x - y|^2 / 2 + lam |x - m|^2 / 2,

which changes what was measured and leaves the rest to the model. Complex images have the phase of
the quick image.
"""

import time
from typing import Any

import numpy as np
import tensorflow as tf

from zoo import loading, registry
from zoo.physics import fourier, radon
from zoo.physics.operators import Operator
from zoo.reconstruction import units, weight
from zoo.reconstruction.fidelity import Fidelity
from zoo.reconstruction.pnp import PlugAndPlay
from zoo.reconstruction.record import Record, Result
from zoo.translator import Translator


def reconstruct(
    measured,
    operator: Operator,
    model: str | Translator,
    lam: float | str | None = None,
    sigma: float | np.ndarray | None = None,
    photons: float | None = None,
    tolerance: float = 1e-3,
    iterations: int = 60,
    seed: int = 0,
) -> Result:
    """The image that a model makes, held to the measurement where `lam` says so.

    Args:
        measured: y, of the operator's range.
        operator: A.
        model: a pretrained model, the folder of a run, or a loaded one.
        lam: weight of the model's image against the measurement, a number or a rule
            (`zoo.reconstruction.weight`); None leaves the model's image as it is.
        sigma, photons: the noise, as of `zoo.reconstruction.tv`.
        tolerance, iterations: of the solution with `lam`, as of `zoo.reconstruction.pnp`.
        seed: of the draws of "sure" and "holdout".

    Raises:
        UnknownName: for a model that is not there.
        ValueError: for a model of other measurements or images.
    """
    begun = time.perf_counter()
    y = operator.checked("measured", measured)
    # The model's image.
    name = model if isinstance(model, str) else model.name
    if isinstance(model, str):
        model = loading.build(registry.lookup(model))
    quick = quick_image(model, operator, y)
    image = _asked(model, operator, y, quick)
    record = Record(name)
    if lam is None:
        record.seconds = time.perf_counter() - begun
        return image.numpy(), record
    # Held to the measurement: a denoiser that always answers the same.
    weights = weight.of_noise(y, operator, sigma, photons)

    def problem(y: tf.Tensor, weights: tf.Tensor) -> PlugAndPlay:
        return PlugAndPlay(operator, Fidelity("l2", y, weights), lambda _: image, 1.0)

    known = sigma is not None or photons is not None
    search = weight.Search(
        name, problem, operator, y, weights, known, tolerance, iterations, seed, None
    )
    found, record = search.solved(lam)
    record.iterations, record.change = found.iterations, found.gap
    record.converged = found.gap <= tolerance
    record.seconds = time.perf_counter() - begun
    return found.state.x.numpy(), record


def quick_image(model: Translator, operator: Operator, y: tf.Tensor) -> tf.Tensor:
    """The quick image, by the filter of those that a model of such images learned from."""
    if hasattr(operator, "angles") and model.source.quick in radon.FILTERS:
        return operator.pseudo_inverse(y, model.source.quick)  # type: ignore[call-arg] # of rays
    return operator.pseudo_inverse(y)


def _asked(model: Translator, operator: Operator, y: tf.Tensor, quick: tf.Tensor) -> tf.Tensor:
    """The model's image, of the operator's unit and type."""
    words, shape = model.source.words, operator.domain_shape
    kind = "k-space" if operator.dtype.is_complex else "sinograms"
    given: Any
    unit = units.of_model(model, operator, quick)
    if words == "images":
        given = unit.shown(quick)
    elif words == kind == "sinograms":
        _check_geometry(model, operator)
        given = y.numpy()[..., None]
    elif words == kind:
        pairs = fourier.to_channels(y.numpy().reshape(-1, *y.shape[-2:]))
        given = pairs.transpose(1, 2, 0, 3).reshape(*y.shape[-2:], -1)
    else:
        raise ValueError(f"method: expected a model of {kind} or images. Received: {words}")
    if given.shape[-1] != model.source.channels:
        raise ValueError(
            f"method: expected a model of {given.shape[-1]} channels. "
            f"Received: {model.source.channels}"
        )
    found = model.translate(given[None].astype(np.float32))[0, ..., 0]
    if found.shape != shape:
        raise ValueError(f"method: expected a model of images of {shape}. Received: {found.shape}")
    return unit.physical(found, quick)


def _check_geometry(model: Translator, operator: Operator) -> None:
    """A ValueError for rays that are not those which a model holds."""
    geometry = getattr(model.recipe, "geometry", {})
    for name, value in geometry.items():
        received = getattr(operator, name, None)
        if received is None or abs(received - value) > 1e-6 * abs(value):
            raise ValueError(
                f"method: expected {name} {value:g}, as the model learned it. Received: {received}"
            )
