"""CycleGAN: translation between two sets of images that show different patients.

Zhu, Park, Isola, Efros: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks, ICCV 2017, arXiv:1703.10593.

    generators (ResNet)      c7s1-64, d128, d256, R256 × blocks, u128, u64, c7s1-C, tanh
                             reflection padding, instance norm, ReLU
    discriminators (70×70)   C64-C128-C256-C512(s1)-C1(s1), instance norm, LeakyReLU 0.2

A is the data's source, B its target. Both generators are trained; `direction` says which one is
served: `zoo.load(run, direction="BtoA")` turns targets into sources.
Input and output `[N, H, W, C]` in physical units; the intensity windows map them to [-1, 1].
H and W are free, from 5 pixels up: images are padded to a multiple of 4 and cropped back. Instance
norm sees a whole tile, so an image translated in tiles (larger than `tile`) differs a little from
one that is not.

    python cli.py --model=cyclegan --dataset=mri_contrast train

What differs from the paper, and why:

    here                                      paper             why
    random crop and flip, no change of size   286 -> 256 pixels pixel spacing carries meaning
    He's start of networks without norm       N(0, 0.02²)       which lets hardly anything through
    in the small preset: spectral norm and    instance norm     learns in minutes, and oscillates
    no other in the discriminators, which                       less; the average lies in the middle
    learn twice as fast; an average of the
    generators' weights
    lambda_identity=0 in the small preset     5, or 0           the authors take it for paintings
    the additions below, all 0                none              for medical images

Additions: `lambda_gradient` Hiasa et al. 2018, arXiv:1803.06629; `lambda_shape` Zhang, Yang and
Zheng 2018, arXiv:1802.09655 (segmentors learn from real images only, beside the generators);
`lambda_perceptual` Johnson et al. 2016, arXiv:1603.08155; `lambda_air`, `lambda_idempotence`,
`lambda_autoencoding`, `lambda_latent` and `lambda_tv` as Kaji and Kida 2019 (Radiological Physics
and Technology 12, 235-248) and their code use them.
"""

import dataclasses
import functools
from typing import Annotated, Any, ClassVar, Literal, Self

import keras
import tensorflow as tf
from keras import layers

