"""TF Serving's gRPC interface: Predict, GetModelMetadata and GetModelStatus.

The messages are those of the package tensorflow-serving-api, Google's own.
"""

import grpc
import tensorflow as tf
from google.protobuf import any_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from zoo.serving.export import SIGNATURE
from zoo.serving.server.batches import Batches, Busy
from zoo.serving.server.served import InvalidRequest, Served, UnknownServable

_CODES = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownServable: grpc.StatusCode.NOT_FOUND,
    Busy: grpc.StatusCode.UNAVAILABLE,
}


class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata of one model."""

    def __init__(self, served: Served, batches: Batches):
        self.served, self.batches = served, batches

    async def Predict(self, request, context):
        try:
            _check(self.served, request.model_spec)
            name = request.model_spec.signature_name or SIGNATURE
            given = {key: _array(key, tensor) for key, tensor in request.inputs.items()}
            arrays = self.served.signature(name).checked(given)
            answers = await self.batches.ask(name, arrays)
        except tuple(_CODES) as error:
            await context.abort(_CODES[type(error)], str(error))
        wanted = request.output_filter or answers
        spec = _spec(self.served, name)
        response = predict_pb2.PredictResponse(model_spec=spec)
        for key in wanted:
            if key not in answers:
                known = ", ".join(answers)
                text = f"output_filter: expected some of {known}. Received: {key}"
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
            response.outputs[key].CopyFrom(tf.make_tensor_proto(answers[key]))
        return response

    async def GetModelMetadata(self, request, context):
        try:
            _check(self.served, request.model_spec)
            if list(request.metadata_field) != ["signature_def"]:
                fields = ", ".join(request.metadata_field) or "none"
                raise InvalidRequest(f"metadata_field: expected signature_def. Received: {fields}")
        except tuple(_CODES) as error:
            await context.abort(_CODES[type(error)], str(error))
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self.served.signatures.items():
            signatures.signature_def[name].CopyFrom(signature.proto())
        packed = any_pb2.Any()
        packed.Pack(signatures)
        return get_model_metadata_pb2.GetModelMetadataResponse(
            model_spec=_spec(self.served), metadata={"signature_def": packed}
        )


class Status(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus of one model."""

    def __init__(self, served: Served):
        self.served = served

    async def GetModelStatus(self, request, context):
        try:
            _check(self.served, request.model_spec)
        except UnknownServable as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        status = get_model_status_pb2.ModelVersionStatus(version=self.served.version, state=state)
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=[status])


def make(served: Served, batches: Batches, address: str, body: int) -> tuple[grpc.aio.Server, int]:
    """A server that is not started yet, and its port.

    Args:
        served: the model.
        batches: answers its requests.
        address: such as "127.0.0.1:8500"; port 0 is any free one.
        body: bytes that a request may have.

    Raises:
        OSError: where the port is taken.
    """
    limits = [("grpc.max_receive_message_length", body), ("grpc.max_send_message_length", -1)]
    server = grpc.aio.server(options=[*limits, ("grpc.so_reuseport", 0)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Predictions(served, batches), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Status(served), server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"grpc_port: expected a free port. Received: {address}") from error
    return server, port


def _check(served: Served, spec: model_pb2.ModelSpec) -> None:
    version = str(spec.version.value) if spec.HasField("version") else None
    label = spec.version_label if spec.HasField("version_label") else None
    served.check_name(spec.name, version, label)


def _spec(served: Served, signature: str = "") -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=served.name, signature_name=signature)
    spec.version.value = served.version
    return spec


def _array(name: str, tensor):
    try:
        return tf.make_ndarray(tensor)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{name}: expected a tensor. Received: {error}") from error
