"""Losses: of discriminators and generators, of images, codes, label maps and features.

Images are `[N, H, W, C]` or volumes `[N, D, H, W, C]`, values in [-1, 1]: the intensity window.
Every loss is one number an example, averaged over the examples. Called inside a distribution
strategy it returns this replica's share, the replica's mean divided by the number of replicas, as
Keras's own losses do: the sum over replicas is what one device gives for the whole batch.

    loss = L1()(target, output)     # the order is Keras's: what is true, then what the model made
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo import metrics
from zoo.extractors import feature_extractor
from zoo.step import random_uniform

_serialisable = keras.saving.register_keras_serializable(package="zoo")


def _each(x: tf.Tensor) -> tf.Tensor:
    """`[N, ...]` to `[N]`: the mean of each example."""
    return tf.reduce_mean(x, axis=list(range(1, x.shape.rank)))


# Adversarial losses.


class Adversarial(keras.losses.Loss):
    """What a discriminator and its generator minimise, on scores of any shape `[N, ...]`.

    A higher score means more real. As a Keras loss it takes labels, 1 for real and 0 for fake,
    and scores; the discriminator minimises `real(scores) + fake(scores)`.
    """

    def real(self, scores: tf.Tensor) -> tf.Tensor:
        """The discriminator's loss on real images' scores."""
        return self(tf.ones_like(scores), scores)

    def fake(self, scores: tf.Tensor) -> tf.Tensor:
        """The discriminator's loss on generated images' scores."""
        return self(tf.zeros_like(scores), scores)

    def generator(self, scores: tf.Tensor) -> tf.Tensor:
        """The generator's loss on its images' scores: they should pass for real."""
        return self.real(scores)


@_serialisable
class LeastSquares(Adversarial):
    """(D - label)^2 (LSGAN, Mao et al. 2017, arXiv:1611.04076, eq. 9 with a=0, b=c=1).

    Without the paper's factor 1/2, as in CycleGAN and UNIT.
    """

    def call(self, labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        return _each(tf.square(scores - labels))


@_serialisable
class CrossEntropy(Adversarial):
    """Binary cross-entropy of logits, non-saturating (Goodfellow et al. 2014, arXiv:1406.2661, §3).

    real: -log s(D); fake: -log(1 - s(D)); generator: -log s(D); s is the logistic function.
    """

    def call(self, labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        return _each(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=scores))


@_serialisable
class Wasserstein(Adversarial):
    """real: -D; fake: D; generator: -D (WGAN, Arjovsky et al. 2017, arXiv:1701.07875, eq. 2).

    The discriminator must be Lipschitz: add `gradient_penalty`, or normalise its kernels by their
    largest singular value.
    """

    def call(self, labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        return _each((1.0 - 2.0 * labels) * scores)


@_serialisable
class Hinge(Adversarial):
    """real: max(0, 1 - D); fake: max(0, 1 + D); generator: -D.

    Lim and Ye 2017 (arXiv:1705.02894); Miyato et al. 2018 (arXiv:1802.05957), eqs. 16 and 17.
    """

    def call(self, labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        return _each(tf.nn.relu(1.0 + (1.0 - 2.0 * labels) * scores))

    def generator(self, scores: tf.Tensor) -> tf.Tensor:
        return Wasserstein(reduction=self.reduction).real(scores)


ADVERSARIAL: dict[str, type[Adversarial]] = {
    "lsgan": LeastSquares,
    "bce": CrossEntropy,
    "hinge": Hinge,
    "wgan": Wasserstein,
}


def adversarial(kind: str) -> Adversarial:
    """The loss of that name.

    Raises:
        ValueError: for another name.
    """
    if kind not in ADVERSARIAL:
        raise ValueError(
            f"adversarial: expected one of {', '.join(ADVERSARIAL)}. Received: {kind!r}"
        )
    return ADVERSARIAL[kind]()


def gradient_penalty(function: Any, images: tf.Tensor) -> tf.Tensor:
    """(|d function / d image| - 1)^2 of each example (Gulrajani et al. 2017, arXiv:1704.00028).

    `mean_gradient_penalty` takes it where WGAN-GP does.

    Args:
        function: images to scores `[N, ...]`, where an image changes no other image's score.
        images: `[N, ...]`.

    Returns:
        float32 `[N]`.
    """
    # The small constant keeps the root's gradient finite where the gradient is zero.
    return tf.square(tf.sqrt(squared_gradient(function, images) + 1e-12) - 1.0)


def squared_gradient(function: Any, images: tf.Tensor) -> tf.Tensor:
    """|d function / d image|^2 of each example, float32 `[N]`; arguments as `gradient_penalty`."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        scores = function(images)
    gradient = tf.cast(tape.gradient(scores, images), tf.float32)
    return tf.reduce_sum(tf.square(gradient), axis=list(range(1, gradient.shape.rank)))


