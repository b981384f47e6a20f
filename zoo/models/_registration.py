"""Registration inside a training step: pairs whose target does not lie quite on its source.

After Kong, Lian, Huang et al.: Breaking the Dilemma of Medical Image-to-image Translation,
NeurIPS 2021, arXiv:2110.06465 (RegGAN). A small network R sees the output x' and the target y and
predicts a displacement u for each pixel; the pixel loss compares y with the output moved by it,

    (x' ∘ u)(p) = x'(p + u(p)).

The network of the translation never has to guess how a target is displaced, and learns sharp images
that lie on their sources. R is of use in training only: it is in checkpoints, and not in what is
served.

What differs from the paper, and why:

    here                                    paper           why
    R learns from targets that were         from x' and y   rewarded for what makes x' ∘ u like y,
    displaced at random, where the answer                   R bends bone that is too thick into thin
    is known; edges count most                              bone, and the error stays
    u is an average over about 16 pixels,   |∇u|² in R's    no field so smooth can do that, and even
    weighted by the target's edges          loss            regions take what their edges say
    a second network H predicts u from      none            what all outputs share is an error of
    the source alone, and is subtracted                     the translation
    half of the examples, and the first     none            without them a shift that all outputs
    part of the run, are compared as they                   share costs nothing, and grows
    lie
"""

import keras
import tensorflow as tf

from zoo.layers import pad_to_multiple
from zoo.models._unet import unet
from zoo.step import batches_seen, descend, random_normal, random_uniform, scaled
from zoo.translator import Translator

_LEVELS = 4  # resolutions of both networks, the first of which is half the image's
_LARGEST = 10.0  # pixels: the longest displacement that R learns from
_KNOTS = 5  # of a displacement drawn at random, along each axis
_BLUR = 2.0  # pixels: how far from sharp the images may be that R learns from
_SMOOTH = 16.0  # pixels: standard deviation of the average that u is
_EDGE = 1.0  # pixels: edges of images smoothed by this much
_START = 0.4  # of the run: from then on outputs are compared where R sees the target
_AS_THEY_LIE = 0.5  # share of the examples that are compared as they lie even then
RATE = 1e-3  # of their Adam, with any rate of the translation
_PURPOSE = 30  # of random numbers: from here to three more


class Registration(keras.Model):
    """R and H, for a model of images.

    Attributes:
        finder: R; two images, one behind the other, to a displacement.
        habit: H; a source to the displacement that R finds for its like on average.

    Raises:
        ValueError: for a model of volumes, or of classes, which have no values between them.
    """

    def __init__(self, model: Translator):
        super().__init__()
        if model.dimensions != 2 or model.classes:
            received = f"{model.classes} classes" if model.classes else "volumes"
            raise ValueError(
                f"registration: expected images of intensities, two axes each. Received: {received}"
            )
        self.finder = _network(2 * model.target.channels)
        self.habit = _network(model.source.channels)
        self.built = True

    def displacement(self, moving: tf.Tensor, fixed: tf.Tensor) -> tf.Tensor:
        """Where R finds what the fixed image shows in the moving one; means something at edges.

        Args:
            moving, fixed: `[N, H, W, C]` in [-1, 1].

        Returns:
            float32 `[N, H, W, 2]`, rows and columns in pixels.
        """
        return 5.0 * _field(self.finder, tf.concat([moving, fixed], -1))

    def smooth_displacement(self, moving: tf.Tensor, fixed: tf.Tensor) -> tf.Tensor:
        """The same everywhere, in two steps: R once more, where its first answer has led."""
        weights = edges(fixed)
        field = smoothed(self.displacement(moving, fixed), weights, _SMOOTH)
        rest = self.displacement(warp(moving, field), fixed)
        return smoothed(rest + warp(field, rest), weights, _SMOOTH)

    def habitual(self, source: tf.Tensor) -> tf.Tensor:
        """What H expects of a source `[N, H, W, C]` in [-1, 1]; as `displacement`."""
        return _field(self.habit, source)


def _network(channels: int) -> keras.Model:
    return unet(
        channels,
        2,
        base_filters=16,
        levels=_LEVELS,
        skips="add",
        downsampling="stride",
        upsampling="resize",
    )


def _field(network: keras.Model, images: tf.Tensor) -> tf.Tensor:
    """What a network says of images at half their resolution, for each of their pixels."""
    height, width = tf.unstack(tf.shape(images)[1:3])
    images = pad_to_multiple(images, 2**_LEVELS)
    field = network(tf.nn.avg_pool2d(images, 2, 2, "VALID"), training=True)
    field = tf.image.resize(tf.cast(field, tf.float32), tf.shape(images)[1:3])
    return field[:, :height, :width]


