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


def adam(
    weights: list, rate: Any, beta_1: float = 0.5, beta_2: float = 0.999
) -> keras.optimizers.Optimizer:
    """Adam of a GAN's `weights`, ready: the betas are DCGAN's, epsilon is PyTorch's.

    Args:
        weights: that it will change.
        rate: a learning rate, or a schedule of it.
        beta_1, beta_2: decay of the means of gradients and of their squares.
    """
    optimizer = keras.optimizers.Adam(rate, beta_1=beta_1, beta_2=beta_2, epsilon=1e-8)
    optimizer.build(weights)
    return optimizer


def descend(
    optimizer: keras.optimizers.Optimizer, tape: tf.GradientTape, share: tf.Tensor, weights: list
) -> None:
    """One step of `weights` down a replica's share of a loss, which `tape` recorded."""
    optimizer.apply(tape.gradient(share, weights), weights)


def averaged(trained: keras.Model, network: keras.Model) -> keras.Model:
    """`network`, made as `trained` was, as the start of its moving average; see `follow`."""
    network.set_weights(trained.get_weights())
    network.trainable = False
    return network


def follow(network: keras.Model, trained: keras.Model, decay: float) -> None:
    """One step of the moving average of `trained`'s variables that `network`, its twin, holds."""
    for average, variable in zip(network.variables, trained.variables, strict=True):
        average.assign(average + (variable - average) * (1.0 - decay))


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