def mean_gradient_penalty(
    judge: Any, real: tf.Tensor, fake: tf.Tensor, seeds: tf.Tensor, purpose: int
) -> tf.Tensor:
    """The mean `gradient_penalty` somewhere between each real image and its generated one.

    A replica's mean and not yet its share: use `scaled(weight * mean_gradient_penalty(...))`.

    Args:
        judge: the discriminator, images to scores.
        real, fake: `[N, H, W, C]`, or volumes.
        seeds, purpose: of the place between the two, as `zoo.step.random_uniform` takes them.
    """
    one = (1,) * (real.shape.rank - 1)
    mixed = real + (fake - real) * random_uniform(seeds, one, purpose)
    return tf.reduce_mean(gradient_penalty(judge, mixed))


# Losses between two images.


@_serialisable
class L1(keras.losses.Loss):
    """Mean |a - b|, 0 to 2."""

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return _each(tf.abs(y_pred - y_true))


def input_error(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Mean |source - target| of each pair, `[N, 1, 1, 1]` (of volumes `[N, 1, 1, 1, 1]`) + 1e-4.

    The unit in which a restoration's errors count alike, however strong its input's noise.
    """
    axes = list(range(1, len(source.shape)))
    return tf.reduce_mean(tf.abs(source - target), axes, keepdims=True) + 1e-4


@_serialisable
class L2(keras.losses.Loss):
    """Mean (a - b)^2, 0 to 4."""

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return _each(tf.square(y_pred - y_true))


@_serialisable
class Charbonnier(keras.losses.Loss):
    """Mean sqrt((a - b)^2 + epsilon^2): L1, rounded at zero.

    Charbonnier et al. 1994; Lai et al. 2017 (arXiv:1704.03915), eq. 2, with epsilon 1e-3.
    """

    def __init__(self, epsilon: float = 1e-3, **kwargs: Any):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return _each(tf.sqrt(tf.square(y_pred - y_true) + self.epsilon**2))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"epsilon": self.epsilon}


@_serialisable
class Structure(keras.losses.Loss):
    """tau (1 - MS-SSIM) + (1 - tau) L1 (Zhao et al. 2017, arXiv:1511.08861).

    The paper's alpha is tau, 0.84; its L1 is weighted by a Gaussian, whose mean is nearly that of
    the plain L1 here, and of images in [0, 1]: half of this one. A volume's MS-SSIM is the mean
    over its slices [H, W]. Height and width must be known and at least 11; smaller images than
    161 pixels have fewer scales (`zoo.metrics.ms_ssim_scales`).
    """

    def __init__(self, tau: float = 0.84, **kwargs: Any):
        super().__init__(**kwargs)
        self.tau = tau

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        error = _each(tf.abs(y_pred - y_true))
        return self.tau * (1.0 - ms_ssim(y_true, y_pred)) + (1.0 - self.tau) * error

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"tau": self.tau}


def ms_ssim(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """`[N]` multi-scale structural similarity, as `zoo.metrics.ms_ssim` but with a gradient.

    Wang, Simoncelli and Bovik 2003, eq. 7, with data range 2. A term below 1e-4 counts as 1e-4,
    where the metric takes 0: the power's slope there is infinite.

    Args:
        a, b: float32 `[N, H, W, C]` or `[N, D, H, W, C]`, values in [-1, 1].

    Raises:
        ValueError: for less than 11 x 11 pixels, or a size that the graph does not know.
    """
    height, width = a.shape[-3:-1]
    if height is None or width is None:
        raise ValueError(f"images: MS-SSIM needs a known size. Received: shape {a.shape}")
    weights = np.array(metrics.MS_SSIM_WEIGHTS[: metrics.ms_ssim_scales((height, width))])
    weights /= weights.sum()
    n = tf.shape(a)[0]
    # Every channel of every slice is an image of its own.
    order = [*range(a.shape.rank - 3), a.shape.rank - 1, a.shape.rank - 3, a.shape.rank - 2]
    a, b = (tf.reshape(tf.transpose(x, order), [-1, height, width, 1]) for x in (a, b))
    value = tf.ones([tf.shape(a)[0]])
    for scale, weight in enumerate(weights):
        if scale:
            a, b = _halve(a), _halve(b)
        similarity, structure = _ssim_terms(a, b)
        term = similarity if scale == len(weights) - 1 else structure
        value *= tf.maximum(term, 1e-4) ** float(weight)
    return tf.reduce_mean(tf.reshape(value, [n, -1]), axis=1)


def _ssim_terms(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean SSIM and mean contrast-structure term of `[M, H, W, 1]` with data range 2, `[M]`.

    Luminance is counted from the window's low end, -1. Variances do not depend on where 0 is, and
    lose the fewest digits in float32 where it lies in the middle.
    """
    c1, c2 = 0.02**2, 0.06**2
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps = tf.constant(taps / taps.sum(), a.dtype)

    def local_mean(x):
        x = tf.nn.conv2d(x, tf.reshape(taps, [-1, 1, 1, 1]), 1, "VALID")
        return tf.nn.conv2d(x, tf.reshape(taps, [1, -1, 1, 1]), 1, "VALID")

    maps = local_mean(tf.concat([a, b, a * b, a * a + b * b], axis=0))
    mean_a, mean_b, product, squares = tf.split(maps, 4)
    structure = (2 * (product - mean_a * mean_b) + c2) / (
        squares - tf.square(mean_a) - tf.square(mean_b) + c2
    )
    mean_a, mean_b = mean_a + 1.0, mean_b + 1.0
    luminance = (2 * mean_a * mean_b + c1) / (tf.square(mean_a) + tf.square(mean_b) + c1)
    return _each(luminance * structure), _each(structure)


def _halve(x: tf.Tensor) -> tf.Tensor:
    """Means of 2 x 2 pixels; an odd last row or column counts twice."""
    height, width = x.shape[1:3]
    x = tf.pad(x, [[0, 0], [0, height % 2], [0, width % 2], [0, 0]], "SYMMETRIC")
    return tf.nn.avg_pool2d(x, 2, 2, "VALID")


@_serialisable
class Sharpness(keras.losses.Loss):
    """Mean squared difference of two Sobel gradient magnitudes, per pixel.

    A substitute for the sharpness loss of SAGAN (Yi and Babyn 2018, arXiv:1708.06453, §2.3), whose
    maps come from a network trained to find blur. Nothing here is trained.
    """

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        def edges(x):
            # The small constant keeps the root's gradient finite in flat places.
            return tf.sqrt(tf.add_n([tf.square(g) for g in sobel(x)]) + 1e-6)

        return _each(tf.square(edges(y_pred) - edges(y_true)))


@_serialisable
class GradientConsistency(keras.losses.Loss):
    """1 - mean over the axes of NCC(gradient of a, gradient of b): 0 for equal edges, at most 2.

    Hiasa et al. 2018 (arXiv:1803.06629). NCC is the normalised cross-correlation, so
    that neither brightness nor contrast matters, only where the edges are; gradients are Sobel's.
    Where both gradients' variance is far below 1e-6, nothing is there to compare and NCC is 1.

    Args:
        window: side of the square (cube) in which each NCC is computed, averaged over all
            positions; 0, the paper's, computes one over the whole image.
    """

    def __init__(self, window: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.window = window

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        pairs = zip(sobel(y_true), sobel(y_pred), strict=True)
        values = [_each(self._ncc(a, b)) for a, b in pairs]
        return 1.0 - tf.add_n(values) / len(values)

    def _ncc(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        axes = list(range(1, a.shape.rank - 1))

        def mean(x):
            if not self.window:
                return tf.reduce_mean(x, axis=axes, keepdims=True)
            return tf.nn.avg_pool(x, [1, *[self.window] * len(axes), 1], 1, "VALID")

        # Less the whole image's mean first: what is left is small, and its squares exact.
        a, b = (x - tf.reduce_mean(x, axis=axes, keepdims=True) for x in (a, b))
        mean_a, mean_b = mean(a), mean(b)
        covariance = mean(a * b) - mean_a * mean_b
        # Not below zero, where rounding may take the variance of a flat window.
        variance_a = tf.nn.relu(mean(a * a) - tf.square(mean_a))
        variance_b = tf.nn.relu(mean(b * b) - tf.square(mean_b))
        norm = tf.math.rsqrt((variance_a + 1e-6) * (variance_b + 1e-6))
        return (covariance + 1e-6) * norm

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"window": self.window}


def sobel(images: tf.Tensor) -> list[tf.Tensor]:
    """Sobel gradients along each axis of an image or volume, per pixel, without its border.

    Each is a central difference, smoothed with (1, 2, 1) / 4 along the other axes.
    """
    axes = range(1, images.shape.rank - 1)

    def along(x, axis, weights):
        n = tf.shape(x)[axis] - 2
        part = [slice(None)] * x.shape.rank
        total = 0.0
        for shift, weight in enumerate(weights):
            if weight:
                part[axis] = slice(shift, n + shift)
                total += weight * x[tuple(part)]
        return total

    gradients = []
    for axis in axes:
        y = images
        for other in axes:
            y = along(y, other, (-0.5, 0.0, 0.5) if other == axis else (0.25, 0.5, 0.25))
        gradients.append(y)
    return gradients


@_serialisable
class Air(keras.losses.Loss):
    """L1 where exactly one of the two images lies below `threshold`, 0 elsewhere: air stays air.

    Args:
        threshold: a value in [-1, 1], as the images'.
    """

    def __init__(self, threshold: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.threshold = threshold

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        one = tf.math.logical_xor(y_true < self.threshold, y_pred < self.threshold)
        return _each(tf.where(one, tf.abs(y_pred - y_true), 0.0))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"threshold": self.threshold}


# Losses of one image or code.


class _OfOne(keras.losses.Loss):
    """A loss of one tensor: `loss(x)`. As a Keras loss, `loss(y_true, x)`, it ignores `y_true`."""

    def __call__(self, y_true: Any, y_pred: Any = None, sample_weight: Any = None) -> tf.Tensor:
        y_pred = y_true if y_pred is None else y_pred
        return super().__call__(y_pred, y_pred, sample_weight)


@_serialisable
class TotalVariation(_OfOne):
    """The mean |difference| of neighbours along each axis, summed over the axes (anisotropic TV).

    Rudin, Osher and Fatemi 1992; 0 for a flat image. Called with one image: `loss(images)`.
    """

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        total = 0.0
        for axis in range(1, y_pred.shape.rank - 1):
            n = tf.shape(y_pred)[axis]
            head, tail = [slice(None)] * y_pred.shape.rank, [slice(None)] * y_pred.shape.rank
            head[axis], tail[axis] = slice(0, n - 1), slice(1, n)
            total += _each(tf.abs(y_pred[tuple(tail)] - y_pred[tuple(head)]))
        return total


@_serialisable
class KullbackLeibler(_OfOne):
    """Mean squared code: KL(N(code, I) || N(0, I)) but for a factor (UNIT, Liu et al. 2017).

    arXiv:1703.00848; the authors' code takes the mean where the divergence is half the sum.
    Called with the code's mean, of any shape `[N, ...]`: `loss(code)`.
    """

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return _each(tf.square(y_pred))


# Losses of label maps: one-hot target [N, H, W, K] (or a volume's), logits of the same shape.


@_serialisable
class FocalCrossEntropy(keras.losses.Loss):
    """-(1 - p)^gamma log p, p the softmax of the true class (Lin et al. 2017, arXiv:1708.02002).

    Equation 4; gamma 0 is cross-entropy. The mean is over pixels.
    """

    def __init__(self, gamma: float = 2.0, **kwargs: Any):
        super().__init__(**kwargs)
        if gamma < 0:
            raise ValueError(f"gamma: expected 0 or more. Received: {gamma}")
        self.gamma = gamma

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        log = tf.nn.log_softmax(y_pred)
        # 1 - p without cancellation, and never 0, where the power may have no slope.
        rest = tf.maximum(-tf.math.expm1(log), 1e-7)
        return _each(tf.reduce_sum(-y_true * rest**self.gamma * log, axis=-1))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"gamma": self.gamma}


@_serialisable
class Dice(keras.losses.Loss):
    """1 - mean over classes of (2 sum(p t) + s) / (sum(p) + sum(t) + s), p the softmax: soft Dice.

    After Milletari et al. 2016 (arXiv:1606.04797, §3), with plain sums in the denominator.
    Computed for each example alone. 0 for a perfect map.

    Args:
        smooth: s, in pixels; a class that is in neither map counts as perfect.
    """

    def __init__(self, smooth: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.smooth = smooth

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        p, axes = tf.nn.softmax(y_pred), list(range(1, y_pred.shape.rank - 1))
        both, either = (tf.reduce_sum(x, axis=axes) for x in (p * y_true, p + y_true))
        return 1.0 - tf.reduce_mean((2.0 * both + self.smooth) / (either + self.smooth), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"smooth": self.smooth}


def classification(gamma: float, lambda_dice: float) -> list[tuple[float, keras.losses.Loss]]:
    """Weights and losses of pixel-wise classes: focal cross-entropy, and soft Dice if weighted."""
    terms = [(1.0, FocalCrossEntropy(gamma))]
    return terms + ([(lambda_dice, Dice())] if lambda_dice else [])


# Losses between features.


@_serialisable
class Perceptual(keras.losses.Loss):
    """Mean squared difference of a fixed network's features.

    Johnson et al. 2016 (arXiv:1603.08155), eq. 2. A volume is compared slice by slice. The
    extractor is no part of the model that holds this loss: neither its variables nor its
    checkpoints have its weights.

    Args:
        extractor: from `feature_extractor`, or its name there; or any model of images.
        layer: where `extractor` is a name.
        scale: divides the features; SRGAN takes 12.75.
    """

    def __init__(
        self, extractor: keras.Model | str, layer: str = "", scale: float = 1.0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if isinstance(extractor, str):
            extractor = feature_extractor(extractor, layer)
        self.scale = scale
        # In a function, because Keras saves every model that it finds among attributes.
        self._extractor = lambda: extractor

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        n = tf.shape(y_pred)[0]
        if y_pred.shape.rank == 5:
            space = tf.concat([[-1], tf.shape(y_pred)[2:]], 0)
            y_true, y_pred = (tf.reshape(x, space) for x in (y_true, y_pred))
        extract = self._extractor()
        true, pred = (tf.cast(extract(x, training=False), tf.float32) for x in (y_true, y_pred))
        error = tf.square((pred - true) / self.scale)
        return tf.reduce_mean(tf.reshape(error, [n, -1]), axis=1)

    def get_config(self) -> dict[str, Any]:
        origin = getattr(self._extractor(), "origin", None)
        if origin is None:
            raise ValueError(
                "extractor: only one from feature_extractor can be written into a config. "
                f"Received: {self._extractor().name}"
            )
        return super().get_config() | {**origin, "scale": self.scale}