import zoo
from zoo import losses, ranges
from zoo.domain import Domain
from zoo.layers import (
    Conv2DTranspose,
    LinearDecay,
    Norm,
    ReflectionPadding,
    convolution,
    float32_judge,
    patch_gan,
    ranked,
    require_patches,
    scheduled,
)
from zoo.models._two_way import OTHER, TwoWay, TwoWayRecipe, TwoWayTranslator
from zoo.models._unet import unet
from zoo.recipe import DataFacts
from zoo.step import (
    adam,
    batches_seen,
    descend,
    example_seeds,
    follow,
    random_uniform,
    scaled,
    unscaled,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CycleGANRecipe(TwoWayRecipe):
    """Defaults are the paper's (§4 and §7), the additions off; more fields are in `TwoWayRecipe`.

    Attributes:
        steps: the paper trains 200 epochs; the second half decays the rate linearly to zero.
        dimensions: 2 for images, 3 for volumes.
        base_filters: channels of the generators' first layer.
        blocks: residual blocks; 9, or 6 for 128×128 pixels.
        norm: normalisation in the generators.
        output: "image", or "residual": a generator's tanh is a correction to its input; "auto"
            takes the residual where A and B share modality, unit and window.
        share_encoder: one encoder for both domains, half of each generator.
        discriminator_filters: channels of the discriminators' first layer.
        discriminator_layers: stride-2 layers of the PatchGAN; 3 see 70×70 pixels.
        discriminator_norm: normalisation in the discriminators.
        adversarial: kind of GAN loss; "wgan" adds a gradient penalty of weight 10.
        buffer: generated images kept for the discriminators; 0 shows them the newest only.
        lambda_identity: L1 between an image and its translation into its own domain.
        lambda_gradient: 1 - gradient correlation of an image and its translation (about 1).
        lambda_shape: cross-entropy of a segmentor's answer on the translation and the labels of
            the original; the data need "source_label" and "target_label".
        shape_classes: number of those labels; 0 takes the data set's.
        lambda_air: L1 where only one of image and translation is air.
        air_threshold: what lies below is air, in the unit of both domains.
        lambda_perceptual: mean squared difference of features of an image and its translation.
        extractor: of those features: vgg19, hed or a weights file (`zoo.losses`).
        extractor_layer: its layer; "" takes the extractor's usual one.
        lambda_idempotence: L1 between a translation and what the same generator makes of it.
        lambda_autoencoding: L1 between an image and what its own domain's decoder makes of its
            code.
        lambda_latent: adversarial loss of a third discriminator, which tells A's from B's codes.
        lambda_tv: total variation of the translations.
    """

    steps: ranges.Count = 200_000
    crop: ranges.Sides = 256
    flip: bool = True
    dimensions: Literal[2, 3] = 2
    base_filters: ranges.Filters = 64
    blocks: ranges.Blocks = 9
    norm: Literal["instance", "none"] = "instance"
    output: Literal["image", "residual", "auto"] = "image"
    share_encoder: bool = False
    discriminator_filters: ranges.Filters = 64
    discriminator_layers: ranges.Layers = 3
    discriminator_norm: Literal["instance", "none"] = "instance"
    adversarial: Literal["lsgan", "bce", "hinge", "wgan"] = "lsgan"
    buffer: Annotated[int, ranges.Range(0, below=10**6)] = 50
    lambda_identity: ranges.Weight = 5.0
    lambda_gradient: ranges.Weight = 0.0
    lambda_shape: ranges.Weight = 0.0
    shape_classes: ranges.Classes = 0
    lambda_air: ranges.Weight = 0.0
    air_threshold: ranges.Level = -950.0
    lambda_perceptual: ranges.Weight = 0.0
    extractor: str = "vgg19"
    extractor_layer: str = ""
    lambda_idempotence: ranges.Weight = 0.0
    lambda_autoencoding: ranges.Weight = 0.0
    lambda_latent: ranges.Weight = 0.0
    lambda_tv: ranges.Weight = 0.0

    SMALL: ClassVar[dict[str, Any]] = {
        "steps": 1500,
        "batch_size": 2,
        "crop": 96,
        "base_filters": 16,
        "blocks": 3,
        "learning_rate": 5e-4,
        "discriminator_filters": 16,
        "discriminator_norm": "none",
        "discriminator_rate": 1e-3,
        "spectral_norm": True,
        "ema": 0.99,
        "lambda_identity": 0.0,
        "image_every": 250,
        "checkpoint_every": 250,
    }

    GOOD: ClassVar[dict[str, Any]] = {
        "steps": 60_000,
        "batch_size": 2,
        "crop": 128,
        "base_filters": 48,
        "blocks": 6,
        "learning_rate": 2e-4,
        "rate_schedule": "cosine",
        "discriminator_filters": 32,
        "discriminator_norm": "none",
        "discriminator_rate": 4e-4,
        "spectral_norm": True,
        "ema": 0.999,
        "lambda_identity": 0.0,
    }

    @property
    def extra_features(self) -> tuple[str, ...]:
        return ("source_label", "target_label") if self.lambda_shape else ()

    @property
    def size_multiple(self) -> int:
        # A quarter of the slices of a thin volume must be two, or there is nothing to reflect.
        return 8 if self.dimensions == 3 else 4

    def resolve(self, facts: DataFacts) -> Self:
        """The recipe with the size of the buffer's images and the number of label classes.

        Raises:
            ValueError: for a buffer of images of several sizes, for images that a discriminator is
                too deep for, and for `lambda_shape` on data
                without label names.
        """
        recipe = self
        if recipe.buffer and not recipe.crop:
            shape = facts.source_shape
            if shape is None or shape != facts.target_shape:
                raise ValueError(
                    "crop: the image buffer holds images of one size; set crop, or buffer=0. "
                    f"Received: crop=0 with sources {facts.source_shape} and targets "
                    f"{facts.target_shape}"
                )
            recipe = dataclasses.replace(recipe, crop=shape)
        sides = recipe.crop_sides or facts.target_shape or ()
        require_patches(sides, recipe.discriminator_layers)
        if recipe.lambda_latent:
            require_patches(sides, 1, shrink=4)
        if recipe.lambda_shape and not recipe.shape_classes:
            if not facts.label_names:
                raise ValueError(
                    "lambda_shape: the data set has no label_names; set shape_classes. "
                    "Received: shape_classes=0"
                )
            recipe = dataclasses.replace(recipe, shape_classes=len(facts.label_names))
        return recipe


# Networks.


def encoder(channels: int, recipe: CycleGANRecipe) -> keras.Model:
    """A generator's first half, with the greater half of the residual blocks."""
    block, rank = _Block(recipe), recipe.dimensions
    inputs = keras.Input((None,) * rank + (channels,))
    x = block.relu(block.convolution(ReflectionPadding(3)(inputs), recipe.base_filters, 7))
    for level in (1, 2):
        x = ranked("ZeroPadding{}D", rank)(1)(x)  # "same" would pad at the far edges only
        x = block.relu(block.convolution(x, recipe.base_filters * 2**level, 3, 2))
    for _ in range((recipe.blocks + 1) // 2):
        x = block.residual(x)
    return keras.Model(inputs, x)


def decoder(outputs: int, recipe: CycleGANRecipe) -> keras.Model:
    """A generator's second half."""
    block, rank = _Block(recipe), recipe.dimensions
    inputs = keras.Input((None,) * rank + (4 * recipe.base_filters,))
    x = inputs
    for _ in range(recipe.blocks // 2):
        x = block.residual(x)
    for level in (1, 0):
        filters = recipe.base_filters * 2**level
        # The adjoint of the encoder's padding: pixels stay where they were.
        if rank == 2:
            x = Conv2DTranspose(filters, kernel_initializer=block.init)(x)
        else:
            x = layers.Conv3DTranspose(filters, 3, 2, kernel_initializer=block.init)(x)
            x = layers.Cropping3D(((1, 0),) * rank)(x)
        x = block.relu(x)
    # Without norm x is larger: the first images, or corrections, should be nearly 0.
    last = _normal(0.02 if recipe.norm == "instance" else 0.002)
    options = {"activation": "tanh", "kernel_initializer": last, "dtype": "float32"}
    layer = convolution(outputs, 7, rank=rank, **options)
    return keras.Model(inputs, layer(ReflectionPadding(3)(x)))


def _normal(deviation: float = 0.02) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(0.0, deviation)


class _Block:
    """Pieces of a generator. Biases stay, though instance norm takes them out again."""

    def __init__(self, recipe: CycleGANRecipe):
        self.norm, self.rank = recipe.norm, recipe.dimensions
        # Without norm the paper's small weights would let hardly anything through.
        self.init = _normal() if recipe.norm == "instance" else keras.initializers.HeNormal()

    def convolution(self, x, filters, size, stride=1):
        return convolution(filters, size, stride, rank=self.rank, kernel_initializer=self.init)(x)

    def normal(self, x):
        return x if self.norm == "none" else Norm(self.norm)(x)

    def relu(self, x):
        return layers.ReLU()(self.normal(x))

    def residual(self, x):
        y = self.relu(self.convolution(ReflectionPadding(1)(x), x.shape[-1], 3))
        y = self.normal(self.convolution(ReflectionPadding(1)(y), x.shape[-1], 3))
        return layers.Add()([x, y])


@keras.saving.register_keras_serializable(package="zoo")
class ImageBuffer(keras.layers.Layer):
    """Shows a discriminator older generated images too (Shrivastava et al. 2017, arXiv:1612.07828).

    The first `size` images are kept and given back. Then each image, with probability 1/2, takes
    the place of a kept one, which is given back instead. One image after the other, in the order
    of the global batch: all replicas see all images, so that their buffers stay one.

    Args:
        size: images kept.
        shape: of an image, `(H, W, C)`, or of a volume.
    """

    def __init__(self, size: int, shape: tuple[int, ...], **kwargs: Any):
        super().__init__(**{"dtype": "float32"} | kwargs)
        options = dict(
            initializer="zeros", trainable=False, aggregation="only_first_replica", autocast=False
        )
        self.images = self.add_weight(name="images", shape=(size, *shape), **options)
        self.seen = self.add_weight(name="seen", shape=(), dtype="int64", **options)
        self.built = True

    def call(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Images `[N, H, W, C]` for the discriminator; `draws` is `[N, 2]`, uniform in [0, 1)."""
        size, count, first = self.images.shape[0], tf.shape(images)[0], 0
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            context = tf.distribute.get_replica_context()
            first = count * context.replica_id_in_sync_group
            images, draws = context.all_gather([images, draws], axis=0)
        seen = tf.convert_to_tensor(self.seen)
        numbers = tf.range(tf.shape(images)[0])

        def turn(state, given):
            # A place holds a number: of a kept image, or `size` plus that of a new one.
            places, _ = state
            number, coin, where = given[0], given[1][0], given[1][1]
            filled = tf.minimum(tf.cast(seen, tf.int32) + number, size)
            full = filled == size
            place = tf.where(full, tf.cast(where * size, tf.int32), filled)
            swap = full & (coin < 0.5)
            given_back = tf.where(swap, places[tf.minimum(place, size - 1)], size + number)
            stored = tf.tensor_scatter_nd_update(places, [[place]], [size + number])
            return tf.where(swap | ~full, stored, places), given_back

        places, chosen = tf.scan(turn, (numbers, draws), (tf.range(size), 0))
        known = tf.concat([tf.convert_to_tensor(self.images), images], axis=0)
        self.images.assign(tf.gather(known, places[-1]))
        self.seen.assign(tf.minimum(seen + tf.cast(tf.size(numbers), seen.dtype), size))
        return tf.gather(known, chosen[first : first + count])

    def get_config(self) -> dict[str, Any]:
        size, *shape = self.images.shape
        return super().get_config() | {"size": size, "shape": shape}


# Models.


@zoo.register("cyclegan")
class CycleGAN(TwoWayTranslator):
    """CycleGAN with its ResNet generators and PatchGAN discriminators.

    Example:
        >>> model = zoo.load("cyclegan", base_filters=8, blocks=3, direction="BtoA")
        >>> model.translate(np.zeros([2, 100, 80], "float32")).shape
        (2, 100, 80)
    """

    recipe_class = CycleGANRecipe
    recipe: CycleGANRecipe

    def __init__(self, recipe: CycleGANRecipe, source: Domain, target: Domain, **kwargs: Any):
        super().__init__(recipe, source, target, **kwargs)
        self._check(recipe)
        channels = source.channels, target.channels
        self.make_networks()
        judge = functools.partial(
            patch_gan,
            filters=recipe.discriminator_filters,
            rank=recipe.dimensions,
            norm=recipe.discriminator_norm,
            spectral_norm=recipe.spectral_norm,
        )
        with float32_judge(recipe.adversarial == "wgan"):
            self.discriminator_a = judge(channels[0], depth=recipe.discriminator_layers)
            self.discriminator_b = judge(channels[1], depth=recipe.discriminator_layers)
            if recipe.lambda_latent:
                self.discriminator_z = judge(4 * recipe.base_filters, depth=1)
        if recipe.lambda_shape:
            filters, classes = max(recipe.base_filters // 4, 8), max(recipe.shape_classes, 2)
            options: Any = dict(base_filters=filters, levels=3, dimensions=recipe.dimensions)
            self.segmentor_a = unet(channels[0], classes, **options)
            self.segmentor_b = unet(channels[1], classes, **options)
        if recipe.buffer and recipe.crop:
            self.buffer_a = ImageBuffer(recipe.buffer, (*recipe.crop_sides, channels[0]))
            self.buffer_b = ImageBuffer(recipe.buffer, (*recipe.crop_sides, channels[1]))
        self.adversarial = losses.adversarial(recipe.adversarial)

    def generators(self) -> TwoWay:
        recipe, channels = self.recipe, (self.domain_a.channels, self.domain_b.channels)
        encoder_a = encoder(channels[0], recipe)
        return TwoWay(
            encoder_a,
            encoder_a if recipe.share_encoder else encoder(channels[1], recipe),
            decoder(channels[0], recipe),
            decoder(channels[1], recipe),
            recipe.direction,
        )

    def _check(self, recipe: CycleGANRecipe) -> None:
        a, b = self.domain_a, self.domain_b
        compared = ("identity", "gradient", "air", "perceptual", "idempotence")
        for name in (*(f"lambda_{name}" for name in compared), "share_encoder"):
            if getattr(recipe, name) and a.channels != b.channels:
                raise ValueError(
                    f"{name}: source and target need as many channels; set it to "
                    f"{type(getattr(recipe, name))()}. Received: {a.channels} and {b.channels}"
                )
        if recipe.lambda_air and a.unit != b.unit:
            raise ValueError(
                "lambda_air: air_threshold needs source and target in one unit. "
                f"Received: {a.unit} and {b.unit}"
            )

    @property
    def tile_margin(self) -> int:
        return 16 + 8 * self.recipe.blocks  # half the receptive field

    @property
    def residual(self) -> bool:
        return super().residual and self.domain_a.channels == self.domain_b.channels

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)
        recipe = self.recipe
        if recipe.buffer and not recipe.crop:
            raise ValueError(
                "crop: the image buffer holds images of one size; set crop, or buffer=0. "
                "Received: crop=0"
            )
        if recipe.lambda_perceptual:
            self.perceptual = losses.Perceptual(recipe.extractor, recipe.extractor_layer)

        rate = scheduled(recipe, recipe.learning_rate, LinearDecay)
        judging = recipe.discriminator_rate or recipe.learning_rate
        judging = scheduled(recipe, judging, LinearDecay)
        self.generator_optimizer = adam(self, self.trained.trainable_variables, rate)
        self.discriminator_optimizer = adam(self, self._judges(), judging)
        if recipe.lambda_shape:
            self.segmentor_optimizer = adam(self, self._segmentors(), rate)

    def _judges(self) -> list:
        judges = [self.discriminator_a, self.discriminator_b]
        judges += [self.discriminator_z] if self.recipe.lambda_latent else []
        return [v for judge in judges for v in judge.trainable_variables]

    def _segmentors(self) -> list:
        return self.segmentor_a.trainable_variables + self.segmentor_b.trainable_variables

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """One step of the generators, then one of the discriminators (the paper's eq. 3)."""
        recipe = self.recipe
        seen = batches_seen(self.generator_optimizer)
        seeds = example_seeds(batch, batch["source"], seen, recipe.seed)
        real, labels = self.given(batch), self._labels(batch)
        # The generators.
        with tf.GradientTape() as tape:
            codes = {d: self.encoded(d, real[d]) for d in OTHER}
            fakes = {t: self.decoded(t, codes[s], real[s]) for s, t in OTHER.items()}
            terms = self._terms(real, codes, fakes, labels)
            share = self.weighted_sum(terms)
        weights = self.trained.trainable_variables
        changed = descend(self.generator_optimizer, tape, share, weights)
        if recipe.ema:
            follow(self.network, self.trained, recipe.ema, changed)
        # The discriminators, and the segmentors.
        with tf.GradientTape() as tape:
            d_share = 0.5 * self._judgement(real, codes, fakes, seeds)
        descend(self.discriminator_optimizer, tape, d_share, self._judges())
        logs = {"d_loss": d_share} | terms
        if recipe.lambda_shape:
            with tf.GradientTape() as tape:
                s_share = tf.add_n([self._segmentation(d, real[d], labels[d]) for d in OTHER])
            descend(self.segmentor_optimizer, tape, s_share, self._segmentors())
            logs["segmentors"] = s_share
        return {name: unscaled(value) for name, value in logs.items()}

    def _terms(self, real: dict, codes: dict, fakes: dict, labels: dict) -> dict[str, tf.Tensor]:
        """The generators' losses by name, each the sum of both ways, where its weight is not 0."""
        recipe, l1 = self.recipe, losses.L1()

        # What several of the losses are made of.
        def recoded(values, old, new):
            """Values of one domain's scale on the other's; those of another unit as they are."""
            old, new = self.domain(old), self.domain(new)
            if old.unit != new.unit or old.window == new.window:
                return values
            return new.scale(old.decode(values))

        def translated(s, values):
            return self.decoded(OTHER[s], self.encoded(s, values), values)

        def air(s, t):
            threshold = self.domain(s).scale(recipe.air_threshold)
            return losses.Air(threshold)(real[s], recoded(fakes[t], t, s))

        # Each from domain s to domain t.
        each = {
            "gan": lambda s, t: self.adversarial.generator(self.discriminator(t)(fakes[t])),
            "cycle": lambda s, t: l1(real[s], translated(t, fakes[t])),
            "identity": lambda s, t: l1(real[t], translated(s, recoded(real[t], t, s))),
            "gradient": lambda s, t: losses.GradientConsistency()(real[s], fakes[t]),
            "shape": lambda s, t: self._segmentation(t, fakes[t], labels[s]),
            "air": air,
            "perceptual": lambda s, t: self.perceptual(real[s], fakes[t]),
            "idempotence": lambda s, t: l1(fakes[t], translated(s, recoded(fakes[t], t, s))),
            "autoencoding": lambda s, t: l1(real[s], self.decoded(s, codes[s], real[s])),
            "tv": lambda s, t: losses.TotalVariation()(fakes[t]),
        }
        terms = self.both_ways(each)
        if recipe.lambda_latent:  # A's codes count as real, and each domain's should pass as other
            scores = {d: self.discriminator_z(codes[d]) for d in OTHER}
            terms["latent"] = self.adversarial.generator(scores["b"])
            terms["latent"] += self.adversarial.fake(scores["a"])
        return terms

    def _judgement(self, real: dict, codes: dict, fakes: dict, seeds: tf.Tensor) -> tf.Tensor:
        """The discriminators' loss, a replica's share."""
        total = 0.0
        judged = [
            (self.discriminator_a, real["a"], self._remembered("a", fakes["a"], seeds), 0),
            (self.discriminator_b, real["b"], self._remembered("b", fakes["b"], seeds), 1),
        ]
        if self.recipe.lambda_latent:
            judged.append((self.discriminator_z, codes["a"], codes["b"], 2))
        for judge, true, made, number in judged:
            true, made = (tf.stop_gradient(tf.cast(x, tf.float32)) for x in (true, made))

            def score(images, judge=judge):
                return judge(images, training=True)

            total += self.adversarial.real(score(true)) + self.adversarial.fake(score(made))
            if self.recipe.adversarial == "wgan":
                penalty = losses.mean_gradient_penalty(score, true, made, seeds, 10 + number)
                total += 10.0 * scaled(penalty)
        return total

    def _remembered(self, domain: str, fakes: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        if not self.recipe.buffer:
            return fakes
        buffer = self.buffer_a if domain == "a" else self.buffer_b
        return buffer(fakes, random_uniform(seeds, (2,), 20 + (domain == "b")))

    def _labels(self, batch: dict) -> dict[str, tf.Tensor]:
        """One-hot labels of each domain's images."""
        if not self.recipe.lambda_shape:
            return {}
        return {
            d: tf.one_hot(tf.cast(batch[key][..., 0], tf.int32), max(self.recipe.shape_classes, 2))
            for d, key in (("a", "source_label"), ("b", "target_label"))
        }

    def _segmentation(self, domain: str, values: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        segmentor = self.segmentor_a if domain == "a" else self.segmentor_b
        return losses.FocalCrossEntropy(gamma=0.0)(labels, segmentor(values, training=True))

    @property
    def generator_passes(self) -> int:
        return 6 if self.recipe.lambda_identity else 4
