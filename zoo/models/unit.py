"""UNIT: unpaired translation through a code that two domains share.

Liu, Breuel, Kautz: Unsupervised Image-to-Image Translation Networks, NeurIPS 2017,
arXiv:1703.00848; networks and weights of the authors' later code, which came with MUNIT
(arXiv:1804.04732).

    encoders         7×7-64, 4×4-128 s2, 4×4-256 s2, R256 × 4; instance norm, ReLU
    code             [N, H/4, W/4, 256]; in training N(0, I) is added to it
    decoders         R256 × 4, 2 × (nearest ×2, 5×5, layer norm, ReLU), 7×7-C, tanh
    discriminators   3, of the image and of its averages over 2 and 4 pixels:
                     4×4 s2 64-128-256-512, 1×1; LeakyReLU 0.2, no norm

All layers of size 3 and more pad by reflection. A is the data's source, B its target; an image is
encoded as its own domain's and decoded as the other's. `direction` says which way is served:
`zoo.load(run, direction="BtoA")` turns targets into sources. Input and output `[N, H, W, C]` in
physical units; the intensity windows map them to [-1, 1]. H and W are free, from 5 pixels up:
images are padded to a multiple of 4 and cropped back. Instance and layer norm see a whole tile, so
an image translated in tiles (larger than `tile`) differs a little from one that is not.

    python cli.py --model=unit --dataset=mri_contrast train

What differs from the authors' code, and why:

    here                                      authors           why
    `lambda_perceptual=0`                     1                 its VGG weights are a download
    code noise drawn once a step              for each network  one pass serves both networks
    a border pixel's average over 2×2 or 3×3  2×2, 2×3 or 3×3   as TensorFlow pools
    random crop and flip, no change of size   resized to 512    pixel spacing carries meaning
    `discriminator_init="kaiming"` in the     gaussian          learns in minutes
    small preset
    `ema`, `discriminator_rate`,              none              additions that steady training
    `spectral_norm`
    the paper's weights: lambda_gan=10,       the defaults      the code, and not the paper, is
    lambda_kl=lambda_cycle_kl=0.1,                              what others compare with
    lambda_reconstruction=lambda_cycle=100,
    share_weights=true
"""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import keras
import tensorflow as tf
from keras import layers

