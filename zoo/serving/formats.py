"""A model for other engines than TensorFlow: ONNX, OpenVINO and LiteRT, in float32 or int8.

    onnx       model.onnx               ONNX Runtime; with `config.pbtxt` a model of Triton
    openvino   model.xml, model.bin     OpenVINO, and its model server
    litert     model.tflite             LiteRT (TensorFlow Lite)

N and the sides of an image are free, as in a SavedModel; no images at all are an error. The input
is called as there, the output "translated", and a second one of a calibrated model "half_width".
Each engine is imported only where it is used.
"""

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo import bicubic, offline  # noqa: F401 (offline: before OpenVINO and NNCF are imported)
from zoo.errors import reason
from zoo.serving.verify import SIGNATURE, call
from zoo.serving.warmup import BATCH_SIZES
from zoo.translator import Translator
from zoo.trust import served
from zoo.trust.calibration import Calibration

SAVED_MODEL = "saved_model"
FILES = {"onnx": "model.onnx", "openvino": "model.xml", "litert": "model.tflite"}
OUTPUT, HALF_WIDTH = "translated", "half_width"
# Why a network of another precision is none of a format's.
_COARSE = {
    "onnx": "ONNX Runtime has no bfloat16 convolution on a CPU",
    "openvino": "OpenVINO computes in bfloat16 what is exported in float32, if it is loaded with "
    "INFERENCE_PRECISION_HINT bf16",
    "litert": "LiteRT has no bfloat16 convolution",
}
_NEEDS = {
    "onnx": ("onnx", "tf2onnx", "onnxruntime"),
    "openvino": ("openvino",),
    "litert": ("ai_edge_litert",),
}
_OPSET = 18  # of ONNX, which all engines of the last years take

Ask = Callable[[Sequence[np.ndarray]], np.ndarray]  # the inputs in their order to the answer


def require(format: str, precision: str, int8: bool = False) -> None:
    """A ValueError for another precision than float32; an OSError for what is not installed."""
    if precision != "float32":
        raise ValueError(
            f"precision: {format} takes float32: {_COARSE[format]}. Received: {precision}"
        )
    needs = _NEEDS[format] + (("nncf",) if int8 and format == "openvino" else ())
    for name in needs:
        try:
            __import__(name)
        except ImportError as error:
            raise OSError(
                f"format: {format} needs the extra `formats`: pip install 'zoo-medical[formats]'. "
                f"Received: no {name}"
            ) from error


