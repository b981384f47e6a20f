"""Translate files by a model that runs on another machine, and write them as `zoo predict` does.

    python examples/remote_series.py --address=http://server:8501 --model=pix2pix_ldct \
        --input=SERIES --output=DIR
    python examples/remote_series.py --address=server:8500 --model=pix2pix_ldct \
        --input=SERIES --output=DIR

The first speaks REST, the second gRPC; the server is `zoo serve`, or TensorFlow Serving with an
export of the model. Slices go as 16-bit PNG, one a request. What the model was trained on, what
its numbers mean and how the headers are written is known here, so that the output is the same
DICOM series, NIfTI or PNG as if it had been made on this machine, to the nearest eighth of a HU.
"""

import base64
import json
import urllib.request
from typing import Any

import numpy as np
import tensorflow as tf
from absl import app, flags

import zoo
from zoo.inference import predict
from zoo.serving import png16

_ADDRESS = flags.DEFINE_string("address", None, "http://HOST:PORT, or HOST:PORT.", required=True)
_MODEL = flags.DEFINE_string("model", None, "The model's name, here and there.", required=True)
_INPUT = flags.DEFINE_string("input", None, "File or folder to read.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write.", required=True)


class Remote:
    """A model that is asked elsewhere; all else of it is the local one's."""

    def __init__(self, model: zoo.Translator, name: str, address: str):
        self.model, self.name, self.address = model, name, address
        self.given, self.made = png16.Scale.of(model.source), png16.Scale.of(model.target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def translate(self, images: np.ndarray, batch_size: int = 1) -> np.ndarray:
        """`[N, H, W, C]` in the source's unit to `[N, H', W', C']` in the target's."""
        ask = rest if self.address.startswith("http") else grpc
        answers = []
        for image in images:
            (png,) = png16.question(self.model, {"images": image[None]})[png16.NAME]
            stored = tf.io.decode_png(ask(self.address, self.name, png), dtype=tf.uint16)
            answers.append(self.made.physical(stored).numpy())
        return np.stack(answers)


def rest(address: str, model: str, png: bytes) -> bytes:
    """A PNG translated by REST."""
    asked = {
        "signature_name": png16.SIGNATURE,
        "instances": [{"b64": base64.b64encode(png).decode()}],
    }
    body, headers = json.dumps(asked).encode(), {"Content-Type": "application/json"}
    url = f"{address.rstrip('/')}/v1/models/{model}:predict"
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
        (told,) = json.load(answer)["predictions"]
    return base64.b64decode(told["b64"])


def grpc(address: str, model: str, png: bytes) -> bytes:
    """A PNG translated by gRPC."""
    import grpc as grpcio
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, png16.SIGNATURE
    request.inputs[png16.NAME].CopyFrom(tf.make_tensor_proto([png]))
    with grpcio.insecure_channel(address) as channel:
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request)
    (told,) = tf.make_ndarray(answer.outputs[png16.NAME])
    return told


def main(_: list[str]) -> None:
    model = Remote(zoo.load(_MODEL.value), _MODEL.value, _ADDRESS.value)
    report = predict.translate(model, _INPUT.value, _OUTPUT.value)
    for path, text in (*report.warnings, *report.skipped):
        print(f"{path}: {text}")
    print(f"Wrote {len(report.outputs)} files")


if __name__ == "__main__":
    app.run(main)
