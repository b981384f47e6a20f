"""What TF Serving reads beside a SavedModel: requests that warm it up, and how to batch."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

WARMUP = "tf_serving_warmup_requests"  # the name that TF Serving looks for in assets.extra
BATCHING = "batching_parameters.txt"  # for --batching_parameters_file
BATCH_SIZES = (
    1,
    2,
    4,
    8,
)  # that requests are padded to, so that few shapes are compiled or planned

_BATCHING = f"""\
# tensorflow_model_server --enable_batching --batching_parameters_file=…
# Only requests of one height and width go into one batch.
max_batch_size {{ value: {BATCH_SIZES[-1]} }}
batch_timeout_micros {{ value: 5000 }}
max_enqueued_batches {{ value: 64 }}
num_batch_threads {{ value: 2 }}
"""


def write(folder: Path, requests: dict[str, dict[str, Any]]) -> None:
    """Write `tf_serving_warmup_requests` and `batching_parameters.txt`.

    Args:
        folder: `assets.extra` of an export.
        requests: an example of each signature's inputs, by the name of the signature.
    """
    with tf.io.TFRecordWriter(str(folder / WARMUP)) as writer:
        for signature, inputs in requests.items():
            writer.write(prediction_log(signature, inputs))
    sizes = "".join(f"allowed_batch_sizes: {size}\n" for size in BATCH_SIZES)
    (folder / BATCHING).write_text(_BATCHING + sizes, encoding="utf-8")


def prediction_log(signature: str, inputs: dict[str, Any]) -> bytes:
    """A serialised `tensorflow.serving.PredictionLog` of one request to predict.

    Its four messages are written field by field (apis/prediction_log.proto, predict.proto and
    model.proto of TF Serving 2.20), so that an export needs no package of the server.

    Args:
        signature: the name of the signature that is asked.
        inputs: its tensors by name.
    """
    model_spec = _field(3, signature.encode())
    request = _field(1, model_spec)
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(np.asarray(value)).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    predict_log = _field(1, request)
    return _field(6, predict_log)


def _field(number: int, payload: bytes) -> bytes:
    """A field of bytes in protobuf's encoding: its key, its length, itself."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
