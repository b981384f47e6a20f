"""`Translator`, the base of every model: physical units in, physical units out."""

import hashlib
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo import figures, guards, tiled
from zoo.bicubic import enlarge
from zoo.cache import file_sha256
from zoo.domain import Domain
from zoo.imaging import tiling
from zoo.layers import pad_to_multiple
from zoo.physics import fourier
from zoo.recipe import Phase, Recipe
from zoo.step import forward_flops


class Translator(keras.Model):
    """A model that turns images of one domain into images of another.

    A plugin builds its networks in `__init__`, its optimizers in `compile`, and says in
    `train_step` what one step does. It sets `network`, the Keras model that is served; the base
    puts the intensity windows, padding and tiling around it.

    Args:
        recipe: the plugin's `Recipe`.
        source: meaning of the input's numbers.
        target: meaning of the output's numbers.
    """

    recipe_class = Recipe
    recipe: Recipe
    data = "paired"  # what it trains on: paired, unpaired (pairs will do) or single
    classifies = False  # whether it can learn label maps, the class of each pixel
    generates = False  # whether it makes images from noise, by `generate`
    takes: tuple[str, ...] = ("images",)  # what its source may be: images, k-space, sinograms
    registered_name = ""
    network: keras.Model
    trained_on: Mapping[str, Any] | None = None  # as in `registry.Entry`

    def __init__(self, recipe: Recipe, source: Domain, target: Domain, **kwargs: Any):
        kwargs.setdefault("name", self.registered_name or None)
        super().__init__(**kwargs)
        self.recipe = recipe
        self.source = source
        self.target = target

    # What a plugin may change.

    @property
    def size_multiple(self) -> int:
        """The sides of what the network takes are multiples of this; `call` pads to it."""
        return self.recipe.size_multiple

    @property
    def scale(self) -> int:
        """Output pixels along one input pixel."""
        return self.recipe.scale

    @property
    def dimensions(self) -> int:
        """Axes of an image: 2, or 3 for a model of volumes."""
        return self.recipe.dimensions

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of a pixel-wise classifier's classes, where the data had them."""
        return self.recipe.label_names if self.classes else ()

    @property
    def classes(self) -> int:
        """Number of classes of a pixel-wise classifier, whose output is a label map; else 0."""
        return self.target.classes

    @property
    def precision(self) -> str:
        """What the network computes in: float32, bfloat16 or float16; its output is float32."""
        return self.compute_dtype

    @property
    def tile_margin(self) -> int:
        """Pixels at a tile's edge that its surroundings would change; tiles overlap by twice it."""
        return 32

    @property
    def tiles(self) -> bool:
        """Whether a large image may be translated in tiles."""
        return True

    @property
    def residual(self) -> bool:
        """Whether the network gives a correction to its input and not an image.

        Raises:
            ValueError: for a residual between domains whose numbers mean different things.
        """
        output, fields = self.recipe.output, ("modality", "unit", "window", "inputs")
        shared = all(getattr(self.source, f) == getattr(self.target, f) for f in fields)
        if output == "residual" and not shared:
            raise ValueError(
                "output: a residual needs the same modality, unit and window on both sides. "
                f"Received: {self.source} and {self.target}"
            )
        return output in ("residual", "auto") and shared and self.target.channels == 1

    def enter(self, phase: Phase) -> None:
        """Make ready for a phase, before its `train_step` is traced. Must not change weights."""

    def begin(self, phase: Phase) -> None:
        """Called once as a phase starts, never when one resumes: reset what it resets."""

    def continue_from_network(self) -> None:
        """Called when `network` was given weights to train from: pass them on to what is trained.

        Only where that is another network, whose moving average `network` is.
        """

    def training_flops(self, phase: Phase, sides: tuple[int, ...]) -> float:
        """Floating-point operations of one step, roughly: forward and backward of the network.

        Args:
            phase: whose batch size it is.
            sides: of the target's patches, (H, W) or (D, H, W).
        """
        shape = (*(side // self.scale for side in sides), self.source.channels)
        return 3.0 * phase.batch_size * forward_flops(self.network, shape)

    def picture(self, examples: list[dict[str, np.ndarray]]) -> np.ndarray:
        """uint8 `[H, W, 3]` to look at while training: source | output | target | error."""
        rows, measured = [], False
        for example in examples:
            with guards.silent():
                output = self.translate(example["source"][None])[0]
            row = {k: example["source"][..., at] for k, (_, at) in self.source.parts.items()}
            row |= {"output": output, "target": example["target"]}
            baseline, _ = self.baseline(example["source"])
            measured = measured or (baseline is not None and self.source.measured)
            if baseline is not None and not self.source.inputs:
                row["source"] = baseline
            if self.dimensions == 3:  # the middle slice
                row = {key: volume[len(volume) // 2] for key, volume in row.items()}
            rows.append(row)
        shown = self.target if measured else self.source
        domains = {name: part for name, (part, _) in shown.parts.items()}
        domains |= {"output": self.target, "target": self.target}
        windows = {name: domain.window for name, domain in domains.items()}
        ct = [name for name, domain in domains.items() if domain.unit == "HU"]
        unit = self.target.unit
        return figures.grid(rows, windows, error=("output", "target"), unit=unit, ct=ct)

    def baseline(self, source: np.ndarray) -> tuple[np.ndarray | None, str]:
        """What there is without a model: an estimate of the target, and what it is called.

        The input itself (of several the first of the target's modality and unit, of neighbouring
        slices the middle one), enlarged by bicubic interpolation to the target's size, or the
        inverse Fourier transform of k-space whose gaps are zero.

        Args:
            source: `[H, W, C]`, or `[D, H, W, C]` for a model of volumes, in the source's unit.

        Returns:
            float32 of the target's shape, or None where source and target mean different things.
        """
        if self.source.unit == "k-space":
            return fourier.zero_filled(source).astype("float32"), "zero-filled"
        given = self.source.like(self.target)
        if given is None or given[0].unit != self.target.unit or self.classes:
            return None, ""
        source, name = source[..., given[1]], f"input {given[0].name}".strip()
        if source.shape[-1] != self.target.channels:
            if source.shape[-1] % 2 == 0 or self.target.channels != 1:
                return None, ""
            source = source[..., source.shape[-1] // 2, None]
        if self.scale == 1:
            return source, name
        return enlarge(tf.constant(source[None]), self.scale).numpy()[0], f"{name}, bicubic"

    # What is served.

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Translate images.

        Args:
            images: `[N, H, W, C]` in the source's unit, H and W free; `[N, D, H, W, C]` for a
                model of volumes.
            training: whether dropout and batch statistics are those of training.

        Returns:
            float32 `[N, H', W', C']` in the target's unit, H' and W' `scale` times H and W; of a
            classifier the number of each pixel's likeliest class.
        """
        if self.classes:
            best = tf.argmax(self.probabilities(images, training), axis=-1)
            return tf.cast(best[..., None], tf.float32)
        images = tf.cast(images, tf.float32)
        return self.target.decode(self._cropped_values(images, training))

    def probabilities(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """A classifier's float32 `[N, H, W, classes]`, which add up to 1 at each pixel."""
        return tf.nn.softmax(self._cropped_values(tf.cast(images, tf.float32), training))

    def _cropped_values(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        return self.cropped(self.values, images, training)

    def cropped(self, values: Callable[..., tf.Tensor], images: tf.Tensor, training: bool):
        """What `values` makes of images padded to the network's multiple, cropped back."""
        if self.size_multiple == 1:
            return values(images, training)
        axes = range(1, self.dimensions + 1)
        inside = [slice(tf.shape(images)[axis] * self.scale) for axis in axes]
        padded = pad_to_multiple(images, self.size_multiple)
        return values(padded, training)[(slice(None), *inside)]

    def values(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """What the network makes of physical images, as values of the target's scale."""
        values = self.network(self.source.encode(images), training=training)
        if self.residual:
            middle = self.unclipped(images)
            values += middle if self.scale == 1 else enlarge(middle, self.scale)
        return values

    def unclipped(self, images: tf.Tensor) -> tf.Tensor:
        """Of physical images the middle channel's values, as a residual's correction is added to.

        What lies beyond the window passes through unharmed.
        """
        centre = self.source.channels // 2
        return self.source.scale(images[..., centre : centre + 1])

    def target_values(self, images: tf.Tensor) -> tf.Tensor:
        """What `values` should be, from physical target images; of a classifier one-hot."""
        if self.classes:
            return tf.one_hot(tf.cast(images[..., 0], tf.int32), self.classes)
        return self.target.scale(images) if self.residual else self.target.encode(images)

    def pixel_logs(self, values: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        """How near `values` come to `target_values`: mean absolute error in the target's unit.

        Of a classifier: the fraction of pixels whose class is right.
        """
        if self.classes:
            right = tf.argmax(values, -1) == tf.argmax(target, -1)
            return {"accuracy": tf.reduce_mean(tf.cast(right, tf.float32))}
        return {"mae": tf.reduce_mean(tf.abs(values - target)) * (self.target.span / 2)}

    def of_one_domain(self, field: str) -> bool:
        """Whether a recipe's `field` that compares source and target is on.

        "auto" is where they are one domain.

        Raises:
            ValueError: for one that is on with classes, or with domains that are not the same.
        """
        wanted, one = getattr(self.recipe, field), not self.classes and self.source == self.target
        if wanted is True and not one:
            raise ValueError(
                f"{field}: expected a source and a target that share a window. "
                f"Received: {self.source} and {self.target}"
            )
        return one if wanted == "auto" else wanted

    def translate(self, array: np.ndarray, batch_size: int = 1) -> np.ndarray:
        """Translate a NumPy image, stack or batch of any size, in tiles where it is large.

        A pretrained model warns (`zoo.guards.UntrainedInput`) of an input that is far from what it
        was trained on, and translates it all the same.

        Args:
            array: `[H, W]`, `[N, H, W]` or `[N, H, W, C]` in the source's unit; for a model of
                volumes `[D, H, W]`, `[N, D, H, W]` or `[N, D, H, W, C]`. N may be 0.
            batch_size: tiles or images that go through the network at once.

        Returns:
            float32 of the same rank, in the target's unit; every side is `scale` times the
            input's.

        Raises:
            ValueError: for another rank, other channels, images without pixels, or values that are
                not finite.
        """
        return tiled.translated(self, array, batch_size)

    def translate_slices(
        self, read: tiling.Read, shape: Sequence[int], batch_size: int = 1
    ) -> Iterator[np.ndarray]:
        """Translate a volume that need not fit into memory: what `translate` gives, slice by slice.

        No more is held than the slices of two rows of tiles (the recipe's `tile`) and their
        results, however many slices there are. It does not warn of untrained inputs.

        Args:
            read: start and stop to float32 `[stop - start, H, W, C]` in the source's unit. It is
                asked in order, but for slices that tiles share.
            shape: the volume's (D, H, W).
            batch_size: tiles that go through the network at once.

        Yields:
            float32 `[H', W', C']` in the target's unit, from the first slice to the last.

        Raises:
            ValueError: for a model of images, and for slices of another shape or not finite.
        """
        if self.dimensions != 3:
            raise ValueError(
                f"dimensions: expected a model of volumes. Received: {self.name} of images"
            )
        answers = tiled.answered_slices(self, read, shape, batch_size)
        return (tiled.decided(self, answer) for answer in answers)

    def generate(self, n: int, seed: int = 0, first: int = 0) -> np.ndarray:
        """New images `[n, H, W, C]` in the target's unit; only generators have them.

        Image k depends on (seed, k) alone; `first` is the number of the first one.

        Raises:
            TypeError: for a model that translates images.
        """
        raise TypeError(f"{self.name} translates images and does not generate them from nothing.")

    def serve(self, images: np.ndarray) -> np.ndarray:
        """A batch through the network: what `call` gives, of a classifier `probabilities`."""
        if self._served is None:
            serve = self.probabilities if self.classes else self
            self._served = tf.function(lambda x: serve(x, training=False), reduce_retracing=True)
        return self._served(tf.constant(images)).numpy()

    _served: Callable[[tf.Tensor], tf.Tensor] | None = None

    # Keras conventions.

    optimizer: Any  # set by `compile`

    @property
    def optimizers(self) -> tuple[str, ...]:
        """Names of the attributes that hold optimizers; several are listed by the plugin."""
        return ("optimizer",)

    def compile(
        self,
        optimizer: Any = None,
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Prepare for training; a plugin makes its optimizers here, from the recipe.

        Args:
            optimizer: in place of the recipe's, for a model that has one.
            loss, loss_weights, metrics, weighted_metrics: not taken; the recipe sets the losses.
            **kwargs: Keras's others, such as `run_eagerly`.

        Raises:
            ValueError: for what would not be used.
        """
        unused = dict(loss=loss, loss_weights=loss_weights, metrics=metrics)
        for name, value in (unused | dict(weighted_metrics=weighted_metrics)).items():
            if value:
                raise ValueError(
                    f"{name}: expected none, because {self.name} trains on the losses of its "
                    f"recipe and measures its own figures. Received: {value}"
                )
        if optimizer is not None and len(self.optimizers) > 1:
            raise ValueError(
                f"optimizer: expected none, because {self.name} has {len(self.optimizers)} "
                f"({', '.join(self.optimizers)}), made from its recipe. Received: {optimizer}"
            )
        # XLA is slower than oneDNN on a CPU and does not work under MirroredStrategy.
        super().compile(optimizer, **{"jit_compile": False, "auto_scale_loss": False} | kwargs)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Keras's own, for data as a `train_step` takes them.

        Args:
            x: a `tf.data.Dataset` of dictionaries, or one dictionary of arrays, with "source" and
                "target", or "image"; or the sources or images alone.
            y: the targets where x are the sources.
            validation_data: as x, or the pair (x, y).
            callbacks: those that set a learning rate need `compile(optimizer=…)`.
            class_weight, sample_weight: not taken.

        Raises:
            ValueError: for data of another form, and for what would not be used.
        """
        self._refuse_weights(class_weight=class_weight, sample_weight=sample_weight)
        self._check_rates(callbacks)
        if isinstance(validation_data, tuple | list):
            validation_data = self._batches(*validation_data)
        return super().fit(
            self._batches(x, y),
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            **kwargs,
        )

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's own, for data as `fit` takes them: the figures of `test_step` over all images."""
        self._refuse_weights(sample_weight=kwargs.get("sample_weight"))
        return super().evaluate(self._batches(x, y), None, *args, **kwargs)

    def _refuse_weights(self, **given: Any) -> None:
        for name, value in given.items():
            if value is not None:
                raise ValueError(
                    f"{name}: expected none, because {self.name} weights all images alike. "
                    f"Received: {type(value).__name__}"
                )

    def _batches(self, x: Any, y: Any = None, weights: Any = None) -> Any:
        """Data as a step takes them: dictionaries."""
        self._refuse_weights(sample_weight=weights)
        keys = ("image",) if self.data == "single" else ("source", "target")
        if y is not None and len(keys) == 2 and not isinstance(x, dict):
            return {"source": x, "target": y}
        if y is None and len(keys) == 1 and isinstance(x, np.ndarray | tf.Tensor):
            return {"image": x}
        spec = getattr(x, "element_spec", x)
        named = isinstance(spec, dict)
        opaque = not isinstance(spec, tuple | list | np.ndarray | tf.Tensor | tf.TensorSpec)
        if y is not None or not (all(key in spec for key in keys) if named else opaque):
            received = f"{sorted(spec)}" if named else type(spec).__name__
            raise ValueError(
                f"x: expected dictionaries with {' and '.join(keys)}. Received: {received}"
            )
        return x

    def _check_rates(self, callbacks: Any) -> None:
        """A ValueError for a callback that would set a rate which is not that of the steps."""
        setting = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)
        given = getattr(callbacks, "callbacks", callbacks) or []
        given = given if isinstance(given, list | tuple) else [given]
        schedules = keras.optimizers.schedules.LearningRateSchedule
        for name in (type(c).__name__ for c in given if isinstance(c, setting)):
            if len(self.optimizers) > 1:
                why = f"{self.name} has {len(self.optimizers)} optimizers with rates of its recipe"
            elif isinstance(getattr(self.optimizer, "_learning_rate", None), schedules):
                why = (
                    f"{self.name} follows the recipe's schedule; "
                    "compile(optimizer=keras.optimizers.Adam(rate)) gives a rate that can be set"
                )
            else:
                continue
            raise ValueError(f"callbacks: {why}. Received: {name}")

    def make_test_function(self, *args: Any, **kwargs: Any) -> Any:
        """Keras's own; from here on `test_step` gives means over all images since a reset."""
        if self._means is None:
            names = ("accuracy",) if self.classes else ("mae", "psnr")
            # Keras would track a dictionary as a part of the model, and of its checkpoints.
            means = {name: keras.metrics.Mean(name) for name in names}
            self._means = types.MappingProxyType(means)
        return super().make_test_function(*args, **kwargs)

    @property
    def metrics(self) -> list[keras.Metric]:
        return super().metrics + list((self._means or {}).values())

    _means: Mapping[str, keras.metrics.Mean] | None = None

    def _averaged_figures(self, figures: dict[str, tf.Tensor], count: int) -> dict[str, tf.Tensor]:
        for name, mean in (self._means or {}).items():
            mean.update_state(figures[name], sample_weight=count)
            figures = figures | {name: mean.result()}
        return figures

    def test_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """Mean absolute error, in the target's unit, and PSNR in its window.

        Of a classifier: the fraction of pixels that it gives their class.
        """
        output = self(batch["source"], training=False)
        target = tf.cast(batch["target"], tf.float32)
        if self.classes:
            measured = {"accuracy": tf.reduce_mean(tf.cast(output == target, tf.float32))}
        else:
            clipped = self.target.clip(output), self.target.clip(target)
            psnr = tf.image.psnr(*clipped, max_val=self.target.span)
            mae = tf.reduce_mean(tf.abs(output - target))
            measured = {"mae": mae, "psnr": tf.reduce_mean(psnr)}
        return self._averaged_figures(measured, tf.shape(target)[0])

    def get_config(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.to_dict(),
            "source": self.source.to_dict(),
            "target": self.target.to_dict(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Translator":
        return cls(
            cls.recipe_class.from_dict(config["recipe"]),
            Domain.from_dict(config["source"]),
            Domain.from_dict(config["target"]),
        )

    @property
    def weights_hash(self) -> str:
        """sha256 over the served network's weights: names the model in every artefact."""
        digest = hashlib.sha256()
        for variable in self.network.variables:
            digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
        return digest.hexdigest()

    def save_network(self, path: Path) -> str:
        """Write the served network's weights (`.weights.h5`) atomically; returns their sha256."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            self.network.save_weights(temporary)
            temporary.replace(path)
        return file_sha256(path)
