"""The graph of an export that answers with half-widths."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.averaging import View, views
from zoo.trust.calibration import Calibration
from zoo.trust.spread import FLOOR, NEAR

SIGNATURE = "uncertainty"
IN_GRAPHS = ("quantiles", "views")  # dropout is random, and averages are not exported


def endpoint(
    model: Any, calibration: Calibration, specs: dict[str, tf.TensorSpec]
) -> Callable[..., Any]:
    """The graph of the signature: "images" to "images" and "half_width", both in the target's unit.

    Args:
        model: what is served, a `zoo.Translator` of images.
        calibration: of a spread of `IN_GRAPHS`.
        specs: the inputs of `serving_default`.

    Raises:
        ValueError: for another spread.
    """
    if calibration.spread not in IN_GRAPHS:
        raise ValueError(
            f"uncertainty: expected one by {' or '.join(IN_GRAPHS)} in an export. "
            f"Received: {calibration.spread}"
        )
    pair = _quantiles if calibration.spread == "quantiles" else _views
    (spec,) = specs.values()

    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.ensure_shape(images, spec.shape)
        made, spread = pair(model, images)
        spread += np.float32(FLOOR * model.target.span)
        return {"images": made, "half_width": np.float32(calibration.factor) * spread}

    return tf.function(answer, input_signature=[spec], autograph=False)


def _quantiles(model: Any, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    answer, half = tf.split(model.with_half_width(images), 2, axis=-1)
    return answer, half


def _views(model: Any, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    spacing = model.source.spacing
    square = not spacing or abs(spacing[-1] / spacing[-2] - 1) < 1e-3
    answers = []
    for view in views(model.recipe, square):  # the first is the image as it is
        answers.append(_back(view, model(_seen(view, images), training=False)))
    return answers[0], _smoothed(tf.math.reduce_std(tf.stack(answers), axis=0))


def _smoothed(spread: tf.Tensor) -> tf.Tensor:
    """As `zoo.trust.spread.smoothed`, in a graph."""
    images, shape = spread, tf.shape(spread)
    if spread.shape.rank == 5:  # volumes: slice by slice
        images = tf.reshape(spread, tf.concat([[-1], shape[-3:]], 0))
    shares = tf.ones_like(images)
    for kernel in (NEAR[:, None], NEAR[None, :]):
        each = np.repeat(kernel[..., None, None], spread.shape[-1], axis=2)
        images = tf.nn.depthwise_conv2d(images, each, [1, 1, 1, 1], "SAME")
        shares = tf.nn.depthwise_conv2d(shares, each, [1, 1, 1, 1], "SAME")
    return tf.reshape(images / shares, shape)


def _seen(view: View, images: tf.Tensor) -> tf.Tensor:
    """As `View.of`, in a graph."""
    axes = [-4] * view.backwards + [-2] * view.mirrored
    return _turned(tf.reverse(images, _positive(axes, images)), view.quarters)


def _back(view: View, images: tf.Tensor) -> tf.Tensor:
    """As `View.back`, in a graph."""
    images = _turned(images, -view.quarters % 4)
    axes = [-4] * view.backwards + [-2] * view.mirrored
    return tf.reverse(images, _positive(axes, images))


def _positive(axes: list[int], images: tf.Tensor) -> list[int]:
    return [len(images.shape) + axis for axis in axes]


def _turned(images: tf.Tensor, quarters: int) -> tf.Tensor:
    """As `np.rot90` of rows and columns."""
    rank = len(images.shape)
    rows, columns = rank - 3, rank - 2
    swapped = [*range(rows), columns, rows, rank - 1]
    if quarters == 2:
        return tf.reverse(images, [rows, columns])
    if quarters == 1:
        return tf.transpose(tf.reverse(images, [columns]), swapped)
    return tf.reverse(tf.transpose(images, swapped), [columns]) if quarters == 3 else images
