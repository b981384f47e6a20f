"""Random changes of training images."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from zoo import registry
from zoo.domain import Domain
from zoo.recipe import DataFacts, Recipe, per_axis

_EXACT, _SIGNAL, _SLICES = 3, 4, 5  # folded into a stream's seed: for flips and turns, and so on
_TERMS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 0, 0), (0, 2, 0), (0, 0, 2), (1, 1, 0), (1, 0, 1),
          (0, 1, 1))  # fmt: skip  # powers of x, y and, of volumes, z in a bias field


def augment(
    images: list[tf.Tensor],
    recipe: Recipe,
    seed: tf.Tensor,
    size: int = 0,
    factors: Sequence[int] | None = None,
    labels: Sequence[bool] | None = None,
) -> list[tf.Tensor]:
    """Crop, mirror, move, turn, scale and shrink images, all in the same way.

    Rotation and zoom make one bilinear resampling (label maps: nearest), which takes about a third
    of white noise away. Crop, flips, turns by 90° and shifts (of whole pixels) move pixels as they
    are: every value of the result is one of the image's. Beyond the border the image is mirrored.

    Args:
        images: images of one extent, `[H, W, C]` of any type; or volumes `[D, H, W, C]`, which are
            cropped, mirrored and turned in their slices, or mirrored along them, only.
        recipe: crop, flip, flip_up_down, flip_slices, turn, shift, rotation and zoom; `shift`
            counts pixels of the coarsest image.
        seed: int32 `[2]`, a stateless seed.
        size: height and width of the result; 0 leaves those of the crop or of the image.
        factors: of each image, its sides over those of the first, which is the coarsest; None: 1.
        labels: of each image, whether it is a label map; None: none is.

    Returns:
        float32 images `[h, w, C]`, no value outside the range of the image's own; label maps
        keep their type.
    """
    factors = factors or [1] * len(images)
    labels = labels or [False] * len(images)
    axes = images[0].shape.rank - 1
    draws = tf.random.stateless_uniform((8,), seed, -1.0, 1.0)
    whole = tf.shape(images[0])[:axes]
    # Sides of the window on the coarsest image.
    sides = tuple(side // max(factors) for side in per_axis(recipe.crop, axes))
    if recipe.crop:
        window = tf.constant(sides)
        room = whole - window
        place = tf.concat([draws[7:], draws[:2]], 0)[-axes:]
        place = (place + 1.0) / 2.0 * tf.cast(room + 1, tf.float32)
        # The product may round up to room + 1. A smaller image lies in the middle.
        start = tf.where(room > 0, tf.minimum(tf.cast(place, tf.int32), room), room // 2)
    else:
        window = tf.repeat(tf.reduce_min(whole), axes) if size else whole
        start = (whole - window) // 2
    if recipe.shift:
        start += tf.cast(tf.round(draws[2:4] * recipe.shift), tf.int32)
    mirror = draws[4] < 0 if recipe.flip else tf.constant(False)
    angle = draws[5] * recipe.rotation * np.pi / 180
    scale = 1.0 + draws[6] * recipe.zoom
    # Of a seed of their own, so that the draws above stay what they are.
    own_seed = tf.random.experimental.stateless_fold_in(seed, _EXACT)
    turned = tf.random.stateless_uniform((2,), own_seed, maxval=4, dtype=tf.int32)
    quarters, upside_down = turned[0], turned[1] < 2
    slices_seed = tf.random.experimental.stateless_fold_in(seed, _SLICES)
    backwards = tf.random.stateless_uniform((), slices_seed) < 0.5

    def change(image: tf.Tensor, factor: int, label: bool) -> tf.Tensor:
        cropped = [side * factor for side in sides]
        shape = [*(cropped if recipe.crop else image.shape[:-1]), image.shape[-1]]
        first, extent = start * factor, window * factor
        if recipe.rotation or recipe.zoom:
            image = affine(image, first, extent, angle, scale, mirror, nearest=label)
        else:
            if recipe.crop or recipe.shift or size:
                image = _take(image, first, extent)
            if recipe.flip:  # `image[:, ::-1]` and `tf.where` are several times slower
                image = tf.cond(mirror, lambda: tf.reverse(image, [axes - 1]), lambda: image)
            if not label:
                image = tf.cast(image, tf.float32)
        if recipe.flip_up_down:
            flipped = image
            image = tf.cond(upside_down, lambda: tf.reverse(flipped, [axes - 2]), lambda: flipped)
        if recipe.flip_slices:
            upright = image
            image = tf.cond(backwards, lambda: tf.reverse(upright, [0]), lambda: upright)
        if recipe.turn:  # of a volume each slice
            image = tf.image.rot90(image, quarters)
        if size:
            image = tf.image.resize(image, [size, size], method="nearest" if label else "area")
            shape = [size, size, shape[-1]]
        return tf.ensure_shape(image, shape)

    for image, factor in zip(images, factors, strict=True):
        message = (
            f"source and target of a pair have different sizes, or not {factor} to 1"
            if factor > 1
            else "source and target of a pair have different sizes"
        )
        tf.debugging.assert_equal(tf.shape(image)[:axes], whole * factor, message)
    return [change(*each) for each in zip(images, factors, labels, strict=True)]


def _take(image: tf.Tensor, start: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """The pixels of a window of `[..., C]`, mirrored where it reaches over the border."""
    axes = image.shape.rank - 1
    whole = tf.shape(image)[:axes]

    def mirrored():
        taken = image
        for axis in range(axes):
            index = (start[axis] + tf.range(window[axis])) % (2 * whole[axis])
            index = tf.minimum(index, 2 * whole[axis] - 1 - index)
            taken = tf.gather(taken, index, axis=axis)
        return taken

    def inside():
        begin, sides = tf.concat([start, [0]], 0), tf.concat([window, [-1]], 0)
        return tf.slice(image, begin, sides)

    fits = tf.reduce_all(start >= 0) & tf.reduce_all(start + window <= whole)
    return tf.cond(fits, inside, mirrored)


def affine(
    image: tf.Tensor,
    start: tf.Tensor,
    window: tf.Tensor,
    angle: tf.Tensor,
    scale: tf.Tensor,
    mirror: tf.Tensor,
    nearest: bool = False,
) -> tf.Tensor:
    """Resample a window of an image, turned, scaled and mirrored about the window's centre.

    The pixel at offset (y, x) from the centre takes the value at the offset
    (f x sin a + y cos a, f x cos a - y sin a) / s of the input, f = -1 where mirrored, else 1.

    Args:
        image: `[H, W, C]`.
        start: row and column of the window's first pixel, int32 `[2]`, possibly outside.
        window: its height and width, int32 `[2]`.
        angle: a, in radians; a positive one turns the content counter-clockwise.
        scale: s, magnification.
        mirror: bool, left to right.
        nearest: take the nearest pixel's value, as label maps need.

    Returns:
        float32 `[*window, C]`: bilinear, mirrored beyond the border; of the image's own type with
        `nearest`.
    """
    half = (tf.cast(window, tf.float32) - 1.0) / 2.0
    centre = tf.cast(start, tf.float32) + half
    cos, sin = tf.cos(angle) / scale, tf.sin(angle) / scale
    sign = tf.where(mirror, -1.0, 1.0)
    # (x, y) -> (a0 x + a1 y + a2, b0 x + b1 y + b2)
    a0, a1, b0, b1 = sign * cos, -sin, sign * sin, cos
    a2 = centre[1] - a0 * half[1] - a1 * half[0]
    b2 = centre[0] - b0 * half[1] - b1 * half[0]
    zero = tf.zeros_like(a0)
    if not nearest:
        image = tf.cast(image, tf.float32)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=tf.stack([a0, a1, a2, b0, b1, b2, zero, zero])[None],
        output_shape=window,
        fill_value=0.0,
        interpolation="NEAREST" if nearest else "BILINEAR",
        fill_mode="REFLECT",
    )[0]


def check_signal(recipe: Recipe, source: Domain) -> None:
    """Refuse `gamma` and `bias_field` where no image is one whose numbers mean what a scanner says.

    Raises:
        ValueError: for sources, or single images, without an MR signal among them.
    """
    changes = {name: getattr(recipe, name) for name in ("gamma", "bias_field")}
    parts = [domain for domain, _ in source.parts.values()]
    if any(changes.values()) and not any(map(_is_signal, parts)):
        name = next(name for name, value in changes.items() if value)
        raise ValueError(
            f"{name}: expected MR images, whose signal has no unit; values in {source.unit} are "
            f"calibrated and stay. Received: {name}={changes[name]:g} with {source.modality} in "
            f"{source.unit}"
        )


def _is_signal(domain: Domain) -> bool:
    return domain.modality in ("MR", "OT") and domain.unit == "signal"  # NIfTI names no modality


def vary_signal(image: tf.Tensor, domain: Domain, recipe: Recipe, seed: tf.Tensor) -> tf.Tensor:
    """An MR image as another scanner might give it: other contrast curve, other gain of its coils.

    `gamma`: x becomes x^e, x the value in its window, from 0 at one end to 1 at the other, and
    log e uniform within ±log(1 + gamma); both ends stay, and what lies beyond them does.
    `bias_field`: the signal times exp(p log(1 + bias_field)), p a random polynomial of second
    degree in the coordinates, nowhere beyond ±1.

    Args:
        image: float32 `[H, W, C]` or `[D, H, W, C]`; of several inputs each that is no MR is left,
            and each that is has draws of its own.
        domain: what its numbers mean.
        recipe: gamma and bias_field.
        seed: int32 `[2]`, a stateless seed; with it images of another resolution change alike.

    Returns:
        float32 of the same shape.
    """
    own_seed = tf.random.experimental.stateless_fold_in(seed, _SIGNAL)
    changed = []
    for number, (part, channels) in enumerate(domain.parts.values()):
        values = image[..., channels]
        part_seed = tf.random.experimental.stateless_fold_in(own_seed, number)
        draws = tf.random.stateless_uniform((2 + len(_TERMS),), part_seed, -1.0, 1.0)
        if recipe.gamma and _is_signal(part):
            low, span = part.window[0], part.span
            place = (values - low) / span
            exponent = tf.pow(1.0 + recipe.gamma, draws[0])
            curved = low + span * tf.pow(tf.clip_by_value(place, 0.0, 1.0), exponent)
            values = tf.where((place > 0) & (place < 1), curved, values)
        if recipe.bias_field and _is_signal(part):
            values *= tf.exp(np.log1p(recipe.bias_field) * _polynomial(values, draws[1:]))
        changed.append(values)
    return tf.concat(changed, axis=-1)


def _polynomial(image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """A polynomial over an image's extent, -1 to 1 along each axis; `draws`: how much, and of what.

    Returns:
        float32 `[H, W, 1]` or `[D, H, W, 1]` within -1 and 1.
    """
    axes = image.shape.rank - 1
    places = []
    for axis in reversed(range(axes)):  # x first
        side = tf.cast(tf.shape(image)[axis], tf.float32)
        place = (2.0 * tf.range(side) + 1.0) / side - 1.0
        places.append(tf.reshape(place, [-1] + [1] * (axes - axis)))
    total, size = tf.zeros([1] * (axes + 1)), tf.constant(1e-6)
    for number, powers in enumerate(_TERMS):
        if axes == 2 and powers[2]:
            continue
        term = tf.ones([])
        for place, power in zip(places, powers, strict=False):
            term *= place**power
        total += draws[1 + number] * term
        size += tf.abs(draws[1 + number])
    return draws[0] * total / size


def noise_lost(dataset: str, facts: DataFacts, recipe: Recipe) -> str:
    """A warning that the recipe's augmentations smooth the noise that is to be learned, or "".

    Only where the data are for denoising, and source and target mean the same.
    """
    used = [name for name in ("rotation", "zoom") if getattr(recipe, name)]
    fields, _ = registry.dataset_fields(dataset)
    source, target = facts.source, facts.target
    same = (source.modality, source.unit) == (target.modality, target.unit)
    if not (used and facts.kind != "single" and same and "denoising" in fields["tasks"]):
        return ""
    return (
        f"Warning: {' and '.join(used)} interpolate, which takes about a third of the noise away "
        "that the model is to learn; turn, flip, flip_up_down and shift move pixels as they are."
    )
