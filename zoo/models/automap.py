"""AUTOMAP: images from k-space or sinograms, by a network that learns the transform itself.

Zhu, Liu, Cauley, Rosen and Rosen: Image reconstruction by domain-transform manifold learning,
Nature 555 (2018), arXiv:1704.08841. For n × n samples of k-space, `variant`:

    automap           2n², FC n² tanh, FC n² tanh, n×n, c5-64 ReLU, c5-64 ReLU, transposed c7-1
    dautomap          n×n×2, 2 × (rows, columns), c5-64 ReLU, c5-64 ReLU, transposed c7-1
    encoder_decoder   2n², FC n² tanh, FC n² tanh, n×n, the U-Net of zoo.models.encoder_decoder
    pix2pix           the same in front of pix2pix's generator, with an adversarial loss

"dautomap" is that of Schlemper et al. 2019 (arXiv:1909.10995), as its authors configured it in
their code: as the two-dimensional DFT is one along each column and one along each row, a learned
transform needs no more; two of them, with ReLU after each map, stand for AUTOMAP's two layers.
"rows" is

    y[h', w, c'] = sum over h, c of x[h, w, c] K[h, c, h', c'] + b[h', c'],

one linear map for all columns w; "columns" is the same along w. Real and imaginary parts are
channels, so that the inverse DFT is one such pair of maps. A map has (2n)² + 2n parameters, and
AUTOMAP's first layer 2n⁴ + n²: n of 256 and more become possible. With `transforms=1` and
`transform_activation=none`, the small preset's, there is one pair and nothing between or after its
maps, which can be the inverse DFT itself.

A sinogram of V views and D detectors has V·D values in place of the 2n², and the first maps of
"dautomap" lead from V rows to n and from D columns to n. The Radon transform is no product of two
such maps, though: what they cannot do is left to the convolutions, so that "automap" is the better
one where it fits into memory.

Input `[N, n, n, 2]`, k-space as (real, imaginary), or `[N, V, D, 1]`, line integrals; output
`[N, n, n, 1]`, both in physical units. A network holds for one size. Inside, k-space is counted in
half spans of the target's window: as the DFT is unitary its values then have the size of the
image's, and the inverse DFT would give the image. The output of the first two variants is counted
from the window's lower end, so that air is 0.

    python cli.py --model=automap --dataset=mri_recon train

What differs from the papers, and why:

    here                                      papers            why
    the loss is divided by n²                 sums              one rate for all n; RMSprop takes
                                                                no notice of the factor
    the maps start from values that keep the  Xavier's range    which for these shapes would let
    signal's size                                               hardly anything through
    one linear transform in the small preset  two with ReLU     learns in minutes
    the adversarial loss judges images alone  not in them       a patch of k-space belongs to no
                                                                patch of the image
"""

import dataclasses
import math
from typing import Annotated, Any, ClassVar, Literal, Self

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import zoo
from zoo import ranges
from zoo.domain import Domain
from zoo.layers import LinearDecay, constant, patch_gan, scheduled, step_seeds
from zoo.losses import L2, adversarial
from zoo.models._measured import MeasuredRecipe
from zoo.models._unet import strided_unet, unet
from zoo.recipe import DataFacts, Phase
from zoo.step import (
    adam,
    batches_seen,
    descend,
    example_seeds,
    forward_flops,
    random_uniform,
    ready,
    scaled,
    unscaled,
)
from zoo.translator import Translator

