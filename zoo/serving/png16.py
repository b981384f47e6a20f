"""The signature `bytes`: 16-bit PNG in and out, a tenth of what JSON's decimal numbers weigh.

A pixel holds a whole number from 0 to 65,535, and the value in physical units is
slope * stored + intercept. The slope is a power of two, so that Hounsfield units and other whole
numbers keep their values to the bit; the range reaches the window's width beyond either end of the
window, as metal does. Numbers beyond the range are clipped to it.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.domain import Domain
from zoo.translator import Translator

SIGNATURE = "bytes"
NAME = "images_bytes"  # TF Serving writes what is called so in base64
_LARGEST = 65535
_MOST_CHANNELS = 4  # of a PNG: grey, or red, green, blue, each with or without alpha
_BIT_DEPTH = 24  # where a PNG's header says it


@dataclasses.dataclass(frozen=True)
class Scale:
    """Stored whole numbers to physical values: slope * stored + intercept."""

    slope: float
    intercept: float

    @classmethod
    def of(cls, domain: Domain) -> "Scale":
        """What stores a domain's values, and of a label map the numbers of its classes."""
        if domain.classes:
            return cls(1.0, 0.0)
        low, span = domain.window[0], domain.span
        slope = 2.0 ** math.ceil(math.log2(3 * span / _LARGEST))
        return cls(slope, math.floor((low - span) / slope) * slope)

    def physical(self, stored: Any) -> Any:
        """float32 values of stored numbers."""
        return tf.cast(stored, tf.float32) * self.slope + self.intercept

    def stored(self, values: Any) -> tf.Tensor:
        """uint16 numbers, rounded and clipped."""
        numbers = tf.round((tf.cast(values, tf.float32) - self.intercept) / self.slope)
        return tf.cast(tf.clip_by_value(numbers, 0.0, float(_LARGEST)), tf.uint16)

    def numbers(self, values: np.ndarray) -> np.ndarray:
        """uint16 numbers of an array as `stored` has them; what is no number is 0."""
        numbers = np.rint((np.nan_to_num(values) - self.intercept) / self.slope)
        return numbers.clip(0, _LARGEST).astype(np.uint16)


def fits(model: Translator) -> bool:
    """Whether a PNG holds a model's images: of two dimensions, up to four channels, one window."""
    source, target = model.source, model.target
    domains = [target] if model.generates else [source, target]
    plain = all(d.channels <= _MOST_CHANNELS and not d.inputs for d in domains)
    return model.dimensions == 2 and plain


def endpoint(
    model: Translator, serve: Callable[..., dict[str, tf.Tensor]], specs: dict[str, tf.TensorSpec]
) -> Callable[..., Any]:
    """The graph of the signature: "images_bytes" `[N]` to "images_bytes" `[N]`.

    All images of a request have one size. A generator takes its latents, and gives PNG.

    Args:
        model: what `serve` serves.
        serve: the graph of `serving_default`.
        specs: its inputs.
    """
    given, made = Scale.of(model.source), Scale.of(model.target)

    def answer(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        arrays = list(inputs)
        if "images" in specs:
            arrays[0] = given.physical(decode(inputs[0], specs["images"].shape[1:]))
        images = serve(*arrays)["images"]
        coded = tf.map_fn(_encoded, made.stored(images), fn_output_signature=tf.string)
        return {NAME: coded}

    signature = dict(specs)
    if "images" in specs:
        signature = {NAME: tf.TensorSpec([None], tf.string, name=NAME)}
    return tf.function(answer, input_signature=list(signature.values()), autograph=False)


def question(model: Translator, arrays: dict[str, Any]) -> dict[str, Any]:
    """What this signature is asked, of what `serving_default` is asked: arrays by their names."""
    if "images" not in arrays:
        return arrays
    stored = Scale.of(model.source).stored(arrays["images"])
    return {NAME: np.array([_encoded(image).numpy() for image in stored])}


def _encoded(image: tf.Tensor) -> tf.Tensor:
    # of a 512 x 512 CT slice, level 1 takes a tenth of the usual level's time for 4 % more bytes
    return tf.io.encode_png(image, compression=1)


def decode(coded: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    """PNG `[N]` to uint16 `[N, H, W, C]`, of a shape [H, W, C] whose sides may be free.

    Raises:
        tf.errors.InvalidArgumentError: for what is no PNG of 16 bits, other channels, or images of
            several sizes.
    """

    def one(png: tf.Tensor) -> tf.Tensor:
        # TensorFlow would stretch 8 bits to 16: another image.
        depth = tf.strings.substr(tf.strings.join([png, b"\0" * 32]), _BIT_DEPTH, 1)
        sixteen = tf.debugging.Assert(
            tf.equal(depth, b"\x10"), ["images_bytes: expected PNG of 16 bits a channel"]
        )
        with tf.control_dependencies([sixteen]):
            return tf.ensure_shape(tf.io.decode_png(png, dtype=tf.uint16), shape)

    # Of no image there is no size: any will do.
    sides = [side or 16 for side in shape.as_list()]
    return tf.cond(
        tf.size(coded) > 0,
        lambda: tf.map_fn(one, coded, fn_output_signature=tf.TensorSpec(shape, tf.uint16)),
        lambda: tf.zeros([0, *sides], tf.uint16),
    )
