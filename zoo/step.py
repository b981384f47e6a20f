"""What a training step needs, whatever the model."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def scaled(loss: tf.Tensor) -> tf.Tensor:
    """A per-replica mean as this replica's share of the global mean: optimizers sum over them."""
    return loss / tf.distribute.get_strategy().num_replicas_in_sync


def unscaled(share: tf.Tensor) -> tf.Tensor:
    """A replica's mean again, for logs: what a loss of `zoo.losses` gives is its share."""
    return share * tf.distribute.get_strategy().num_replicas_in_sync


@keras.saving.register_keras_serializable(package="zoo")
class Adam(keras.optimizers.Adam):
    """`keras.optimizers.Adam`, its update one operation of TensorFlow instead of a dozen.

    Networks of many weights and few pixels spend much of a step in these passes over memory.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change a variable and its moments by Kingma and Ba's algorithm 1, as Keras has it."""
        if self.amsgrad or isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        number, dtype = self._get_variable_index(variable), variable.dtype
        steps = tf.cast(tf.convert_to_tensor(self.iterations) + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[number].value.handle,
            v=self._velocities[number].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, dtype), steps),
            beta2_power=tf.pow(tf.cast(self.beta_2, dtype), steps),
            lr=tf.cast(learning_rate, dtype),
            beta1=tf.cast(self.beta_1, dtype),
            beta2=tf.cast(self.beta_2, dtype),
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


def adam(
    model: Any, weights: list, rate: Any, beta_1: float = 0.5, beta_2: float = 0.999
) -> keras.optimizers.Optimizer:
    """Adam of a GAN's `weights`, ready: the betas are DCGAN's, epsilon is PyTorch's.

    Args:
        model: as `ready` takes it.
        weights: that it will change.
        rate: a learning rate, or a schedule of it.
        beta_1, beta_2: decay of the means of gradients and of their squares.
    """
    optimizer = Adam(rate, beta_1=beta_1, beta_2=beta_2, epsilon=1e-8)
    return ready(model, weights, optimizer)


def ready(
    model: Any, weights: list, optimizer: keras.optimizers.Optimizer
) -> keras.optimizers.Optimizer:
    """An optimizer of a model's `weights`, built, with what is to be done to their gradients.

    Args:
        model: the translator, of which the recipe's `accumulate` and `clip` count, and `precision`:
            the gradients of a network in float16 are scaled.
        weights: that the optimizer will change.
        optimizer: the model's own, or the user's.
    """
    optimizer.build(weights)
    recipe, scaling = model.recipe, model.precision == "float16"
    if recipe.accumulate > 1 or recipe.clip or scaling:
        optimizer.transform = GradientTransform(weights, recipe.accumulate, recipe.clip, scaling)
    return optimizer


def require_ready(model: Any) -> None:
    """Refuse a recipe whose `accumulate` or `clip` a model's optimizers would take no notice of.

    Raises:
        ValueError: for a plugin that made them without `ready`.
    """
    given = {name: getattr(model.recipe, name) for name in ("accumulate", "clip")}
    wanted = given != {"accumulate": 1, "clip": 0}
    optimizers = [getattr(model, name) for name in model.optimizers]
    if wanted and not all(hasattr(optimizer, "transform") for optimizer in optimizers):
        raise ValueError(
            f"accumulate, clip: expected 1 and 0, as {model.name} does not make its optimizers by "
            f"zoo.step.ready. Received: {given['accumulate']} and {given['clip']:g}"
        )


def descend(
    optimizer: keras.optimizers.Optimizer,
    tape: tf.GradientTape,
    share: tf.Tensor,
    weights: list,
    decay: float = 0.0,
) -> tf.Tensor | bool:
    """One step of `weights` down a replica's share of a loss, which `tape` recorded.

    Args:
        optimizer: of these weights and perhaps more, from `ready`.
        tape, share, weights: the recorded loss, float32, and what is changed.
        decay: times each weight, added to its gradient, as a square in the loss would.

    Returns:
        Whether the weights were changed, bool; not so in the middle of an accumulation, and where
        float16 overflowed.
    """
    return apply(optimizer, gradients(tape, share, weights, optimizer), weights, decay)


def gradients(
    tape: tf.GradientTape,
    share: tf.Tensor,
    weights: list,
    *optimizers: keras.optimizers.Optimizer,
) -> list:
    """Gradients of a replica's share of a loss, scaled meanwhile as `optimizers` need it."""
    transforms = [getattr(optimizer, "transform", None) for optimizer in optimizers]
    scales = [t.scale for t in transforms if t is not None and t.scaling]
    if not scales:
        return tape.gradient(share, weights)
    scale = tf.reduce_min(tf.stack([tf.convert_to_tensor(scale) for scale in scales]))
    scaled_up = tape.gradient(share, weights, output_gradients=scale)
    return [g if g is None else g / scale for g in scaled_up]


