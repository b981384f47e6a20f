"""Learned primal-dual: images from sinograms, by a network that holds the physics of the beam.

Adler and Öktem: Learned Primal-Dual Reconstruction, IEEE Trans. Med. Imaging 37 (2018),
arXiv:1707.06474. With A the projector, y the sinogram, f of 5 and h of 5 channels, `iterations`
times:

    h += c3-32 PReLU, c3-32 PReLU, c3-5   of (h, A f[1], y)      sinograms [V, D]
    f += c3-32 PReLU, c3-32 PReLU, c3-5   of (f, A* h[0])        images [n, n]

with other weights each time; the image is f[0]. A and A* are `zoo.physics.tomography`'s, A scaled
to norm 1, and training goes through both. f starts from zero, or with `start=fbp` from the filtered
back-projection.

Input `[N, V, D, 1]`, line integrals; output `[N, n, n, 1]` in HU (or LoDoPaB-CT's normalised
attenuation). Inside, images are attenuation in spans of the target's window. The input is not
clipped to its window: noise about 0 must keep its mean. A network holds for one geometry, which the
recipe has from the data: half a turn of evenly spaced parallel views.

    python cli.py --model=learned_primal_dual --dataset=ct_recon train

What differs from the paper, and why:

    here                                     paper      why
    batches of 4                             1          steadier; `batch_size=1` is the paper's
    the small preset has 4 iterations of 16  10 of 32   learns in minutes on two cores
    channels, and starts from FBP            zero
"""

import dataclasses
import functools
from typing import Annotated, Any, ClassVar, Literal, Self

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import zoo
from zoo import ranges, step
from zoo.domain import Domain
from zoo.layers import constant, scheduled
from zoo.losses import L2
from zoo.models._measured import MeasuredRecipe
from zoo.physics import radon, tomography
from zoo.recipe import DataFacts, Phase
from zoo.step import descend, forward_flops, ready, unscaled
from zoo.translator import Translator

