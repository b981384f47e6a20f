"""The U-Nets that several models are made of: Ronneberger's with its relatives, and pix2pix's."""

from typing import Any, Literal

import keras
from keras import layers

from zoo.layers import Dropout, Norm, PixelShuffle, convolution, ranked, without_level


def unet(
    channels: int,
    outputs: int,
    *,
    base_filters: int,
    levels: int,
    growth: float = 2.0,
    convolutions: int = 2,
    dimensions: int = 2,
    skips: Literal["concat", "add", "conv", "none"] = "concat",
    downsampling: Literal["pool", "stride"] = "pool",
    upsampling: Literal["deconv", "pixel_shuffle", "resize"] = "deconv",
    norm: Literal["none", "batch", "instance"] = "none",
    equivariant: bool = False,
    residual_blocks: int = 0,
) -> keras.Model:
    """The U-Net of `zoo.models.encoder_decoder`, whose recipe describes the options.

    Returns:
        `[N, H, W, channels]` to float32 `[N, H, W, outputs]`, linear; of 3 `dimensions` volumes.
    """
    bias = not equivariant
    weights: dict[str, Any] = {"use_bias": bias, "kernel_initializer": "he_normal"}

    def conv(x, filters, size=3, stride=1):
        return convolution(filters, size, stride, rank=dimensions, padding="same", **weights)(x)

    def normalised(x):
        return x if norm == "none" else Norm(norm)(x)

    def block(x, filters):
        for _ in range(convolutions):
            x = layers.ReLU()(normalised(conv(x, filters)))
        return x

    def up(x, filters):
        if upsampling == "deconv":
            return ranked("Conv{}DTranspose", dimensions)(filters, 2, 2, **weights)(x)
        if upsampling == "pixel_shuffle":
            return PixelShuffle()(conv(x, 2**dimensions * filters, 1))
        return conv(ranked("UpSampling{}D", dimensions)()(x), filters)

    def join(x, skip, filters):
        if skips == "concat":
            return layers.Concatenate()([skip, x])
        if skips == "none":
            return x
        return layers.Add()([conv(skip, filters, 1) if skips == "conv" else skip, x])

    # Down to the bottleneck.
    inputs = keras.Input((None,) * dimensions + (channels,))
    x = without_level(inputs, base_filters) if equivariant else inputs
    width = [round(base_filters * growth**level) for level in range(levels)]
    features = []
    # Processors have no pooling of volumes in float16; the largest value is the same in float32.
    half = keras.config.dtype_policy().compute_dtype == "float16"
    pooled_in = "float32" if half and dimensions == 3 else None
    for level, filters in enumerate(width):
        if level and downsampling == "pool":
            x = ranked("MaxPooling{}D", dimensions)(dtype=pooled_in)(x)
        elif level:
            x = layers.ReLU()(normalised(conv(x, filters, 3, 2)))
        x = block(x, filters)
        features.append(x)
    for _ in range(residual_blocks):
        y = layers.ReLU()(normalised(conv(x, filters)))
        x = layers.Add()([x, normalised(conv(y, filters))])
    # And up again.
    for level, filters in reversed(list(enumerate(width[:-1]))):
        x = block(join(up(x, filters), features[level], filters), filters)
    # A correction starts from none; an image from small weights.
    start = keras.initializers.RandomNormal(0.0, 0.02)
    last: dict[str, Any] = {"use_bias": bias, "kernel_initializer": start, "dtype": "float32"}
    x = convolution(outputs, 1, rank=dimensions, **last)(x)
    return keras.Model(inputs, x, name="encoder_decoder")


def strided_unet(
    channels: int,
    outputs: int,
    *,
    base_filters: int,
    levels: int,
    dimensions: int = 2,
    activation: str = "tanh",
    refine: int = 0,
    norm: Literal["batch", "instance", "none"] = "batch",
    equivariant: bool = False,
    dropout: float = 0.5,
    test_statistics: Literal["moving", "image"] = "image",
    test_dropout: bool = False,
) -> keras.Model:
    """The generator of `zoo.models.pix2pix`, whose recipe describes the options.

    Returns:
        `[N, H, W, channels]` to float32 `[N, H, W, outputs]`, in [-1, 1] where the `activation` is
        tanh; an equivariant one is linear. Of 3 `dimensions` volumes.
    """
    init = start = keras.initializers.RandomNormal(0.0, 0.02)
    bias = not equivariant
    biased = bias and norm != "batch"  # whose offset makes a bias useless
    if equivariant:
        activation, start = "linear", "he_normal"
    inner: dict[str, Any] = {"padding": "same", "use_bias": biased, "kernel_initializer": start}
    transposed = ranked("Conv{}DTranspose", dimensions)
    width = [base_filters * min(2**level, 8) for level in range(levels)]

    def normalised(x):
        return x if norm == "none" else Norm(norm, inference=test_statistics)(x)

    # Down to the innermost layer.
    inputs = keras.Input((None,) * dimensions + (channels,))
    x = first = without_level(inputs, base_filters) if equivariant else inputs
    skips = []
    for level, filters in enumerate(width):
        if level:
            x = layers.LeakyReLU(0.2)(x)
        x = convolution(filters, 4, 2, rank=dimensions, name=f"down{level}", **inner)(x)
        if 0 < level < levels - 1:
            x = normalised(x)
        skips.append(x)
    # And up again.
    x = skips.pop()
    for level in reversed(range(1, levels)):
        x = layers.ReLU()(x)
        x = transposed(width[level - 1], 4, 2, name=f"up{level}", **inner)(x)
        x = normalised(x)
        if dropout and 3 < level < levels - 1:  # the widest after the innermost
            x = Dropout(dropout, always=test_dropout)(x)
        x = layers.Concatenate()([skips.pop(), x])
    x = layers.ReLU()(x)
    # The output, at full resolution.
    last: dict[str, Any] = {"padding": "same", "use_bias": bias, "kernel_initializer": init}
    exact: dict[str, Any] = {"activation": activation, "dtype": "float32"}  # whatever the rest has
    if refine:
        x = transposed(refine, 4, 2, name="up0", **last)(x)
        x = layers.Concatenate()([first, x])
        for _ in range(2):
            layer = convolution(refine, 3, rank=dimensions, padding="same", use_bias=bias)
            x = layers.ReLU()(layer(x))
        x = convolution(outputs, 3, rank=dimensions, **last, **exact)(x)
    else:
        x = transposed(outputs, 4, 2, name="up0", **last, **exact)(x)
    return keras.Model(inputs, x, name="generator")