def apply(
    optimizer: keras.optimizers.Optimizer, given: list, weights: list, decay: float = 0.0
) -> tf.Tensor | bool:
    """The second half of `descend`: a step of `weights` by their gradients, those of one batch."""
    transform = getattr(optimizer, "transform", None)
    if transform is not None:
        return transform.apply(optimizer, given, weights, decay)
    if decay:
        share = scaled(decay)  # the replicas' gradients are added up
        given = [g + share * w for g, w in zip(given, weights, strict=True)]
    optimizer.apply(given, weights)
    return True


def batches_seen(optimizer: keras.optimizers.Optimizer) -> tf.Tensor:
    """Batches whose gradients an optimizer was given; its own `iterations` count updates."""
    transform = getattr(optimizer, "transform", None)
    return tf.convert_to_tensor(transform.batches if transform else optimizer.iterations)


_GROWTH = 2000  # updates without an overflow after which the loss scale doubles
_LARGEST = 2.0**24  # it stays far from overflow in float32 where nothing ever overflows in float16


class GradientTransform(keras.layers.Layer):
    """What is done to gradients before an optimizer takes them.

    In this order: added up over replicas; averaged over `accumulate` batches; left out where they
    are not finite, which halves the loss scale; clipped. Keras's own options are not used: its
    accumulation fails under `MirroredStrategy`, its clipping measures each replica's part alone,
    and its loss scaling asks only the first replica whether all is finite.

    Args:
        weights: whose gradients.
        accumulate: batches to an update.
        clip: greatest norm of all these gradients together; 0 clips nothing.
        scaling: whether the loss is scaled while gradients are computed. The factor begins at 2^15,
            doubles after 2000 updates without an overflow, and halves, down to 1, at each one.
    """

    def __init__(self, weights: list, accumulate: int, clip: float, scaling: bool, **kwargs: Any):
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.accumulate, self.clip, self.scaling = accumulate, clip, scaling
        self.batches = self._state("batches", dtype="int64")
        self.scale = self._state("scale", start=2.0**15 if scaling else 1.0)
        self.good = self._state("good", dtype="int64")  # updates since the scale changed
        places = {}
        for number, weight in enumerate(weights if accumulate > 1 else []):
            places[id(weight)] = name = f"sum_{number}"
            # One by one: a checkpoint looks at attributes only.
            setattr(self, name, self._state(name, weight.shape))
        self._sum = lambda weight: getattr(self, places[id(weight)]).value
        self.built = True

    def _state(
        self, name: str, shape: tuple = (), start: float = 0, dtype: str = "float32"
    ) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=keras.initializers.Constant(start),
            dtype=dtype,
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",  # all replicas hold the same
        )

    def apply(
        self, optimizer: keras.optimizers.Optimizer, given: list, weights: list, decay: float
    ) -> tf.Tensor:
        """As the function `apply`; called in a replica's context."""
        pairs = [(g, w) for g, w in zip(given, weights, strict=True) if g is not None]
        reached = [weight for _, weight in pairs]
        replicas = tf.distribute.get_strategy().num_replicas_in_sync

        # In a replica's context: the update, by an optimizer that adds all replicas' gradients up.
        def take(totals: list) -> None:
            values = [tf.convert_to_tensor(total) for total in totals]
            if self.clip:
                values, _ = tf.clip_by_global_norm(values, self.clip)
            if decay:
                values = [v + decay * w for v, w in zip(values, reached, strict=True)]
            optimizer.apply([value / replicas for value in values], reached)

        # In the context of all replicas, as one cannot decide for the others: whether there is one.
        def merged(distribution: Any, totals: list) -> tf.Tensor:
            self.batches.assign_add(1)
            if self.accumulate > 1:
                sums = [self._sum(weight) for weight in reached]
                self._add(distribution, sums, totals)
                totals = sums
            due = changes = tf.equal(self.batches % self.accumulate, 0)
            if self.scaling:
                changes = due & _finite(distribution, totals)

            def change() -> tf.Tensor:
                distribution.extended.call_for_each_replica(take, args=(totals,))
                return tf.constant(True)

            tf.cond(changes, change, lambda: tf.constant(False))
            if self.scaling:
                self._rescale(due, changes)
            return changes

        # From here on the gradients are those of the whole batch, and the same on all replicas.
        context = tf.distribute.get_replica_context()
        return context.merge_call(merged, args=(context.all_reduce("SUM", [g for g, _ in pairs]),))

    def _add(self, distribution: Any, sums: list, totals: list) -> None:
        first = tf.equal((self.batches - 1) % self.accumulate, 0)

        def add(total: tf.Variable, gradient: tf.Tensor) -> None:
            before = tf.where(first, tf.zeros_like(gradient), total)
            total.assign(before + gradient / self.accumulate)

        for total, gradient in zip(sums, totals, strict=True):
            distribution.extended.update(total, add, args=(gradient,), group=False)

    def _rescale(self, due: tf.Tensor, changed: tf.Tensor) -> None:
        scale, good = tf.convert_to_tensor(self.scale), tf.convert_to_tensor(self.good)
        doubles, halves = changed & (good >= _GROWTH - 1), due & ~changed
        factor = tf.where(doubles, 2.0, tf.where(halves, 0.5, 1.0))
        self.scale.assign(tf.clip_by_value(scale * factor, 1.0, _LARGEST))
        good += tf.cast(changed, good.dtype)
        self.good.assign(tf.where(doubles | halves, tf.zeros_like(good), good))