JITTER = 1  # purpose of the random numbers in a step


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutomapRecipe(MeasuredRecipe):
    """Defaults are the paper's (Methods); the number of steps is ours.

    Attributes:
        variant: see above.
        n: height and width of the image; 0 takes the data's, 64 where there are none.
        sensors: rows and columns of the measurement, of a sinogram its views and detectors;
            0, 0: n and n, or the data's.
        filters: channels of the 5×5 convolutions.
        activity: weight of the mean |activation| of the second convolution, summed over channels
            ("automap" and "dautomap").
        rms_decay: of RMSprop's running mean of squared gradients.
        decay: of the learning rate; "linear" takes it to zero over the second half of the run.
        jitter: k-space is multiplied by values from U(1 - jitter, 1 + jitter) in training.
        transforms: pairs of maps, along rows and along columns, of "dautomap".
        transform_activation: after each of these maps.
        transform_channels: channels after each of them.
        base_filters: channels of the first level of the U-Nets.
        levels: levels of the U-Nets; n is a multiple of 2^levels.
        lambda_gan: weight of the adversarial loss of "pix2pix".
        spectral_norm: normalise the kernels of its discriminator spectrally.
        max_gigabytes: a model whose weights, gradients and optimizer take more is refused.
    """

    steps: ranges.Count = 100_000
    batch_size: ranges.Batch = 100
    learning_rate: ranges.Rate = 2e-5
    variant: Literal["automap", "dautomap", "encoder_decoder", "pix2pix"] = "automap"
    n: ranges.Pixels = 0
    sensors: tuple[ranges.Pixels, ranges.Pixels] = (0, 0)
    filters: ranges.Filters = 64
    activity: ranges.Weight = 1e-4
    rms_decay: ranges.Fraction = 0.9
    decay: Literal["constant", "linear"] = "constant"
    jitter: ranges.Fraction = 0.01
    transforms: Annotated[int, ranges.Range(1, 64)] = 2
    transform_activation: Literal["relu", "tanh", "none"] = "relu"
    transform_channels: ranges.Filters = 2
    base_filters: ranges.Filters = 64
    levels: ranges.Levels = 4
    lambda_gan: ranges.Weight = 0.01
    spectral_norm: bool = False
    max_gigabytes: Annotated[float, ranges.Range(0, below=10**6)] = 10.0

    SMALL: ClassVar[dict[str, Any]] = {
        "steps": 2000,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "variant": "dautomap",
        "transforms": 1,
        "transform_activation": "none",
        "filters": 24,
        "image_every": 250,
        "checkpoint_every": 500,
    }

    GOOD: ClassVar[dict[str, Any]] = {
        "steps": 60_000,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "rate_schedule": "cosine",
        "variant": "dautomap",
        "transforms": 1,
        "transform_activation": "none",
        "filters": 32,
    }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "AutomapRecipe":
        """The recipe that `to_dict` described; where it names no transforms, one linear pair."""
        return super().from_dict({"transforms": 1, "transform_activation": "none"} | fields)

    @property
    def side(self) -> int:
        """Height and width, in pixels."""
        return self.n or 64

    @property
    def measured(self) -> tuple[int, int]:
        """Rows and columns of the measurement."""
        return self.sensors if any(self.sensors) else (self.side, self.side)

    @property
    def fully_connected(self) -> bool:
        """Whether two fully connected layers make up the transform."""
        return self.variant != "dautomap"

    @property
    def ends_in_unet(self) -> bool:
        """Whether a U-Net follows the transform, and not three convolutions."""
        return self.variant in ("encoder_decoder", "pix2pix")

    def resolve(self, facts: DataFacts) -> Self:
        """The recipe with n and the sensors as the data have them.

        Raises:
            ValueError: for images that are not square or of another n, measurements of other
                sensors, and for networks that would not fit into memory.
        """
        source, shape = facts.source_shape, facts.target_shape
        if source is None or shape is None or len(set(shape)) != 1 or self.n not in (0, shape[0]):
            wanted = f"{self.n} x {self.n}" if self.n else "square"
            received = " x ".join(map(str, shape)) if source and shape else "several sizes"
            raise ValueError(f"n: expected data that are all {wanted}. Received: {received}")
        rows, columns = source
        if any(self.sensors) and self.sensors != source:
            raise ValueError(
                f"sensors: expected the data's, {rows} x {columns}. "
                f"Received: {self.sensors[0]} x {self.sensors[1]}"
            )
        sensors = (0, 0) if source == shape else (rows, columns)
        recipe = dataclasses.replace(self, n=shape[0], sensors=sensors)
        check_size(recipe, 1 if any(sensors) else 2)
        return recipe


