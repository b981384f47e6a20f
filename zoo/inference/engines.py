"""What runs a network: Keras, or OpenVINO where that is installed and answers the same."""

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from zoo import bicubic, offline  # noqa: F401 (offline: before OpenVINO is imported)
from zoo.devices import accelerated
from zoo.inference import inputs
from zoo.serving.verify import compare
from zoo.translator import Translator

ENGINES = ("auto", "keras", "openvino")
BATCH = 4  # slices at once that keep OpenVINO's streams busy
# The first batches are answered by both.
_COMPARED = 2


class OpenVino:
    """A model's `serve` by OpenVINO, on a CPU, in float32.

    The images of a batch are answered at the same time, each by some of the cores; where they come
    one at a time, each by all cores. The first batches are answered by Keras too: where the answers
    differ by more than rounding may make, Keras goes on alone.

    Args:
        model: of images or volumes, on this machine's CPU.
        strict: raise a ValueError where the answers differ.
        tell: is given a text where Keras goes on alone.
        batch_size: images that come at once.
    """

    def __init__(
        self, model: Translator, strict: bool, tell: Callable[[str], object], batch_size: int
    ):
        import openvino

        self.model, self.strict, self.tell = model, strict, tell
        self.keras = model.serve
        sides = [None] * model.dimensions
        spec = tf.TensorSpec([None, *sides, model.source.channels], tf.float32)
        network = model.probabilities if model.classes else model
        graph = tf.function(lambda images: network(images, training=False))
        with bicubic.by_convolutions():
            concrete = graph.get_concrete_function(spec)
        converted = openvino.convert_model(concrete)
        if len(converted.outputs) != 1:
            raise ValueError(f"expected one output. Received: {len(converted.outputs)}")
        hint = "LATENCY" if batch_size == 1 else "THROUGHPUT"
        hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": hint}
        self.compiled = openvino.Core().compile_model(converted, "CPU", hints)
        self.engine = f"OpenVINO {openvino.__version__.split('-')[0]}"
        self.left, self.used = _COMPARED, True

    @property
    def name(self) -> str:
        """The engine's name; "" where Keras goes on alone."""
        return self.engine if self.used else ""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if not self.used or not len(images):
            return self.keras(images)
        images = np.ascontiguousarray(images, np.float32)
        if not self.left:
            return self._answer(images)
        self.left -= 1
        wanted = self.keras(images)
        try:
            answer = self._answer(images)
            compare(self.model, answer, wanted, f"{self.engine} answers otherwise than Keras")
        except Exception as error:  # of the engine too, which has its own kinds
            if self.strict:
                raise ValueError(f"engine: {error}") from error
            self.used = False
            self.tell(f"{error}. Keras is used.")
            return wanted
        return answer

    def _answer(self, images: np.ndarray) -> np.ndarray:
        import openvino

        queue, answers = openvino.AsyncInferQueue(self.compiled), {}

        def keep(request: Any, number: int) -> None:
            answers[number] = request.get_output_tensor().data[0].copy()

        queue.set_callback(keep)
        for number in range(len(images)):
            queue.start_async({0: images[number : number + 1]}, number)
        queue.wait_all()
        return np.stack([answers[number] for number in range(len(images))])


def pays(model: Any, engine: str, input: Path, output: Path) -> bool:
    """Whether there is more to translate than the first batches, which Keras answers anyway.

    Of few images, converting the network takes longer than it saves: "auto" is then Keras.

    Args:
        model, engine: as of `use`.
        input, output: as of `predict.translate`.

    Raises:
        FileNotFoundError, ValueError: as `inputs.find`.
    """
    few = _COMPARED * BATCH
    if engine != "auto" or (input.is_dir() and sum(1 for _ in _first(input, few + 1)) > few):
        return True
    return sum(volume.length for volume in inputs.find(model, input, output).volumes) > few


def _first(folder: Path, count: int) -> Iterator[Path]:
    """The first files of a folder, however many there are."""
    return itertools.islice((path for path in folder.rglob("*") if path.is_file()), count)


def use(
    model: Any, engine: str, tell: Callable[[str], object] = print, batch_size: int = BATCH
) -> str:
    """Have a model, or each member of an average, run by an engine.

    Args:
        model: a `Translator`, or an `Average` of some.
        engine: "keras"; "openvino"; "auto" takes OpenVINO on a CPU, in float32, where it is
            installed and can run the network.
        tell: is given a text where OpenVINO is left again.
        batch_size: images that it will get at once.

    Returns:
        What runs it, such as "OpenVINO 2025.3" or "Keras".

    Raises:
        ValueError: for "openvino" where it is not installed, or cannot run the network.
    """
    members = getattr(model, "members", [model])
    there = importlib.util.find_spec("openvino") is not None
    if engine == "openvino" and not there:
        raise ValueError("engine: expected the extra `openvino` to be installed. Received: none")
    plain = all(isinstance(each, Translator) and each.precision == "float32" for each in members)
    if engine == "keras" or (engine == "auto" and (not there or not plain or accelerated())):
        return "Keras"
    for member in members:
        try:
            member.serve = OpenVino(member, engine == "openvino", tell, batch_size)
        except Exception as error:  # of the converter, which has its own kinds
            if engine == "openvino":
                text = f"engine: OpenVINO cannot run {member.name}. Received: {error}"
                raise ValueError(text) from error
            return "Keras"
    return members[0].serve.engine