import zoo
from zoo import losses, ranges
from zoo.domain import Domain
from zoo.layers import Norm, ReflectionPadding, convolution, scheduled
from zoo.models._two_way import OTHER, TwoWay, TwoWayRecipe, TwoWayTranslator
from zoo.step import adam, batches_seen, descend, example_seeds, follow, random_normal, unscaled


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitRecipe(TwoWayRecipe):
    """Defaults are those of the authors' code; more fields are in `TwoWayRecipe`.

    Attributes:
        halve_every: steps after which the learning rate is halved, again and again.
        weight_decay: times each weight, added to its gradient (L2 in the loss, as PyTorch's Adam).
        base_filters: channels of the encoders' first layer.
        blocks: residual blocks of an encoder, and of a decoder.
        norm: "none" leaves out the decoders' layer norm too.
        share_weights: one last block of both encoders, and one first block of both decoders, as
            in the paper.
        discriminator_filters: channels of the discriminators' first layers, doubled by each.
        discriminator_layers: stride-2 layers of each.
        discriminator_scales: sizes of the image that are judged.
        discriminator_init: "gaussian", N(0, 0.02²), takes long to let a signal through, as there
            is no normalisation; "kaiming" does at once.
        adversarial: kind of GAN loss.
        lambda_reconstruction: L1 between an image and its decoded code.
        lambda_kl: mean square of the codes.
        lambda_cycle_kl: mean square of the translations' codes.
        lambda_perceptual: mean squared difference of instance-normalised features of an image and
            its translation; the authors' 1 needs `extractor`.
        extractor: of those features: vgg19, hed or a weights file (`zoo.losses`).
        extractor_layer: its layer, the authors' is VGG16's block5_conv3; "" takes the usual one.
    """

    steps: ranges.Count = 1_000_000
    learning_rate: ranges.Rate = 1e-4
    crop: ranges.Sides = 256
    flip: bool = True
    halve_every: ranges.Count = 100_000
    weight_decay: ranges.Weight = 1e-4
    base_filters: ranges.Filters = 64
    blocks: Annotated[int, ranges.Range(1, 1024)] = 4
    norm: Literal["instance", "none"] = "instance"
    share_weights: bool = False
    discriminator_filters: ranges.Filters = 64
    discriminator_layers: ranges.Layers = 4
    discriminator_scales: ranges.Levels = 3
    discriminator_init: Literal["gaussian", "kaiming"] = "gaussian"
    adversarial: Literal["lsgan", "bce", "hinge"] = "lsgan"
    lambda_reconstruction: ranges.Weight = 10.0
    lambda_kl: ranges.Weight = 0.01
    lambda_cycle_kl: ranges.Weight = 0.01
    lambda_perceptual: ranges.Weight = 0.0
    extractor: str = "vgg19"
    extractor_layer: str = ""

    SMALL: ClassVar[dict[str, Any]] = {
        "steps": 1500,
        "batch_size": 2,
        "crop": 96,
        "learning_rate": 5e-4,
        "halve_every": 500,
        "base_filters": 16,
        "blocks": 2,
        "discriminator_filters": 16,
        "discriminator_layers": 3,
        "discriminator_scales": 2,
        "discriminator_init": "kaiming",
        "image_every": 250,
        "checkpoint_every": 250,
    }

    GOOD: ClassVar[dict[str, Any]] = {
        "steps": 60_000,
        "batch_size": 2,
        "crop": 128,
        "learning_rate": 2e-4,
        "rate_schedule": "cosine",
        "base_filters": 32,
        "blocks": 3,
        "discriminator_filters": 32,
        "discriminator_layers": 3,
        "discriminator_scales": 2,
        "discriminator_init": "kaiming",
        "discriminator_rate": 8e-4,
        "spectral_norm": True,
        "ema": 0.999,
        "lambda_kl": 1e-3,
        "lambda_cycle_kl": 1e-3,
    }

    def __post_init__(self):
        super().__post_init__()
        # The smallest scale's last stride-2 layer reflects one pixel, and so needs two.
        least = 2 ** (self.discriminator_layers + self.discriminator_scales - 1)
        if any(side < least for side in self.crop_sides):
            raise ValueError(
                f"crop: {self.discriminator_scales} discriminators of {self.discriminator_layers} "
                f"layers need {least} or more. Received: {self.crop}"
            )