# Size.


def dense_count(n: int, values: int) -> int:
    """Parameters of the two fully connected layers, from so many values to n² to n²."""
    return n**2 * (values + 1) + n**2 * (n**2 + 1)


def parameter_count(n: int, channels: int = 2, filters: int = 64) -> int:
    """Parameters of the variant "automap", without building it."""
    convolutions = 25 * filters + filters + 25 * filters**2 + filters + 49 * filters + 1
    return dense_count(n, channels * n**2) + convolutions


def transform_count(recipe: AutomapRecipe, channels: int = 2) -> int:
    """Parameters of the maps of "dautomap": for n x n k-space (2n)² + 2n each."""
    n, (length, other) = recipe.side, recipe.measured
    count, width = 0, recipe.transform_channels
    for _ in range(recipe.transforms):
        count += (length * channels + other * width) * n * width + 2 * n * width
        length, other, channels = n, n, width
    return count


def check_size(recipe: AutomapRecipe, channels: int = 2) -> None:
    """Refuse a network whose fully connected layers do not fit into memory.

    Raises:
        ValueError: naming what is needed and what would fit.
    """
    if not recipe.fully_connected:
        return
    n, (rows, columns) = recipe.side, recipe.measured
    count = dense_count(n, channels * rows * columns)
    # Four bytes each for a weight, its gradient and RMSprop's mean of squares.
    gigabytes = 12e-9 * count
    if gigabytes > recipe.max_gigabytes:
        weights = recipe.max_gigabytes / 12e-9
        if any(recipe.sensors):
            half = channels * rows * columns / 2
            largest = math.floor(math.sqrt(math.sqrt(half**2 + weights) - half))
        else:
            largest = math.floor((weights / (channels + 1)) ** 0.25)
        transforms = transform_count(recipe, channels)
        raise ValueError(
            f"n: expected at most {largest}, because two fully connected layers for {n} x {n} "
            f"pixels have {count:,} weights, which with gradients and optimizer take "
            f"{gigabytes:,.1f} GB, and max_gigabytes is {recipe.max_gigabytes:g}. What would fit: "
            f"variant=dautomap, whose transforms have {transforms:,} weights. "
            f"Received: n={n}, variant={recipe.variant}"
        )


# Networks.


