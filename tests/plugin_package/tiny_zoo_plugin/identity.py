"""The identity, as a model: the least that a plugin can be."""

import dataclasses

import keras
import tensorflow as tf

import zoo


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentityRecipe(zoo.Recipe):
    """Fields of `tiny_identity`.

    Attributes:
        gain: initial factor on the image.
    """

    gain: float = 1.0


@zoo.register("tiny_identity")
class Identity(zoo.Translator):
    """Multiplies the image by one trained number.

    Example:
        >>> zoo.load("tiny_identity").translate(np.zeros([8, 8], "float32"))
    """

    recipe_class = IdentityRecipe

    def __init__(self, recipe, source, target, **kwargs):
        super().__init__(recipe, source, target, **kwargs)
        inputs = keras.Input([None, None, source.channels])
        gain = keras.layers.Conv2D(
            target.channels,
            1,
            use_bias=False,
            kernel_initializer=keras.initializers.Constant(recipe.gain),
        )
        self.network = keras.Model(inputs, gain(inputs))

    def compile(self, **kwargs):
        super().compile(optimizer=keras.optimizers.SGD(self.recipe.learning_rate), **kwargs)

    def train_step(self, batch):
        with tf.GradientTape() as tape:
            error = tf.reduce_mean(tf.square(self(batch["source"]) - batch["target"]))
            # Optimizers sum over replicas: each gives its share.
            share = error / tf.distribute.get_strategy().num_replicas_in_sync
        variables = self.network.trainable_variables
        self.optimizer.apply(tape.gradient(share, variables), variables)
        return {"mse": error}
