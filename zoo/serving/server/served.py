"""A model as a server sees it: signatures, what they take, what they answer."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from zoo.serving import export
from zoo.translator import Translator
from zoo.trust.calibration import Calibration
from zoo.trust.half_width import HalfWidth
from zoo.trust.limits import Limits
from zoo.trust.watch import Watch

LABEL = "stable"  # of the only version there is
_METHOD = "tensorflow/serving/predict"


class InvalidRequest(ValueError):
    """What was asked is not what a signature takes."""


class UnknownServable(LookupError):
    """Another model, version or label than the one that is served."""


@dataclasses.dataclass(frozen=True)
class Signature:
    """What is asked and answered under one name.

    Attributes:
        inputs, outputs: specs by name, the first axis free: the batch.
        function: of the inputs in their order, to a dict of tensors.
    """

    inputs: dict[str, tf.TensorSpec]
    outputs: dict[str, tf.TensorSpec]
    function: Callable[..., dict[str, tf.Tensor]]

    @classmethod
    def of(cls, graph: Any) -> "Signature":
        """Of one of `export.endpoints`."""
        concrete = graph.get_concrete_function()
        inputs = {spec.name: spec for spec in graph.input_signature}
        outputs = {
            name: tf.TensorSpec(tensor.shape, tensor.dtype, name)
            for name, tensor in concrete.structured_outputs.items()
        }
        return cls(inputs, outputs, concrete)

    def proto(self) -> meta_graph_pb2.SignatureDef:
        """As TF Serving's metadata describes it."""
        found = meta_graph_pb2.SignatureDef(method_name=_METHOD)
        for described, specs in ((found.inputs, self.inputs), (found.outputs, self.outputs)):
            for name, spec in specs.items():
                described[name].name = f"{name}:0"
                described[name].dtype = spec.dtype.as_datatype_enum
                described[name].tensor_shape.CopyFrom(spec.shape.as_proto())
        return found

    def checked(self, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The inputs as arrays of the signature's types.

        Raises:
            InvalidRequest: for other names, types, ranks or sides, and inputs whose numbers of
                examples differ.
        """
        if set(given) != set(self.inputs):
            raise InvalidRequest(
                f"inputs: expected {', '.join(self.inputs)}. Received: {', '.join(map(str, given))}"
            )
        arrays = {name: _array(name, given[name], spec) for name, spec in self.inputs.items()}
        counts = {len(array) for array in arrays.values()}
        if len(counts) > 1:
            raise InvalidRequest(
                f"inputs: expected as many of each. Received: {', '.join(map(str, sorted(counts)))}"
            )
        return arrays

    def answer(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the model says of `checked` arrays.

        Raises:
            InvalidRequest: for what the graph refuses, such as PNG of 8 bits.
        """
        try:
            found = self.function(*(tf.constant(arrays[name]) for name in self.inputs))
        except tf.errors.InvalidArgumentError as error:
            raise InvalidRequest(_first_line(error.message)) from error
        return {name: tensor.numpy() for name, tensor in found.items()}


class Served:
    """A model under a name and a version.

    Args:
        model: a `Translator`.
        name: that clients ask for.
        version: a whole number.
        uncertainty: as `export.endpoints` takes it.
        limits: of its alarms, where it was calibrated.
    """

    def __init__(
        self,
        model: Translator,
        name: str,
        version: int = 1,
        uncertainty: Calibration | None = None,
        limits: Limits | None = None,
    ):
        self.model, self.name, self.version, self.limits = model, name, version, limits
        self.widths = None if uncertainty is None else HalfWidth(model, uncertainty)
        specs = export.serving_specs(model)
        graphs = export.endpoints(model, specs, uncertainty)
        self.signatures = {name: Signature.of(graph) for name, graph in graphs.items()}
        self._examples = export.examples(model, specs, uncertainty)

    def watch(self) -> Watch | None:
        """The model's alarms, for images to come; None of a model that makes no image of one."""
        with contextlib.suppress(ValueError):
            return Watch(self.model, self.limits)
        return None

    def warm_up(self) -> None:
        """Answer one small request of each signature, which plans what the first ones need."""
        for name, inputs in self._examples.items():
            self.signatures[name].answer(self.signatures[name].checked(inputs))

    def check_name(self, name: str, version: str | None = None, label: str | None = None) -> None:
        """Refuse another model, version or label.

        Raises:
            UnknownServable: for it.
        """
        asked = f"{name}/versions/{version}" if version is not None else name
        asked = f"{name}/labels/{label}" if label is not None else asked
        known = name == self.name and version in (None, str(self.version))
        if not known or label not in (None, LABEL):
            raise UnknownServable(f"Servable not found for request: {asked}")

    def signature(self, name: str) -> Signature:
        """The signature of that name; "" is the default one.

        Raises:
            InvalidRequest: for an unknown one.
        """
        name = name or export.SIGNATURE
        if name not in self.signatures:
            known = ", ".join(self.signatures)
            raise InvalidRequest(f"signature_name: expected {known}. Received: {name!r}")
        return self.signatures[name]


def _array(name: str, value: Any, spec: tf.TensorSpec) -> np.ndarray:
    """One input as an array."""
    try:
        if spec.dtype == tf.string:
            array = np.array(value, dtype=object)
            if any(not isinstance(each, bytes) for each in array.ravel()):
                raise ValueError('what is not {"b64": …}')
        else:
            array = np.asarray(value)
            # An empty list has no type yet; of others 0.5 is no class.
            if array.size:
                array = array.astype(spec.dtype.as_numpy_dtype, casting="same_kind")
            else:
                array = array.astype(spec.dtype.as_numpy_dtype)
    except (ValueError, TypeError) as error:
        wanted = f"{name}: expected {spec.dtype.name} {_shape(spec)}"
        raise InvalidRequest(f"{wanted}. Received: {_first_line(error)}") from error
    if not spec.shape.is_compatible_with(array.shape):
        raise InvalidRequest(f"{name}: expected {_shape(spec)}. Received: {list(array.shape)}")
    return array


def _shape(spec: tf.TensorSpec) -> str:
    sides = ["?" if side is None else str(side) for side in spec.shape.as_list()]
    return f"[{', '.join(sides)}]"


def _first_line(error: Any) -> str:
    """The line of an error that says what is wrong, without TensorFlow's trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "expected" in line.lower()]
    # Above the node that it came from.
    traces = [number for number, line in enumerate(lines) if line.startswith("[[{{")]
    told += lines[traces[0] - 1 : traces[0]] if traces and traces[0] else []
    return (told or lines or ["no reason given"])[0][:500]