def write(
    model: Translator,
    format: str,
    specs: Mapping[str, tf.TensorSpec],
    folder: Path,
    calibration: Sequence[np.ndarray] = (),
    uncertainty: Calibration | None = None,
) -> Ask:
    """Write a model's network, by the names of `FILES`, and load it by the format's own engine.

    Args:
        model: that computes in float32.
        format: one of `FILES`.
        specs: its `export.serving_specs`.
        folder: that exists.
        calibration: images `[1, H, W, C]` that int8 is calibrated on; of none it stays float32.
        uncertainty: what the half-widths are made by that it gives too.

    Returns:
        What gives its output `OUTPUT`, as `engine`.

    Raises:
        ValueError: for a network with an operation that the format or its converter lacks.
        OSError: where it cannot be written.
    """

    def serve(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        if uncertainty is None:
            return {OUTPUT: tf.cast(call(model, inputs), tf.float32)}
        made = served.endpoint(model, uncertainty, dict(specs))(*inputs)
        return {OUTPUT: made["images"], HALF_WIDTH: made["half_width"]}

    graph = tf.function(serve, input_signature=list(specs.values()), autograph=False)
    # ONNX has a bicubic operation, as TensorFlow's.
    enlarged = contextlib.nullcontext() if format == "onnx" else bicubic.by_convolutions()
    with warnings.catch_warnings(), enlarged:
        warnings.simplefilter("ignore")  # of the converters, of what they do inside
        try:
            _WRITERS[format](graph, specs, folder / FILES[format], calibration)
            # Some converters write what their engine does not know.
            ask = engine(format, folder)
        except OSError:
            raise
        except Exception as error:  # converters have kinds of their own
            text = f"format: {format} cannot hold {model.name}. Received: {reason(error)}"
            raise ValueError(text) from error
    return ask


def engine(format: str, folder: Path, output: str = OUTPUT) -> Ask:
    """What gives an output by a format's own engine, on the CPU, from the files alone."""
    return _ENGINES[format](folder / FILES[format], output)


def triton(
    specs: Mapping[str, tf.TensorSpec], model: Translator, outputs: Sequence[str] = (OUTPUT,)
) -> str:
    """`config.pbtxt` of a model repository of Triton, beside the numbered versions."""
    made = [None] * model.dimensions
    known = getattr(model.network, "output_shape", None)
    if isinstance(known, tuple) and len(known) == model.dimensions + 2:
        made = list(known[1:-1])
    spec = tf.TensorSpec([None, *made, model.target.channels], tf.float32)
    lines = ['platform: "onnxruntime_onnx"', f"max_batch_size: {BATCH_SIZES[-1]}"]
    for end, tensors in (("input", specs), ("output", dict.fromkeys(outputs, spec))):
        lines += [_tensor(end, name, spec) for name, spec in tensors.items()]
    lines.append("dynamic_batching { max_queue_delay_microseconds: 5000 }")
    return "\n".join(lines) + "\n"


def _tensor(end: str, name: str, spec: tf.TensorSpec) -> str:
    """One tensor of `config.pbtxt`, which leaves the batch's axis out."""
    kind = {tf.float32: "TYPE_FP32", tf.int64: "TYPE_INT64"}[spec.dtype]
    sides = [str(side or -1) for side in spec.shape.as_list()[1:]]
    shape = f"dims: [ {', '.join(sides)} ]" if sides else "dims: [ 1 ] reshape { shape: [ ] }"
    return f'{end} [ {{ name: "{name}" data_type: {kind} {shape} }} ]'


# ONNX.


def _write_onnx(
    graph: Any, specs: Mapping[str, tf.TensorSpec], path: Path, calibration: Sequence[np.ndarray]
) -> None:
    import tf2onnx

    proto, _ = tf2onnx.convert.from_function(graph, list(specs.values()), opset=_OPSET)
    path.write_bytes(proto.SerializeToString())
    if not calibration:
        return
    from onnxruntime import quantization

    class Images(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {next(iter(specs)): image}

    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "plain.onnx"
        quantization.quant_pre_process(path, plain, skip_symbolic_shape=True)
        # What adds up, such as the input to a residual, stays float32.
        quantization.quantize_static(
            plain,
            path,
            Images(),
            op_types_to_quantize=["Conv", "ConvTranspose", "MatMul"],
            per_channel=True,
            extra_options={"DedicatedQDQPair": True},
        )


def _onnx(path: Path, output: str) -> Ask:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda inputs: session.run([output], dict(zip(names, inputs, strict=True)))[0]


# OpenVINO.


def _write_openvino(
    graph: Any, specs: Mapping[str, tf.TensorSpec], path: Path, calibration: Sequence[np.ndarray]
) -> None:
    import openvino

    graph = graph.get_concrete_function()
    converted = openvino.convert_model(graph)
    for name, given in zip(specs, converted.inputs, strict=True):
        given.get_tensor().set_names({name})
    # TensorFlow orders outputs by their names.
    for name, made in zip(sorted(graph.structured_outputs), converted.outputs, strict=True):
        made.get_tensor().set_names({name})
    if calibration:
        import nncf

        # What adds up, such as the input to a residual, stays float32, and so do the convolutions
        # that take and give the image: of its range 8 bits are steps of 10 HU.
        ops = [
            each for each in converted.get_ordered_ops() if "Convolution" in each.get_type_name()
        ]
        names = {each.get_friendly_name() for each in ops[:1] + ops[-1:]}
        exact = nncf.IgnoredScope(
            names=sorted(names), types=["Add", "Subtract", "Multiply", "Divide"], validate=False
        )
        # Images of several sizes: one calibrates at a time.
        converted = nncf.quantize(
            converted,
            nncf.Dataset(list(calibration)),
            subset_size=len(calibration),
            ignored_scope=exact,
        )
    openvino.save_model(converted, path, compress_to_fp16=False)


def _openvino(path: Path, output: str) -> Ask:
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", exact)
    return lambda inputs: compiled(list(inputs))[output]


# LiteRT.


def _write_litert(
    graph: Any, specs: Mapping[str, tf.TensorSpec], path: Path, calibration: Sequence[np.ndarray]
) -> None:
    def images() -> Iterable[list[np.ndarray]]:
        for image in calibration:
            yield [image]

    with tempfile.TemporaryDirectory() as scratch:
        archive = keras.export.ExportArchive()
        archive.add_endpoint(SIGNATURE, graph)
        archive.write_out(scratch, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch)
        if calibration:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = images
        path.write_bytes(converter.convert())


def _litert(path: Path, output: str) -> Ask:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    runner = interpreter.get_signature_runner(SIGNATURE)
    names = list(runner.get_input_details())

    def ask(inputs: Sequence[np.ndarray]) -> np.ndarray:
        given = dict(zip(names, inputs, strict=True))
        return np.asarray(runner(**given)[output])

    return ask


_WRITERS = {"onnx": _write_onnx, "openvino": _write_openvino, "litert": _write_litert}
_ENGINES = {"onnx": _onnx, "openvino": _openvino, "litert": _litert}