@keras.saving.register_keras_serializable(package="zoo")
class AxisTransform(layers.Layer):
    """One learned linear map along an axis of images, which mixes the channels.

    `[N, H, w, C]` to `[N, length, w, filters]` for axis 1, `[N, h, W, C]` to `[N, h, length,
    filters]` for axis 2: the equation of "rows" above.

    Args:
        length: of the result along the axis.
        filters: channels of the result.
        axis: 1 for rows, 2 for columns.
        activation: of the result, by Keras's name for it.
    """

    def __init__(
        self, length: int, filters: int, axis: int, activation: str = "linear", **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.length, self.filters, self.axis = length, filters, axis
        self.activation = keras.activations.get(activation)

    def build(self, shape: tuple) -> None:
        n, channels = shape[self.axis], shape[-1]
        # Keeps the values' size, as a unitary map does; ReLU takes half of their squares away.
        gain = 2.0 if self.activation is keras.activations.relu else 1.0
        deviation = math.sqrt(gain / (n * channels))
        self.kernel = self.add_weight(
            name="kernel",
            shape=(n, channels, self.length, self.filters),
            initializer=keras.initializers.RandomNormal(0.0, deviation),
        )
        bias = (self.length, self.filters)
        self.bias = self.add_weight(name="bias", shape=bias, initializer="zeros")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        if self.axis == 1:
            x = tf.einsum("nhwc,hcid->niwd", x, self.kernel) + self.bias[:, None]
        else:
            x = tf.einsum("nhwc,wcid->nhid", x, self.kernel) + self.bias
        return self.activation(x)

    def compute_output_shape(self, shape: tuple) -> tuple:
        sides = list(shape[1:3])
        sides[self.axis - 1] = self.length
        return (shape[0], *sides, self.filters)

    def get_config(self) -> dict[str, Any]:
        own = {"length": self.length, "filters": self.filters, "axis": self.axis}
        activation = keras.activations.serialize(self.activation)
        return super().get_config() | own | {"activation": activation}


def automap(channels: int, outputs: int, recipe: AutomapRecipe, gain: float = 1.0) -> keras.Model:
    """The network of any variant: `[N, V, D, channels]` to float32 `[N, n, n, outputs]`.

    Args:
        channels, outputs: of input and output.
        recipe: variant and widths.
        gain: multiplies the input.
    """
    n = recipe.side
    inputs = keras.Input((*recipe.measured, channels))
    x = layers.Rescaling(gain, dtype="float32")(inputs)
    if recipe.fully_connected:
        x = layers.Flatten()(x)
        for _ in range(2):
            x = layers.Dense(n * n, activation="tanh")(x)
        x = layers.Reshape((n, n, 1))(x)
    else:
        # In float32, because the zero frequency is far above the others.
        activation = recipe.transform_activation.replace("none", "linear")
        options = {"activation": activation, "dtype": "float32"}
        for axis in (1, 2) * recipe.transforms:
            x = AxisTransform(n, recipe.transform_channels, axis, **options)(x)
    x = layers.Identity(name="transform")(x)
    if recipe.variant == "encoder_decoder":
        x = unet(1, outputs, base_filters=recipe.base_filters, levels=recipe.levels + 1)(x)
    elif recipe.variant == "pix2pix":
        x = strided_unet(1, outputs, base_filters=recipe.base_filters, levels=recipe.levels)(x)
    else:
        x = layers.Conv2D(recipe.filters, 5, padding="same", activation="relu")(x)
        x = layers.Conv2D(recipe.filters, 5, padding="same", activation="relu", name="features")(x)
        x = layers.Conv2DTranspose(outputs, 7, padding="same", dtype="float32")(x)
        x = layers.Rescaling(1.0, -1.0, dtype="float32")(x)
    return keras.Model(inputs, x, name="automap")


@zoo.register("automap")
class Automap(Translator):
    """AUTOMAP and its relatives: k-space or sinograms to images of one size.

    Example:
        >>> kspace = Domain(modality="MR", unit="k-space", window=(-16, 16), channels=2)
        >>> model = zoo.load("automap", n=32, source=kspace)
        >>> model.translate(np.zeros([5, 32, 32, 2], "float32")).shape
        (5, 32, 32, 1)
    """

    recipe_class = AutomapRecipe
    recipe: AutomapRecipe
    takes = ("k-space", "sinograms")

    def __init__(self, recipe: AutomapRecipe, source: Domain, target: Domain, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        check_size(recipe, source.channels)
        if recipe.ends_in_unet and recipe.side % 2**recipe.levels:
            raise ValueError(
                f"levels: expected {recipe.side} pixels to be a multiple of 2^levels. "
                f"Received: {recipe.levels}"
            )
        gain = source.span / target.span if source.unit == "k-space" else 1.0
        self.network = automap(source.channels, target.channels, recipe, gain)
        if recipe.variant == "pix2pix":
            filters, spectral = recipe.base_filters, recipe.spectral_norm
            self.discriminator = patch_gan(target.channels, filters, 2, spectral_norm=spectral)
        # What the loss is computed from: the output and, where it is penalised, an activation.
        outputs = [self.network.output]
        if not recipe.ends_in_unet:
            outputs.append(self.network.get_layer("features").output)
        self.learner = keras.Model(self.network.input, outputs)

    @property
    def tiles(self) -> bool:
        return False  # the layers are made for one size

    @property
    def optimizers(self) -> tuple[str, ...]:
        several = self.recipe.variant == "pix2pix"
        return ("network_optimizer", "discriminator_optimizer") if several else ("optimizer",)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)
        recipe = self.recipe
        own = LinearDecay if recipe.decay == "linear" else constant
        rate = scheduled(recipe, recipe.learning_rate, own)
        if self.optimizer is None:
            # Keras's epsilon would outweigh the squared gradients of so many weights.
            self.optimizer = keras.optimizers.RMSprop(rate, rho=recipe.rms_decay, epsilon=1e-16)
        self.network_optimizer = ready(self, self.network.trainable_variables, self.optimizer)
        if recipe.variant == "pix2pix":
            weights = self.discriminator.trainable_variables
            self.discriminator_optimizer = adam(self, weights, 2e-4)

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """One step on the squared error, with the variant's other terms."""
        recipe = self.recipe
        source = self.source.encode(tf.cast(batch["source"], tf.float32))
        target = self.target.encode(tf.cast(batch["target"], tf.float32))
        seen = batches_seen(self.network_optimizer)
        seeds = example_seeds(batch, source, seen, recipe.seed)
        if recipe.jitter:
            noise = random_uniform(seeds, tuple(source.shape[1:]), JITTER)
            source *= 1.0 + recipe.jitter * (2.0 * noise - 1.0)
        logs = {}
        with tf.GradientTape() as tape:
            with step_seeds(seeds):
                output, *features = tf.nest.flatten(self.learner(source, training=True))
            error = L2()(target, output)
            share = error
            for activation in features:
                activity = tf.abs(tf.cast(activation, tf.float32))
                activity = tf.reduce_mean(tf.reduce_sum(activity, axis=-1))
                share += scaled(recipe.activity * activity)
            if recipe.variant == "pix2pix":
                gan, logs = self._adversarial(target, output)
                share += recipe.lambda_gan * gan
        descend(self.network_optimizer, tape, share, self.network.trainable_variables)
        mae = tf.reduce_mean(tf.abs(output - target)) * (self.target.span / 2)
        return {"loss": unscaled(share), "mae": mae} | logs

    def _adversarial(self, real: tf.Tensor, fake: tf.Tensor):
        """The generator's share of the loss, after one update of the discriminator; logs."""
        loss, weights = adversarial("bce"), self.discriminator.trainable_variables
        judge = lambda images: self.discriminator(images, training=True)  # noqa: E731
        with tf.GradientTape() as tape:
            d_share = 0.5 * (loss.real(judge(real)) + loss.fake(judge(tf.stop_gradient(fake))))
        descend(self.discriminator_optimizer, tape, d_share, weights)
        gan = loss.generator(judge(fake))
        return gan, {"d_loss": unscaled(d_share), "g_gan": unscaled(gan)}

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Reconstruct images.

        Args:
            images: `[N, n, n, C]`, or `[N, V, D, C]`, in the source's unit.
            training: whether dropout and batch statistics are those of training.

        Returns:
            float32 `[N, n, n, C']` in the target's unit.

        Raises:
            ValueError: for another size than the network's.
        """
        self._check_shape(images.shape)
        return super().call(images, training)

    def translate(self, array: np.ndarray, batch_size: int = 1) -> np.ndarray:
        if np.ndim(array) == 4:  # the base refuses other ranks where there are several channels
            self._check_shape(np.shape(array))
        return super().translate(array, batch_size)

    def _check_shape(self, shape: tuple) -> None:
        rows, columns = self.recipe.measured
        if shape[1] not in (rows, None) or shape[2] not in (columns, None):
            raise ValueError(
                f"array: expected {self.source.words} of {rows} x {columns}, for which the network "
                f"was made. Received: shape {tuple(shape)}"
            )

    def training_flops(self, phase: Phase, sides: tuple[int, ...]) -> float:
        flops = 3.0 * forward_flops(self.network, self.network.input_shape[1:])
        if self.recipe.variant == "pix2pix":
            flops += 8.0 * forward_flops(self.discriminator, self.network.output_shape[1:])
        return phase.batch_size * flops