def _finite(distribution: Any, totals: list) -> tf.Tensor:
    """Whether all numbers are, of tensors that are the same on all replicas."""
    here = [distribution.experimental_local_results(total)[0] for total in totals]
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in here])


def averaged(trained: keras.Model, network: keras.Model) -> keras.Model:
    """`network`, made as `trained` was, as the start of its moving average; see `follow`."""
    network.set_weights(trained.get_weights())
    network.trainable = False
    return network


def follow(
    network: keras.Model, trained: keras.Model, decay: float, changed: tf.Tensor | bool = True
) -> None:
    """One step of the moving average of `trained`'s variables that `network`, its twin, holds.

    Args:
        changed: whether an update changed `trained` (from `descend`): the average counts updates.
    """
    share = new_share(decay, changed)
    for average, variable in zip(network.variables, trained.variables, strict=True):
        average.assign(average + (variable - average) * share)


def new_share(decay: float, changed: tf.Tensor | bool = True) -> Any:
    """What a moving average takes of its newest value: 1 - decay, nothing where none is new."""
    share = 1.0 - decay
    return share if changed is True else tf.where(changed, share, 0.0)


def example_seeds(
    batch: dict, images: tf.Tensor, iterations: tf.Variable, seed: int = 0
) -> tf.Tensor:
    """int32 `[N, 2]` seeds, the batch's own or, under a plain `fit`, of `seed` and the step."""
    if "seed" in batch:
        return batch["seed"]
    context = tf.distribute.get_replica_context()
    replica = context.replica_id_in_sync_group if context else 0
    key = tf.stack([tf.constant(seed, tf.int32), tf.cast(iterations, tf.int32)])
    key = tf.random.experimental.stateless_fold_in(key, tf.cast(replica, tf.int32))
    return tf.random.stateless_uniform((tf.shape(images)[0], 2), key, None, None, tf.int32)


_STEP = 1000  # the input pipeline folds smaller numbers into an example's seed


def random_normal(seeds: tf.Tensor, shape: tuple[int, ...], purpose: int) -> tf.Tensor:
    """Standard normal `[N, *shape]`, drawn for each example from its own seed.

    The same whatever the number of replicas, and the same again when a run resumes. No two
    purposes and no two seeds share their numbers.
    """
    return _drawn(tf.random.stateless_normal, seeds, shape, purpose)


def random_uniform(seeds: tf.Tensor, shape: tuple[int, ...], purpose: int) -> tf.Tensor:
    """Uniform [0, 1) `[N, *shape]`, drawn as `random_normal` is."""
    return _drawn(tf.random.stateless_uniform, seeds, shape, purpose)


def _drawn(draw: Callable, seeds: tf.Tensor, shape: tuple[int, ...], purpose: int) -> tf.Tensor:
    def one(seed: tf.Tensor) -> tf.Tensor:
        return draw(shape, tf.random.experimental.stateless_fold_in(seed, _STEP + purpose))

    return tf.map_fn(one, seeds, fn_output_signature=tf.float32)


def forward_flops(network: keras.Model, *shapes: tuple[int, ...]) -> float:
    """Floating-point operations of one example's pass through a network."""
    profiler = tf.compat.v1.profiler
    specs = [tf.TensorSpec((1, *shape), tf.float32) for shape in shapes]
    function = tf.function(lambda *x: network(x[0] if len(x) == 1 else x))
    graph = function.get_concrete_function(*specs).graph
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    profile = profiler.profile(graph, options=options.with_empty_output().build())
    return float(profile.total_float_ops)
