"""Encoder-decoder: the U-Net and its relatives, trained on a pixel loss.

Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation,
MICCAI 2015, arXiv:1505.04597. As a translator it is the encoder-decoder of the survey (Kaji and
Kida 2019, figure 1, with 32 filters and not 64).

    level    2 × (3×3 convolution, ReLU), 64·2^l filters
    down     2×2 max-pool             up    2×2 transposed convolution
    skips    concatenation            end   1×1 convolution, linear

Input and output `[N, H, W, C]` in physical units; the intensity windows map them to [-1, 1].
H and W are free: images are padded to a multiple of 2^(levels-1) and cropped back.

    python cli.py --model=encoder_decoder --dataset=ldct train

What differs from the paper, and why:

    here                                      paper             why
    zero-padded convolutions                  unpadded          output of the input's size
    L2 or L1 on intensities, Adam             cross-entropy,    the paper segments
                                              SGD
    `skips`, `downsampling`, `upsampling`,    the defaults      the variants in use
    `norm`, `residual_blocks`
    `output="residual"` in the small preset,  classes           values beyond the window pass
    where source and target share a window                      through; learns in minutes
"""

import dataclasses
from typing import Any, ClassVar, Literal

import keras
import tensorflow as tf
from keras import layers

from zoo.imaging.windows import Domain
from zoo.layers import LinearDecay, Norm, PixelShuffle
from zoo.recipe import Recipe
from zoo.registry import register
from zoo.translator import Translator, scaled


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDecoderRecipe(Recipe):
    """Defaults are the original U-Net's; the rate and the crop are ours.

    Attributes:
        base_filters: channels of the first level; each level doubles them.
        levels: resolutions, the bottleneck included.
        skips: how the encoder's features reach the decoder; "conv" adds them after a 1×1.
        downsampling: 2×2 max-pool, or a stride-2 3×3 convolution.
        upsampling: transposed 2×2, 1×1 with pixel shuffle, or nearest with 3×3.
        norm: normalisation after each 3×3 convolution.
        residual_blocks: residual blocks of two 3×3 convolutions added at the bottleneck.
        loss: pixel loss on values scaled to [-1, 1].
        output: "image", or "residual": the network's output is a correction to its input; "auto"
            takes the residual where source and target share modality, unit and window.
    """

    steps: int = 100_000
    batch_size: int = 4
    learning_rate: float = 1e-4
    crop: int = 256
    flip: bool = True
    base_filters: int = 64
    levels: int = 5
    skips: Literal["concat", "add", "conv", "none"] = "concat"
    downsampling: Literal["pool", "stride"] = "pool"
    upsampling: Literal["deconv", "pixel_shuffle", "resize"] = "deconv"
    norm: Literal["none", "batch", "instance"] = "none"
    residual_blocks: int = 0
    loss: Literal["l2", "l1"] = "l2"
    output: Literal["image", "residual", "auto"] = "image"

    SMALL: ClassVar[dict[str, Any]] = {
        "steps": 2000,
        "batch_size": 8,
        "crop": 96,
        "learning_rate": 5e-4,
        "base_filters": 24,
        "levels": 3,
        "output": "auto",
        "image_every": 250,
        "checkpoint_every": 250,
    }


def encoder_decoder(channels: int, outputs: int, recipe: EncoderDecoderRecipe) -> keras.Model:
    """The network: `[N, H, W, channels]` to float32 `[N, H, W, outputs]`."""

    def convolution(x, filters, size=3, stride=1):
        return layers.Conv2D(filters, size, stride, "same", kernel_initializer="he_normal")(x)

    def block(x, filters):
        for _ in range(2):
            x = layers.ReLU()(norm(convolution(x, filters)))
        return x

    def norm(x):
        return x if recipe.norm == "none" else Norm(recipe.norm)(x)

    def up(x, filters):
        if recipe.upsampling == "deconv":
            return layers.Conv2DTranspose(filters, 2, 2, kernel_initializer="he_normal")(x)
        if recipe.upsampling == "pixel_shuffle":
            return PixelShuffle()(convolution(x, 4 * filters, 1))
        return convolution(layers.UpSampling2D()(x), filters)

    def join(x, skip, filters):
        if recipe.skips == "concat":
            return layers.Concatenate()([skip, x])
        if recipe.skips == "none":
            return x
        return layers.Add()([convolution(skip, filters, 1) if recipe.skips == "conv" else skip, x])

    inputs = keras.Input((None, None, channels))
    x, skips = inputs, []
    for level in range(recipe.levels):
        filters = recipe.base_filters * 2**level
        if level and recipe.downsampling == "pool":
            x = layers.MaxPooling2D()(x)
        elif level:
            x = layers.ReLU()(norm(convolution(x, filters, 3, 2)))
        x = block(x, filters)
        skips.append(x)
    for _ in range(recipe.residual_blocks):
        y = layers.ReLU()(norm(convolution(x, filters)))
        x = layers.Add()([x, norm(convolution(y, filters))])
    for level in reversed(range(recipe.levels - 1)):
        filters = recipe.base_filters * 2**level
        x = block(join(up(x, filters), skips[level], filters), filters)
    # A correction starts from none; an image from small weights.
    start = keras.initializers.RandomNormal(0.0, 0.02)
    x = layers.Conv2D(outputs, 1, kernel_initializer=start, dtype="float32")(x)
    return keras.Model(inputs, x, name="encoder_decoder")


@register("encoder_decoder")
class EncoderDecoder(Translator):
    """A U-Net that translates images.

    Example:
        >>> model = zoo.load("encoder_decoder", base_filters=8, levels=3)
        >>> model.translate(np.zeros([100, 80], "float32")).shape
        (100, 80)
    """

    recipe_class = EncoderDecoderRecipe

    def __init__(self, recipe: EncoderDecoderRecipe, source: Domain, target: Domain, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        self.network = encoder_decoder(source.channels, target.channels, recipe)

    @property
    def size_multiple(self) -> int:
        return 2 ** (self.recipe.levels - 1)

    @property
    def tile_margin(self) -> int:
        # At most half the receptive field: 3×3 convolutions at strides 1, 2, 4 … down and up again.
        return 4 * 2**self.recipe.levels + 2 * self.recipe.residual_blocks * self.size_multiple

    @property
    def residual(self) -> bool:
        return self.residual_output(self.recipe.output)

    def compile(self, **kwargs: Any) -> None:
        super().compile(**kwargs)
        self.network_optimizer = keras.optimizers.Adam(
            LinearDecay(self.recipe.learning_rate, self.recipe.steps)
        )
        self.network_optimizer.build(self.network.trainable_variables)

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """One step on the mean L2 or L1 loss of values scaled to [-1, 1]."""
        weights = self.network.trainable_variables
        with tf.GradientTape() as tape:
            error = self.values(batch["source"], training=True) - self.target_values(
                batch["target"]
            )
            mae = tf.reduce_mean(tf.abs(error))
            loss = mae if self.recipe.loss == "l1" else tf.reduce_mean(tf.square(error))
            share = scaled(loss)
        self.network_optimizer.apply(tape.gradient(share, weights), weights)
        return {"loss": loss, "mae": mae * (self.target.span / 2)}