def warp(images: tf.Tensor, field: tf.Tensor) -> tf.Tensor:
    """Images at displaced places: what lies at p + u(p) comes to p.

    Bilinear; beyond the border the pixel of the border.

    Args:
        images: `[N, H, W, C]`.
        field: u, `[N, H, W, 2]`, rows and columns in pixels.

    Returns:
        float32 `[N, H, W, C]`.
    """
    images = tf.cast(images, tf.float32)
    count, height, width, channels = tf.unstack(tf.shape(images))
    # Each place's upper left pixel, and how far it is from there.
    last = tf.cast(tf.stack([height, width]) - 1, tf.float32)
    rows, columns = tf.range(height), tf.range(width)
    grid = tf.cast(tf.stack(tf.meshgrid(rows, columns, indexing="ij"), -1), tf.float32)
    place = tf.clip_by_value(grid + tf.cast(field, tf.float32), 0.0, last)
    low = tf.minimum(tf.floor(place), tf.maximum(last - 1.0, 0.0))
    share = place - low
    corner = tf.cast(low, tf.int32)
    flat = tf.reshape(images, [count, height * width, channels])

    def at(down: int, right: int) -> tf.Tensor:
        row = tf.minimum(corner[..., 0] + down, height - 1)
        column = tf.minimum(corner[..., 1] + right, width - 1)
        return tf.gather(flat, row * width + column, batch_dims=1)

    down, right = share[..., :1], share[..., 1:]
    above = at(0, 0) * (1.0 - right) + at(0, 1) * right
    below = at(1, 0) * (1.0 - right) + at(1, 1) * right
    moved = above * (1.0 - down) + below * down
    return tf.ensure_shape(moved, images.shape)


def smoothed(values: tf.Tensor, weights: tf.Tensor, sigma: float) -> tf.Tensor:
    """Gaussian average of values `[N, H, W, K]`, by weights `[N, H, W, 1]`; beyond the border is
    nothing (Knutsson and Westin 1993, normalized convolution).
    """
    reach = tf.range(-int(3 * sigma), int(3 * sigma) + 1, dtype=tf.float32)
    bell = tf.exp(-tf.square(reach) / (2 * sigma**2))
    sums = tf.concat([values * weights, weights], -1)
    for kernel in (bell[:, None, None, None], bell[None, :, None, None]):
        kernel = tf.tile(kernel, [1, 1, sums.shape[-1], 1])
        sums = tf.nn.depthwise_conv2d(sums, kernel, [1, 1, 1, 1], "SAME")
    return sums[..., :-1] / sums[..., -1:]


def edges(images: tf.Tensor) -> tf.Tensor:
    """Steepness of images `[N, H, W, C]` over its mean, `[N, H, W, 1]`; above 0 everywhere."""
    images = tf.cast(images, tf.float32)
    images = smoothed(images, tf.ones_like(images[..., :1]), _EDGE)
    slopes = tf.image.sobel_edges(images)
    steepness = tf.sqrt(tf.reduce_sum(tf.square(slopes), [-2, -1]))[..., None]
    return steepness / (tf.reduce_mean(steepness, [1, 2, 3], keepdims=True) + 1e-3) + 1e-3


def drawn(seeds: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """A smooth random displacement for each of `[N, 2]` seeds: `[N, H, W, 2]`, in pixels.

    The longest of each is 0 to 10 pixels long.
    """
    knots = random_normal(seeds, (_KNOTS, _KNOTS, 2), _PURPOSE)
    field = tf.image.resize(knots, [height, width], "bicubic")
    longest = tf.reduce_max(tf.norm(field, axis=-1), [1, 2])
    length = _LARGEST * random_uniform(seeds, (1,), _PURPOSE + 1)[:, 0]
    return field * (length / longest)[:, None, None, None]


def _known_error(registration: Registration, seeds: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """How far R is from the truth about targets displaced at random and blurred; `[N]`, pixels."""
    truth = drawn(seeds, *tf.unstack(tf.shape(target)[1:3]))
    sharp = warp(target, truth)
    soft = smoothed(sharp, tf.ones_like(sharp[..., :1]), _BLUR)
    share = random_uniform(seeds, (1, 1, 1), _PURPOSE + 2)
    field = registration.displacement(sharp + share * (soft - sharp), target)
    # What lies at p + u(p) in the displaced image lies at p + u(p) + truth(p + u(p)) in the target.
    error = tf.reduce_sum(tf.square(field + warp(truth, field)), -1, keepdims=True)
    return tf.reduce_mean((edges(target) + 0.1) * tf.sqrt(error + 1e-2), [1, 2, 3])


def register(
    registration: Registration,
    optimizer: keras.optimizers.Optimizer,
    steps: int,
    seeds: tf.Tensor,
    source: tf.Tensor,
    output: tf.Tensor,
    target: tf.Tensor,
) -> tf.Tensor:
    """One step of R and H, and the output where R, before the step, saw the target.

    In the first part of the run it is the output as it is, and then for some of the examples.

    Args:
        registration: R and H.
        optimizer: their own.
        steps: of the run.
        seeds: int32 `[N, 2]`, of the examples.
        source, output, target: `[N, H, W, C]` in [-1, 1].

    Returns:
        float32 `[N, H, W, C]`, whose gradient reaches the output and neither R nor H.
    """
    output, target = tf.cast(output, tf.float32), tf.cast(target, tf.float32)
    found = tf.stop_gradient(registration.smooth_displacement(output, target))
    with tf.GradientTape() as tape:
        habit = registration.habitual(source)
        surprise = tf.reduce_mean(tf.square(habit - found), [1, 2, 3])
        share = scaled(tf.reduce_mean(_known_error(registration, seeds, target) + surprise))
    begun = batches_seen(optimizer) >= int(_START * steps)
    descend(optimizer, tape, share, registration.trainable_variables)
    moved = begun & (random_uniform(seeds, (1, 1, 1), _PURPOSE + 3) >= _AS_THEY_LIE)
    return tf.where(moved, warp(output, found - tf.stop_gradient(habit)), output)