def padded(x, filters: int, size: int, stride: int = 1, init: Any = None, **options: Any):
    """A convolution whose reflection padding is the authors': (size - stride + 1) / 2, or so."""
    x = ReflectionPadding((size - 1) // 2)(x)
    # PyTorch's "kaiming_normal": keras's own he_normal is truncated.
    init = init or keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")
    return convolution(filters, size, stride, kernel_initializer=init, **options)(x)


def residual_block(filters: int, norm: Literal["instance", "none"]) -> keras.Model:
    """x + norm(3×3(ReLU(norm(3×3(x)))))."""
    inputs = keras.Input((None, None, filters))
    y = normalised(padded(inputs, filters, 3), norm)
    y = normalised(padded(layers.ReLU()(y), filters, 3), norm)
    return keras.Model(inputs, layers.Add()([inputs, y]))


def normalised(x, norm: Literal["instance", "none"]):
    return x if norm == "none" else Norm(norm)(x)


def encoder(channels: int, recipe: UnitRecipe, last: keras.Model) -> keras.Model:
    """`[N, H, W, channels]` to a code `[N, H/4, W/4, 4·base_filters]`, `last` its last block."""
    inputs = keras.Input((None, None, channels))
    x = padded(inputs, recipe.base_filters, 7)
    x = layers.ReLU()(normalised(x, recipe.norm))
    for level in (1, 2):
        x = padded(x, recipe.base_filters * 2**level, 4, 2)
        x = layers.ReLU()(normalised(x, recipe.norm))
    for _ in range(recipe.blocks - 1):
        x = residual_block(x.shape[-1], recipe.norm)(x)
    return keras.Model(inputs, last(x))


def decoder(outputs: int, recipe: UnitRecipe, first: keras.Model) -> keras.Model:
    """A code to float32 `[N, H, W, outputs]` in [-1, 1], `first` its first block."""
    inputs = keras.Input((None, None, 4 * recipe.base_filters))
    x = first(inputs)
    for _ in range(recipe.blocks - 1):
        x = residual_block(x.shape[-1], recipe.norm)(x)
    for level in (1, 0):
        x = padded(layers.UpSampling2D()(x), recipe.base_filters * 2**level, 5)
        if recipe.norm != "none":  # layer norm: one group of all channels, the authors' gamma
            x = layers.GroupNormalization(1, epsilon=1e-5, gamma_initializer=uniform())(x)
        x = layers.ReLU()(x)
    # Unnormalised features of He's start would saturate the tanh.
    init = keras.initializers.RandomNormal(0.0, 0.02) if recipe.norm == "none" else None
    x = padded(x, outputs, 7, init=init, activation="tanh", dtype="float32")
    return keras.Model(inputs, x)


def uniform() -> keras.initializers.Initializer:
    return keras.initializers.RandomUniform(0.0, 1.0)


def multiscale_discriminator(channels: int, recipe: UnitRecipe) -> keras.Model:
    """`[N, H, W, channels]` to a list of float32 scores, of the image and of its averages."""
    init = keras.initializers.RandomNormal(0.0, 0.02)
    if recipe.discriminator_init == "kaiming":
        init = None  # that of the other convolutions
    options = {"init": init, "spectral_norm": recipe.spectral_norm}
    image = inputs = keras.Input((None, None, channels))
    scores = []
    for scale in range(recipe.discriminator_scales):
        if scale:
            image = layers.AveragePooling2D(3, 2, "same")(image)
        x = image
        for level in range(recipe.discriminator_layers):
            filters = recipe.discriminator_filters * 2**level
            x = padded(x, filters, 4, 2, **options)
            x = layers.LeakyReLU(0.2)(x)
        scores.append(padded(x, 1, 1, dtype="float32", **options))
    return keras.Model(inputs, scores, name="discriminator")


@zoo.register("unit")
class UNIT(TwoWayTranslator):
    """UNIT: two variational autoencoders with one space of codes, and two GANs.

    Example:
        >>> model = zoo.load("unit", base_filters=8, blocks=2, direction="BtoA")
        >>> model.translate(np.zeros([2, 100, 80], "float32")).shape
        (2, 100, 80)
    """

    recipe_class = UnitRecipe
    recipe: UnitRecipe

    def __init__(self, recipe: UnitRecipe, source: Domain, target: Domain, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        a, b = source.channels, target.channels
        if recipe.lambda_perceptual and a != b:
            raise ValueError(
                "lambda_perceptual: source and target need as many channels; set it to 0. "
                f"Received: {a} and {b}"
            )
        self.make_networks()
        self.discriminator_a = multiscale_discriminator(a, recipe)
        self.discriminator_b = multiscale_discriminator(b, recipe)
        self.adversarial = losses.adversarial(recipe.adversarial)

    def generators(self) -> TwoWay:
        recipe, (a, b) = self.recipe, (self.domain_a.channels, self.domain_b.channels)

        def blocks() -> tuple[keras.Model, keras.Model]:
            """Those where the domains meet: one twice, or two."""
            block = residual_block(4 * recipe.base_filters, recipe.norm)
            if recipe.share_weights:
                return block, block
            return block, residual_block(4 * recipe.base_filters, recipe.norm)

        last_a, last_b = blocks()
        encoders = encoder(a, recipe, last_a), encoder(b, recipe, last_b)
        first_a, first_b = blocks()
        decoders = decoder(a, recipe, first_a), decoder(b, recipe, first_b)
        return TwoWay(*encoders, *decoders, recipe.direction)

    @property
    def tile_margin(self) -> int:
        return 24 + 16 * self.recipe.blocks  # half the receptive field, normalisation aside

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)
        recipe = self.recipe

        def halved(rate: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
            return keras.optimizers.schedules.ExponentialDecay(
                rate, recipe.halve_every, 0.5, staircase=True
            )

        rate = scheduled(recipe, recipe.learning_rate, halved)
        judging = scheduled(recipe, recipe.discriminator_rate or recipe.learning_rate, halved)
        self.generator_optimizer = adam(self, self.trained.trainable_variables, rate)
        self.discriminator_optimizer = adam(self, self._judges(), judging)
        if recipe.lambda_perceptual:
            extractor = losses.feature_extractor(recipe.extractor, recipe.extractor_layer)
            features = Norm("instance")(extractor.output)
            self.perceptual = losses.Perceptual(keras.Model(extractor.input, features))

    def _judges(self) -> list:
        return self.discriminator_a.trainable_variables + self.discriminator_b.trainable_variables

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """One step of the discriminators, then one of the generators, the authors' order."""
        recipe = self.recipe
        seen = batches_seen(self.generator_optimizer)
        seeds = example_seeds(batch, batch["source"], seen, recipe.seed)
        real = self.given(batch)
        weights, judges = self.trained.trainable_variables, self._judges()
        with tf.GradientTape() as tape:
            codes = {d: self.encoded(d, real[d]) for d in OTHER}
            noisy = {d: self._noisy(codes[d], seeds, n) for n, d in enumerate(OTHER)}
            fakes = {t: self.decoded(t, noisy[s], real[s]) for s, t in OTHER.items()}
            # The discriminators, in the middle of the generators' pass.
            with tf.GradientTape() as d_tape:
                judged = [self._judged(d, real[d], "real") for d in OTHER]
                judged += [self._judged(d, tf.stop_gradient(fakes[d]), "fake") for d in OTHER]
                d_share = recipe.lambda_gan * tf.add_n(judged)
            descend(self.discriminator_optimizer, d_tape, d_share, judges, recipe.weight_decay)
            # The generators.
            terms = self._terms(real, codes, noisy, fakes, seeds)
            share = self.weighted_sum(terms)
        changed = descend(self.generator_optimizer, tape, share, weights, recipe.weight_decay)
        if recipe.ema:
            follow(self.network, self.trained, recipe.ema, changed)
        logs = {"d_loss": d_share} | terms
        return {name: unscaled(value) for name, value in logs.items()}

    def _terms(
        self, real: dict, codes: dict, noisy: dict, fakes: dict, seeds: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The generators' losses by name, each the sum of both ways, where its weight is not 0."""
        l1, kl = losses.L1(), losses.KullbackLeibler()
        fake_codes = {d: self.encoded(d, fakes[d]) for d in OTHER}
        fake_noisy = {d: self._noisy(fake_codes[d], seeds, 2 + n) for n, d in enumerate(OTHER)}
        return self.both_ways(
            {
                "gan": lambda s, t: self._judged(t, fakes[t], "generator"),
                "reconstruction": lambda s, t: l1(real[s], self.decoded(s, noisy[s], real[s])),
                "kl": lambda s, t: kl(codes[s]),
                "cycle": lambda s, t: l1(real[s], self.decoded(s, fake_noisy[t], fakes[t])),
                "cycle_kl": lambda s, t: kl(fake_codes[t]),
                "perceptual": lambda s, t: self.perceptual(real[s], fakes[t]),
            }
        )

    def _noisy(self, code: tf.Tensor, seeds: tf.Tensor, purpose: int) -> tf.Tensor:
        return code + tf.cast(random_normal(seeds, tuple(code.shape[1:]), 1 + purpose), code.dtype)

    def _judged(self, domain: str, values: tf.Tensor, role: str) -> tf.Tensor:
        """The adversarial loss in a role (real, fake, generator), summed over the scales."""
        scores = self.discriminator(domain)(values, training=True)
        scores = scores if isinstance(scores, list | tuple) else [scores]
        return tf.add_n([getattr(self.adversarial, role)(s) for s in scores])