# 1/mm of the value 0 and of each 1 more, by the target's unit; else the value is in 1/mm.
_UNITS = {
    "HU": (radon.MU_WATER, radon.MU_WATER / 1000),
    "normalised attenuation": (0.0, 0.08135858),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedPrimalDualRecipe(MeasuredRecipe):
    """Defaults are the paper's.

    Attributes:
        iterations: of the unrolled method.
        filters: channels between the convolutions.
        memory: channels of f and of h.
        start: what f starts from.
        n: height and width of the image; 0 takes the data's, 64 where there are none.
        spacing_mm: pixel pitch; 0 takes the data's, 5.6 where there are none.
        views: of the sinogram; 0 takes the data's, 32 where there are none.
        detectors: of the sinogram; 0 takes the data's, or as many as see the image.
        detector_mm: their pitch; 0 takes the data's, or the pixels'.
    """

    steps: ranges.Count = 100_000
    batch_size: ranges.Batch = 4
    learning_rate: ranges.Rate = 1e-3
    clip: ranges.Weight = 1.0
    rate_schedule: Literal["own", "constant", "linear", "cosine"] = "cosine"
    iterations: Annotated[int, ranges.Range(1, 64)] = 10
    filters: ranges.Filters = 32
    memory: Annotated[int, ranges.Range(2, 64)] = 5
    start: Literal["zero", "fbp"] = "zero"
    n: ranges.Pixels = 0
    spacing_mm: Annotated[float, ranges.Range(0, 1e4)] = 0.0
    views: ranges.Pixels = 0
    detectors: ranges.Pixels = 0
    detector_mm: Annotated[float, ranges.Range(0, 1e4)] = 0.0

    SMALL: ClassVar[dict[str, Any]] = {
        "steps": 600,
        "iterations": 4,
        "filters": 16,
        "start": "fbp",
        "image_every": 200,
        "checkpoint_every": 200,
    }

    GOOD: ClassVar[dict[str, Any]] = {"steps": 30_000, "start": "fbp"}

    @property
    def geometry(self) -> dict[str, Any]:
        """The arguments of `zoo.physics.tomography.ParallelBeam`."""
        size, spacing_mm = self.n or 64, self.spacing_mm or 5.6
        detector_mm = self.detector_mm or spacing_mm
        detectors = self.detectors or radon.covering(size, spacing_mm, detector_mm)
        return {
            "size": size,
            "spacing_mm": spacing_mm,
            "views": self.views or 32,
            "detectors": detectors,
            "detector_mm": detector_mm,
        }

    def resolve(self, facts: DataFacts) -> Self:
        """The recipe with the geometry of the data.

        Raises:
            ValueError: for data that do not say it, and another one than the recipe's.
        """
        beam = facts.beam
        if beam is None:
            raise ValueError(
                "dataset: expected sinograms of a parallel beam, as of ct_recon. "
                f"Received: {facts.source.words} without one"
            )
        known = {"n" if name == "size" else name: value for name, value in beam.items()}
        for name, value in known.items():
            if getattr(self, name) not in (0, value):
                raise ValueError(
                    f"{name}: expected the data's, {value}. Received: {getattr(self, name)}"
                )
        return dataclasses.replace(self, **known)


@functools.lru_cache(maxsize=4)
def _beam(**geometry: Any) -> tomography.ParallelBeam:
    return tomography.ParallelBeam(**geometry)


@keras.saving.register_keras_serializable(package="zoo")
class BeamLayer(layers.Layer):
    """A parallel beam's projector of norm 1, its adjoint, or filtered back-projection.

    "forward": images `[N, n, n, 1]` to sinograms `[N, V, D, 1]`; "adjoint" and "fbp" back.

    Args:
        geometry: the arguments of `zoo.physics.tomography.ParallelBeam`.
        direction: which of the three.
    """

    def __init__(self, geometry: dict[str, Any], direction: str, **kwargs: Any):
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.geometry, self.direction = dict(geometry), direction
        self._beam = _beam(**geometry)
        self._size = self._beam.norm()

    def call(self, x: tf.Tensor) -> tf.Tensor:
        if self.direction == "forward":
            found = self._beam.forward(x[..., 0]) / self._size
        elif self.direction == "adjoint":
            found = self._beam.adjoint(x[..., 0]) / self._size
        else:
            found = self._beam.pseudo_inverse(x[..., 0], "hann") * self._size
        return found[..., None]

    def compute_output_shape(self, shape: tuple) -> tuple:
        forward = self.direction == "forward"
        sides = self._beam.range_shape if forward else self._beam.domain_shape
        return (shape[0], *sides, 1)

    def get_config(self) -> dict[str, Any]:
        own = {"geometry": self.geometry, "direction": self.direction}
        return super().get_config() | own


def learned_primal_dual(
    recipe: LearnedPrimalDualRecipe, source: Domain, target: Domain
) -> keras.Model:
    """The network: `[N, V, D, 1]` to float32 `[N, n, n, 1]`, both with their windows as [-1, 1].

    Args:
        recipe: geometry and widths.
        source, target: domains of sinogram and image.
    """
    geometry, memory = recipe.geometry, recipe.memory
    zero, one = _UNITS.get(target.unit, (0.0, 1.0))
    low, high = (zero + one * value for value in target.window)
    size = _beam(**geometry).norm()

    def update(x: Any, name: str) -> Any:
        for k in range(2):
            x = layers.Conv2D(recipe.filters, 3, padding="same", name=f"{name}_{k}")(x)
            x = layers.PReLU(shared_axes=[1, 2], alpha_initializer="zeros")(x)
        return layers.Conv2D(memory, 3, padding="same", name=f"{name}_2", dtype="float32")(x)

    # Attenuation in spans of the window, and projections of norm 1.
    inputs = keras.Input((geometry["views"], geometry["detectors"], 1))
    scale = 1 / ((high - low) * size)
    half = source.span / 2
    y = layers.Rescaling(half * scale, (source.window[0] + half) * scale, dtype="float32")(inputs)
    image = BeamLayer(geometry, "fbp")(y)
    if recipe.start == "zero":
        image = layers.Rescaling(0.0, dtype="float32")(image)
    f = layers.Concatenate(dtype="float32")([image] * memory)
    h = layers.Concatenate(dtype="float32")([layers.Rescaling(0.0, dtype="float32")(y)] * memory)
    # The iterations.
    for k in range(recipe.iterations):
        seen = BeamLayer(geometry, "forward")(f[..., 1:2])
        x = layers.Concatenate(dtype="float32")([h, seen, y])
        h = layers.Add(dtype="float32")([h, update(x, f"dual{k}")])
        back = BeamLayer(geometry, "adjoint")(h[..., :1])
        x = layers.Concatenate(dtype="float32")([f, back])
        f = layers.Add(dtype="float32")([f, update(x, f"primal{k}")])
    # The window's ends are -1 and 1.
    outputs = layers.Rescaling(2.0, -1.0 - 2 * low / (high - low), dtype="float32")(f[..., :1])
    return keras.Model(inputs, outputs, name="learned_primal_dual")


@zoo.register("learned_primal_dual")
class LearnedPrimalDual(Translator):
    """Learned primal-dual: sinograms of one geometry to images.

    Example:
        >>> sinogram = Domain(modality="CT", unit="line integral", window=(0, 8))
        >>> hu = Domain(modality="CT", unit="HU", window=(-1024, 1500))
        >>> model = zoo.load("learned_primal_dual", n=32, iterations=2, source=sinogram, target=hu)
        >>> model.translate(np.zeros([32, 48], "float32")).shape
        (32, 32)
    """

    recipe_class = LearnedPrimalDualRecipe
    recipe: LearnedPrimalDualRecipe
    takes = ("sinograms",)

    def __init__(
        self, recipe: LearnedPrimalDualRecipe, source: Domain, target: Domain, **kwargs: Any
    ):
        super().__init__(recipe, source, target, **kwargs)
        self.network = learned_primal_dual(recipe, source, target)

    @property
    def tiles(self) -> bool:
        return False  # a ray crosses the whole image

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)
        if self.optimizer is None:
            rate = scheduled(self.recipe, self.recipe.learning_rate, constant)
            self.optimizer = step.Adam(rate, beta_2=0.99)
        self.network_optimizer = ready(self, self.network.trainable_variables, self.optimizer)

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """One step on the squared error of values scaled to [-1, 1]."""
        target = self.target.encode(tf.cast(batch["target"], tf.float32))
        with tf.GradientTape() as tape:
            values = self.values(tf.cast(batch["source"], tf.float32), training=True)
            share = L2()(target, values)
        descend(self.network_optimizer, tape, share, self.network.trainable_variables)
        return {"loss": unscaled(share)} | self.pixel_logs(values, target)

    def values(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.network(self.source.scale(images), training=training)  # not clipped

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Reconstruct images.

        Args:
            images: `[N, V, D, 1]`, line integrals.
            training: has no effect.

        Returns:
            float32 `[N, n, n, 1]` in the target's unit.

        Raises:
            ValueError: for another size than the geometry's.
        """
        self._check_shape(images.shape)
        return super().call(images, training)

    def translate(self, array: np.ndarray, batch_size: int = 1) -> np.ndarray:
        if np.ndim(array) == 4:
            self._check_shape(np.shape(array))
        return super().translate(array, batch_size)

    def baseline(self, source: np.ndarray) -> tuple[np.ndarray | None, str]:
        """Filtered back-projection, "FBP"."""
        zero, one = _UNITS.get(self.target.unit, (0.0, 1.0))
        image = _beam(**self.recipe.geometry).pseudo_inverse(source[..., 0], "hann").numpy()
        return ((image - zero) / one).astype("float32")[..., None], "FBP"

    def training_flops(self, phase: Phase, sides: tuple[int, ...]) -> float:
        return 3.0 * phase.batch_size * forward_flops(self.network, self.network.input_shape[1:])

    def _check_shape(self, shape: tuple) -> None:
        views, detectors = self.network.input_shape[1:3]
        if shape[1] not in (views, None) or shape[2] not in (detectors, None):
            raise ValueError(
                f"array: expected sinograms of {views} x {detectors}, for which the network was "
                f"made. Received: shape {tuple(shape)}"
            )
