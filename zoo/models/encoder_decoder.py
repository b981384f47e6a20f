"""Encoder-decoder: the U-Net and its relatives, trained on a pixel loss.

Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation,
MICCAI 2015, arXiv:1505.04597. As a translator it is the encoder-decoder of the survey (Kaji and
Kida 2019, figure 1, with 32 filters and not 64).

    level    2 × (3×3 convolution, ReLU), 64·2^l filters
    down     2×2 max-pool             up    2×2 transposed convolution
    skips    concatenation            end   1×1 convolution, linear

Input and output `[N, H, W, C]` in physical units; the intensity windows map them to [-1, 1].
H and W are free: images are padded to a multiple of 2^(levels-1) and cropped back. Where the
target holds classes the output is a label map: the class of each pixel. With `dimensions=3` all
of it has a third axis, `[N, D, H, W, C]`, as in the 3D U-Net (Çiçek et al. 2016, arXiv:1606.06650).

    python cli.py --model=encoder_decoder --dataset=ldct train
    python cli.py --model=encoder_decoder --dataset=brain_seg train

What differs from the paper, and why:

    here                                      paper             why
    zero-padded convolutions                  unpadded          output of the input's size
    L2 or another loss on intensities; Adam   cross-entropy,    the paper segments; classes
                                              SGD               take cross-entropy here too
    `skips`, `downsampling`, `upsampling`,    the defaults      the variants in use
    `norm`, `residual_blocks`
    `growth`, `convolutions`                  2, 2              networks of few operations, which
                                                                spend them at full resolution
    `equivariant`, `relative`                 none              noise of any level at any HU
    `registration`                            none              pairs that do not lie quite on
                                                                each other
    `teacher`                                 none              what a large network learned, in
                                                                a small one
    `quantiles`                               none              where the output may be wrong, and
                                                                by how much
    `output="residual"` in the small preset,  classes           values beyond the window pass
    where source and target share a window                      through; learns in minutes
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import tensorflow as tf

import zoo
from zoo import losses, ranges, step
from zoo.domain import Domain
from zoo.layers import LinearDecay, scheduled
from zoo.models import _quantiles, _registration
from zoo.models._unet import unet
from zoo.recipe import Recipe
from zoo.step import adam, batches_seen, descend, example_seeds, ready, unscaled
from zoo.translator import Translator

PIXEL_LOSSES = {
    "l2": losses.L2,
    "l1": losses.L1,
    "charbonnier": losses.Charbonnier,
    "structure": losses.Structure,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDecoderRecipe(Recipe):
    """Defaults are the original U-Net's; the rate and the crop are ours.

    Attributes:
        dimensions: 2 for images, 3 for volumes.
        base_filters: channels of the first level.
        levels: resolutions, the bottleneck included.
        growth: how many times as many channels each level has as the one above it.
        convolutions: 3×3 convolutions of each level, on the way down and on the way up.
        skips: how the encoder's features reach the decoder; "conv" adds them after a 1×1.
        downsampling: 2×2 max-pool, or a stride-2 3×3 convolution.
        upsampling: transposed 2×2, 1×1 with pixel shuffle, or nearest with 3×3.
        norm: normalisation after each 3×3 convolution.
        equivariant: leave all biases out and let the first kernels have mean 0. With a residual
            output and no norm the network then restores a x + b as it restores x, times a, plus b
            (Herbreteau, Moebel, Kervrann 2023, arXiv:2306.05037): what it learns at one noise and
            one HU it knows at all of them.
        residual_blocks: residual blocks of two 3×3 convolutions added at the bottleneck.
        loss: pixel loss on values scaled to [-1, 1]; see `zoo.losses`.
        relative: divide an example's values by its input's mean absolute error first, so that
            weak noise counts as much as strong. Source and target share a window; "auto" does it
            where they are one domain.
        lambda_perceptual: weight of the perceptual loss beside it (Yang et al. 2018,
            arXiv:1708.00961).
        extractor: whose features that compares: "vgg19", "hed" or a file of weights.
        classes: of a data set that does not say it: the target is a label map of so many.
        label_names: of the classes; the data's own where this is left empty.
        focal_gamma: exponent of the focal cross-entropy of classes; 0 is cross-entropy.
        lambda_dice: weight of the soft Dice loss of classes.
        registration: let a small network predict how each target is displaced from the output, and
            compare them there (RegGAN, Kong et al. 2021, arXiv:2110.06465): for pairs that do not
            lie quite on each other. It is thrown away after training.
        teacher: a pretrained model or a run folder, of the same domains, whose output a smaller
            network learns to give ("distillation"); "" learns from the targets alone.
        teacher_share: of the loss, what is measured against the teacher's output; the rest is
            against the target.
        quantiles: let the network give a lower and an upper bound of each pixel beside it, by the
            pinball loss, whose weight is 1; `calibrate` scales what lies between them to intervals.
        output: "image", or "residual": the network's output is a correction to its input; "auto"
            takes the residual where source and target share modality, unit and window.
    """

    steps: ranges.Count = 100_000
    batch_size: ranges.Batch = 4
    learning_rate: ranges.Rate = 1e-4
    crop: ranges.Sides = 256
    flip: bool = True
    dimensions: Literal[2, 3] = 2
    base_filters: ranges.Filters = 64
    levels: ranges.Levels = 5
    growth: Annotated[float, ranges.Range(1, 4)] = 2.0
    convolutions: Annotated[int, ranges.Range(1, 8)] = 2
    skips: Literal["concat", "add", "conv", "none"] = "concat"
    downsampling: Literal["pool", "stride"] = "pool"
    upsampling: Literal["deconv", "pixel_shuffle", "resize"] = "deconv"
    norm: Literal["none", "batch", "instance"] = "none"
    equivariant: bool = False
    residual_blocks: ranges.Blocks = 0
    loss: Literal["l2", "l1", "charbonnier", "structure"] = "l2"
    relative: Literal[False, True, "auto"] = False
    lambda_perceptual: ranges.Weight = 0.0
    extractor: str = "vgg19"
    classes: ranges.Classes = 0
    label_names: tuple[str, ...] = ()
    focal_gamma: Annotated[float, ranges.Range(0, 100)] = 2.0
    lambda_dice: ranges.Weight = 1.0
    registration: bool = False
    teacher: str = ""
    teacher_share: Annotated[float, ranges.Range(0, 1)] = 1.0
    quantiles: bool = False
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

    GOOD: ClassVar[dict[str, Any]] = {
        "steps": 80_000,
        "batch_size": 8,
        "crop": 128,
        "learning_rate": 5e-4,
        "rate_schedule": "cosine",
        "base_filters": 48,
        "levels": 4,
        "skips": "add",
        "loss": "l1",
        "relative": "auto",
        "output": "auto",
    }

    def __post_init__(self):
        super().__post_init__()
        _quantiles.check_recipe(self)

    @property
    def size_multiple(self) -> int:
        return 2 ** (self.levels - 1)


@zoo.register("encoder_decoder")
class EncoderDecoder(_quantiles.WithQuantiles):
    """A U-Net that translates images.

    Example:
        >>> model = zoo.load("encoder_decoder", base_filters=8, levels=3)
        >>> model.translate(np.zeros([100, 80], "float32")).shape
        (100, 80)
    """

    recipe_class = EncoderDecoderRecipe
    recipe: EncoderDecoderRecipe
    classifies = True

    def __init__(self, recipe: EncoderDecoderRecipe, source: Domain, target: Domain, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        self.relative = self.of_one_domain("relative")
        self.network = unet(
            source.channels,
            self.outputs(),
            base_filters=recipe.base_filters,
            levels=recipe.levels,
            growth=recipe.growth,
            convolutions=recipe.convolutions,
            dimensions=recipe.dimensions,
            skips=recipe.skips,
            downsampling=recipe.downsampling,
            upsampling=recipe.upsampling,
            norm=recipe.norm,
            equivariant=recipe.equivariant,
            residual_blocks=recipe.residual_blocks,
        )
        if recipe.registration:
            self.registration = _registration.Registration(self)

    @property
    def tile_margin(self) -> int:
        # At most half the receptive field: 3×3 convolutions at strides 1, 2, 4 … down and up again.
        reach = 2 * self.recipe.convolutions * 2**self.recipe.levels
        return reach + 2 * self.recipe.residual_blocks * self.size_multiple

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)
        if self.optimizer is None:
            rate = scheduled(self.recipe, self.recipe.learning_rate, LinearDecay)
            self.optimizer = step.Adam(rate)
        self.network_optimizer = ready(self, self.network.trainable_variables, self.optimizer)
        recipe = self.recipe
        if recipe.teacher:
            self.taught = _teacher(recipe.teacher, self)
        if recipe.registration:
            weights = self.registration.trainable_variables
            self.registration_optimizer = adam(self, weights, _registration.RATE)
        if self.classes:
            self.terms = losses.classification(recipe.focal_gamma, recipe.lambda_dice)
        else:
            self.terms = [(1.0, PIXEL_LOSSES[recipe.loss]())]
            if recipe.lambda_perceptual:
                features = losses.Perceptual(losses.feature_extractor(recipe.extractor))
                self.terms.append((recipe.lambda_perceptual, features))

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """One step on the recipe's losses of values scaled to [-1, 1], or of classes."""
        target = self.target_values(batch["target"])
        with tf.GradientTape() as tape:
            heads = self.heads(batch["source"], training=True)
            values = self.estimate(heads)
            if self.recipe.registration:
                values = self._registered(batch, values, target)
            share = self._loss(batch["source"], target, values)
            if self.recipe.quantiles:
                share += self.pinball(heads, target, self._error(batch["source"], target))
        descend(self.network_optimizer, tape, share, self.network.trainable_variables)
        return {"loss": unscaled(share)} | self.pixel_logs(values, target)

    def _registered(self, batch: dict, values: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """The output where its target lies, if its registration has found it by now."""
        recipe, optimizer = self.recipe, self.registration_optimizer
        seeds = example_seeds(batch, batch["source"], batches_seen(optimizer), recipe.seed)
        images = self.source.encode(batch["source"]), values, target
        return _registration.register(self.registration, optimizer, recipe.steps, seeds, *images)

    def _error(self, source: tf.Tensor, target: tf.Tensor) -> Any:
        """What values are divided by: the input's error of each example, or nothing."""
        return losses.input_error(self.source.encode(source), target) if self.relative else 1.0

    def _loss(self, source: tf.Tensor, target: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """The recipe's losses of values scaled to [-1, 1], or of classes."""
        error = self._error(source, target)
        wanted = [(1.0, target)]
        if self.recipe.teacher:
            share = self.recipe.teacher_share
            wanted = [(share, self.taught(source)), (1.0 - share, target)]
        total = 0.0
        for share, truth in wanted:
            for weight, loss in self.terms if share else ():
                total += share * weight * loss(truth / error, values / error)
        return total


def _teacher(name: str, student: Translator) -> Callable[[tf.Tensor], tf.Tensor]:
    """What a teacher gives for sources in physical units: values scaled to [-1, 1].

    A function, so that Keras neither trains nor stores the teacher.

    Raises:
        ValueError: for a model of other domains, or of classes.
    """
    teacher = zoo.load(name)
    of_one_kind = all(
        (mine.modality, mine.unit, mine.channels) == (own.modality, own.unit, own.channels)
        for mine, own in ((student.source, teacher.source), (student.target, teacher.target))
    )
    if not of_one_kind or student.classes or student.scale != teacher.scale:
        raise ValueError(
            f"teacher: expected a model from {_kind(student.source)} to {_kind(student.target)}. "
            f"Received: {name}, from {_kind(teacher.source)} to {_kind(teacher.target)}"
        )
    return lambda source: tf.stop_gradient(student.target.encode(teacher(source, training=False)))


def _kind(domain: Domain) -> str:
    return f"{domain.modality} in {domain.unit}"
