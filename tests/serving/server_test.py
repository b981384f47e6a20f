"""The server by the requests that TF Serving's users send, and by the official protos."""

import asyncio
import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import json_format, text_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

import dicom_files
import zoo
from zoo.domain import Domain
from zoo.figures import CT_WINDOWS
from zoo.recipe import Recipe
from zoo.serving import png16
from zoo.serving.server import batches, rest, run, served
from zoo.serving.server.grpc import make
from zoo.translator import Translator

CT = Domain(modality="CT", unit="HU", window=(-1000.0, 2000.0))
ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = "/v1/models/tiny"


@zoo.register("tiny_served")
class Tiny(Translator):
    """Adds 10 HU, by a network, and counts how often it is called."""

    tile_margin = 1
    size_multiple = 1

    def __init__(self, recipe, source, target, **kwargs):
        super().__init__(recipe, source, target, **kwargs)
        inputs = keras.Input([None, None, source.channels])
        self.network = keras.Model(inputs, keras.layers.Conv2D(1, 1)(inputs))
        kernel = np.ones([1, 1, source.channels, 1], np.float32)
        self.network.set_weights([kernel, np.full([1], 10 * 2 / CT.span, np.float32)])


@pytest.fixture(scope="module")
def model():
    return served.Served(Tiny(Recipe(), CT, CT), "tiny", 3)


class Running:
    """A loop in a thread with the application and, at `address`, gRPC."""

    def __init__(self, model, **limits):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.body = body = limits.pop("body", rest.BODY)
        self.batches = self.call(self._batches(model, limits))
        self.rest = rest.Rest(model, self.batches, body)
        self.rest.ready = True
        self.remote, port = self.call(self._remote(model))
        self.address = f"127.0.0.1:{port}"
        transport = httpx.ASGITransport(self.rest.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def _batches(self, model, limits):
        found = batches.Batches(model, **limits)
        found.start()
        return found

    async def _remote(self, model):
        remote, port = make(model, self.batches, "127.0.0.1:0", self.body)
        await remote.start()
        return remote, port

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def get(self, path):
        return self.call(self.client.get(path))

    def post(self, path, body):
        content = body if isinstance(body, bytes) else json.dumps(body)
        return self.call(self.client.post(path, content=content))

    def close(self):
        self.call(self.remote.stop(0))
        self.call(self.batches.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)


@pytest.fixture(scope="module")
def running(model):
    server = Running(model)
    yield server
    server.close()


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 2000, shape).astype("float32")


@pytest.mark.parametrize("path", ["", "/versions/3", "/labels/stable"])
def test_predict_in_rows_and_in_columns(running, path):
    hu = images(2, 3, 4, 1)
    for asked, told in (("instances", "predictions"), ("inputs", "outputs")):
        response = running.post(f"{MODEL}{path}:predict", {asked: hu.tolist()})
        assert response.status_code == 200, response.text
        np.testing.assert_allclose(response.json()[told], hu + 10, atol=1e-2)
    rows = [{"images": image.tolist()} for image in hu]
    body = {"instances": rows, "signature_name": "serving_default"}
    answer = running.post(f"{MODEL}{path}:predict", body).json()["predictions"]
    np.testing.assert_allclose(answer, hu + 10, atol=1e-2)
    named = running.post(f"{MODEL}{path}:predict", {"inputs": {"images": hu.tolist()}}).json()
    np.testing.assert_allclose(named["outputs"], hu + 10, atol=1e-2)


def test_bytes_are_base64_of_png(running):
    hu = images(2, 16, 5, 1)
    scale = png16.Scale.of(CT)
    coded = [tf.io.encode_png(scale.stored(image)).numpy() for image in hu]
    told = [{"b64": base64.b64encode(png).decode()} for png in coded]
    body = {"signature_name": "bytes", "instances": told}
    rows = running.post(f"{MODEL}:predict", body).json()["predictions"]
    body = {"signature_name": "bytes", "inputs": {"images_bytes": told}}
    columns = running.post(f"{MODEL}:predict", body).json()["outputs"]
    assert rows == columns
    answer = [tf.io.decode_png(base64.b64decode(each["b64"]), dtype=tf.uint16) for each in rows]
    np.testing.assert_allclose(scale.physical(tf.stack(answer)), hu + 10, atol=scale.slope / 2)


def test_a_bytes_request_takes_less_than_a_tenth_of_the_time_of_json(running):
    hu = images(1, 512, 512, 1) / 7
    coded = tf.io.encode_png(png16.Scale.of(CT).stored(hu[0])).numpy()
    told = [{"b64": base64.b64encode(coded).decode()}]
    bodies = {
        "json": json.dumps({"instances": hu.tolist()}).encode(),
        "bytes": json.dumps({"signature_name": "bytes", "instances": told}).encode(),
    }
    shares = []
    for _ in range(5):  # in turns, since a shared machine runs now fast, now slow
        seconds = {}
        for kind, body in bodies.items():
            began = time.perf_counter()
            assert running.post(f"{MODEL}:predict", body).status_code == 200
            seconds[kind] = time.perf_counter() - began
        shares.append(seconds["bytes"] / seconds["json"])
    assert np.median(shares) < 0.1, shares
    assert len(bodies["bytes"]) < 0.12 * len(bodies["json"])  # of noise, which PNG cannot shrink


def test_status_and_metadata_are_what_the_protos_say(running, model):
    status = running.get(f"{MODEL}/versions/3")
    parsed = json_format.Parse(status.text, get_model_status_pb2.GetModelStatusResponse())
    assert [(each.version, each.state) for each in parsed.model_version_status] == [(3, 30)]
    told = running.get(f"{MODEL}/metadata").json()
    assert told["model_spec"] == {"name": "tiny", "signature_name": "", "version": "3"}
    signatures = json_format.ParseDict(
        told["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap()
    )
    assert sorted(signatures.signature_def) == ["bytes", "serving_default"]
    default = signatures.signature_def["serving_default"]
    assert [each.size for each in default.inputs["images"].tensor_shape.dim] == [-1, -1, -1, 1]


@pytest.mark.parametrize(
    ("path", "body", "code", "message"),
    [
        (":predict", b"{", 400, "JSON Parse error"),
        (":predict", b"[" * 100_000, 400, "JSON Parse error"),
        (":predict", {}, 400, "instances"),
        (":predict", {"instances": [], "inputs": []}, 400, "instances"),
        (":predict", {"instances": []}, 400, "none"),
        (":predict", {"instances": 3}, 400, "list"),
        (":predict", {"instances": [1.0]}, 400, r"\[\?, \?, \?, 1\]. Received: \[1\]"),
        (":predict", {"instances": [[[[1, 2]]]]}, 400, r"Received: \[1, 1, 1, 2\]"),
        (":predict", {"instances": [[[[1]]], [[[1], [2]]]]}, 400, "images: expected float32"),
        (":predict", {"instances": ["a"]}, 400, "images: expected float32"),
        (":predict", {"instances": [{"other": 1}]}, 400, "expected images. Received: other"),
        (":predict", {"instances": [{"images": 1}, {"b": 1}]}, 400, "same names"),
        (":predict", {"signature_name": "no", "inputs": []}, 400, "serving_default, bytes"),
        (":predict", {"signature_name": 3, "inputs": []}, 400, "signature_name"),
        (":predict", {"signature_name": "bytes", "inputs": ["x"]}, 400, "b64"),
        (":predict", {"signature_name": "bytes", "inputs": [{"b64": "?"}]}, 400, "base64"),
        (":predict", {"signature_name": "bytes", "inputs": [{"b64": "AAAA"}]}, 400, "16 bits"),
        ("/versions/4:predict", {"instances": [[[[1]]]]}, 404, "tiny/versions/4"),
        ("/labels/canary:predict", {"instances": [[[[1]]]]}, 404, "tiny/labels/canary"),
        ("x:predict", {"instances": [[[[1]]]]}, 404, "tinyx"),
    ],
)
def test_what_cannot_be_answered_is_said_in_one_line(running, path, body, code, message):
    response = running.post(f"{MODEL}{path}", body)
    assert response.status_code == code
    error = response.json()["error"]
    assert "\n" not in error
    assert re.search(message, error), error


def test_other_paths_and_methods(running):
    assert running.get("/v1/nothing").status_code == 404
    assert "Malformed request" in running.get("/v1/nothing").json()["error"]
    assert running.post(MODEL, {}).status_code == 405
    assert running.get("/healthz").status_code == running.get("/readyz").status_code == 200


def test_the_page_has_the_windows_that_figures_have(running):
    windows = running.get("/about").json()["windows"]
    assert {name: tuple(window) for name, window in windows.items()}.items() >= CT_WINDOWS.items()
    assert windows["brain"] == [0, 80]


def test_metrics_count_requests(running):
    def count() -> float:
        text = running.get("/monitoring/prometheus/metrics").text
        lines = [
            line for line in text.splitlines() if line.startswith('zoo_requests_total{code="200"')
        ]
        return float(lines[0].split()[-1])

    running.post(f"{MODEL}:predict", {"instances": [[[[1.0]]]]})
    before = count()
    running.post(f"{MODEL}:predict", {"instances": [[[[1.0]]]]})
    assert count() == before + 1


def test_not_numbers_pass_as_tokens(running):
    response = running.post(f"{MODEL}:predict", b'{"instances": [[[[NaN]], [[Infinity]]]]}')
    assert response.status_code == 200
    assert np.isnan(response.json()["predictions"][0][0][0][0])


def asked_by_grpc(channel, hu: np.ndarray, name: str = "tiny") -> np.ndarray:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(hu))
    return tf.make_ndarray(stub.Predict(request, timeout=120).outputs["images"])


def test_grpc_by_the_official_stubs(running):
    hu = images(3, 6, 2, 1)
    with grpc.insecure_channel(running.address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "tiny"
        request.inputs["images"].CopyFrom(tf.make_tensor_proto(hu))
        answer = stub.Predict(request, timeout=30)
        np.testing.assert_allclose(tf.make_ndarray(answer.outputs["images"]), hu + 10, atol=1e-2)
        assert (answer.model_spec.version.value, answer.model_spec.name) == (3, "tiny")
        assert asked_by_grpc(channel, hu[:0]).shape == (0, 6, 2, 1)
        request.inputs["images"].CopyFrom(tf.make_tensor_proto(hu[..., 0]))
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request, timeout=30)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        request.model_spec.version.value = 9
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request, timeout=30)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        asked.model_spec.name = "tiny"
        told = stub.GetModelMetadata(asked, timeout=30)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        assert told.metadata["signature_def"].Unpack(signatures)
        assert sorted(signatures.signature_def) == ["bytes", "serving_default"]
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "tiny"
        found = models.GetModelStatus(status, timeout=30)
        assert found.model_version_status[0].state == 30


def test_what_the_docs_configure_is_read_and_answered(running):
    document = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    first, *others = re.findall(r"```\w*\n(.*?)```", document, re.DOTALL)
    assert len(first.splitlines()) == 3 and "zoo serve --model=" in first
    assert document.splitlines()[-1].startswith("![")  # the page
    (text,) = [block for block in others if block.startswith("model_config_list")]
    read = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (config,) = read.model_config_list.config
    assert config.version_labels["stable"] in config.model_version_policy.specific.versions
    assert f"/models/{config.name}/1/assets.extra" in document
    (text,) = [block for block in others if block.startswith("apiVersion")]
    pod = yaml.safe_load(text)["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    paths = [container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")]
    for path in (*paths, pod["metadata"]["annotations"]["prometheus.io/path"]):
        assert running.get(path).status_code == 200
    before = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["spec"]["terminationGracePeriodSeconds"] >= run.GRACE + int(before[-1])


@pytest.fixture
def slow(model, monkeypatch):
    """A model that waits until it is let go on."""
    gate = threading.Event()
    calm = served.Signature.answer

    def answer(self, arrays):
        gate.wait(30)
        return calm(self, arrays)

    monkeypatch.setattr(served.Signature, "answer", answer)
    return gate


async def gathered(server, count, size=1):
    """The status codes of so many requests at once."""
    body = json.dumps({"instances": np.zeros([size, 2, 2, 1]).tolist()})
    posts = [server.client.post(f"{MODEL}:predict", content=body) for _ in range(count)]
    return [response.status_code for response in await asyncio.gather(*posts)]


def test_requests_of_one_shape_share_batches(model, slow):
    server = Running(model, largest=4)
    try:
        waiting = asyncio.run_coroutine_threadsafe(gathered(server, 9), server.loop)
        time.sleep(0.5)
        slow.set()
        assert waiting.result(60) == [200] * 9
        assert max(server.batches.sizes) == 4
        assert sum(size * n for size, n in server.batches.sizes.items()) == 9
        assert sum(server.batches.sizes.values()) <= 4
        assert server.call(gathered(server, 1, size=11)) == [200]  # more than a batch holds
        # More than the queue ever holds is no matter of waiting.
        body = {"instances": np.zeros([4 * 64 + 1, 1, 1, 1]).tolist()}
        response = server.post(f"{MODEL}:predict", body)
        assert response.status_code == 400
        assert response.json()["error"] == "inputs: expected up to 256 examples. Received: 257"
    finally:
        server.close()


def test_a_damaged_image_is_no_fault_of_those_beside_it(model, slow):
    server = Running(model, largest=4)
    png = tf.io.encode_png(png16.Scale.of(CT).stored(images(16, 16, 1))).numpy()

    async def both():
        posts = []
        for content in (png, png[: len(png) // 2], png):
            told = {"b64": base64.b64encode(content).decode()}
            body = json.dumps({"signature_name": "bytes", "instances": [told]})
            posts.append(server.client.post(f"{MODEL}:predict", content=body))
        return [response.status_code for response in await asyncio.gather(*posts)]

    try:
        waiting = asyncio.run_coroutine_threadsafe(both(), server.loop)
        time.sleep(0.5)
        slow.set()
        assert waiting.result(60) == [200, 400, 200]
        assert max(server.batches.sizes) > 1
    finally:
        server.close()


def test_a_full_queue_refuses_and_a_stop_answers_what_is_waiting(model, slow):
    server = Running(model, largest=1, waiting=3)
    first = asyncio.run_coroutine_threadsafe(gathered(server, 8), server.loop)
    time.sleep(0.5)
    stopping = asyncio.run_coroutine_threadsafe(server.batches.stop(), server.loop)
    slow.set()
    codes = first.result(60)
    stopping.result(60)
    assert sorted(set(codes)) == [200, 503]
    assert codes.count(200) >= 3
    assert server.call(gathered(server, 1)) == [503]
    server.close()


def test_a_body_has_a_limit(model):
    server = Running(model, body=1000)
    try:
        response = server.post(f"{MODEL}:predict", b" " * 1001)
        assert response.status_code == 413
        assert "1000 bytes" in response.json()["error"]
        # An upload in chunks, without end.
        taken = 0

        async def chunks():
            nonlocal taken
            yield b"--x\r\nContent-Disposition: form-data; name=files; filename=a\r\n\r\n"
            while taken < 10**6:
                taken += 500
                yield b"." * 500

        kind = {"content-type": "multipart/form-data; boundary=x"}
        post = server.client.post("/translate", content=chunks(), headers=kind)
        assert server.call(post).status_code == 413 and taken < 5000
        with grpc.insecure_channel(server.address) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                asked_by_grpc(channel, images(1, 20, 20, 1))
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    finally:
        server.close()


def left(folder) -> list[str]:
    """What is in a temporary folder but for TensorFlow's own code."""
    names = [path.name for path in folder.iterdir()]
    return [name for name in names if not name.startswith("__autograph")]


def test_what_nobody_foresaw_is_told_by_its_place_alone(model, monkeypatch, capfd):
    def fail(*_):
        raise TypeError("MUSTER^ANNA")

    monkeypatch.setattr(served.Signature, "answer", fail)
    server = Running(model)
    try:
        response = server.post(f"{MODEL}:predict", {"instances": [[[[1.0]]]]})
        assert (response.status_code, response.json()) == (500, {"error": "internal error"})
    finally:
        server.close()
    said = capfd.readouterr().err
    assert re.fullmatch(r"internal error: TypeError in server_test.py, line \d+\n", said)


def test_the_command_serves_until_it_is_told_to_stop(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        grpc_port = free.getsockname()[1]
    command = [sys.executable, "cli.py", "--model=encoder_decoder_ldct", "--port=0", "serve"]
    command += [f"--grpc_port={grpc_port}"]
    scratch, log = tmp_path / "scratch", tmp_path / "log"
    scratch.mkdir()
    with open(log, "w") as said:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(scratch)},
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
    try:
        address = process.stdout.readline().split()[-1]
        assert address.startswith("http://127.0.0.1:")  # this machine alone
        # Nothing of an upload is kept or logged, whether it can be translated or not.
        shown = address.partition("/v1")[0]
        ct = Path(dicom_files.bundled("CT_small")).read_bytes()
        for content in (ct, b"MUSTER^ANNA", ct[:-100]):
            sent = {"files": ("MUSTER^ANNA.dcm", content)}
            answer = httpx.post(f"{shown}/translate", files=sent, timeout=60)
            assert answer.status_code in (200, 400) and (content is not ct or answer.is_success)
        end = time.monotonic() + 10
        while left(scratch):  # it goes when the answer has
            assert time.monotonic() < end, left(scratch)
            time.sleep(0.1)
        document = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
        example = re.search(r"```python\n(.*?)```", document, re.DOTALL).group(1)
        example = example.replace("http://127.0.0.1:8501", address.partition("/v1")[0])
        told = {}
        exec(example.replace("[512, 512]", "[64, 64]"), told)
        assert told["denoised"].shape == (64, 64)
        assert np.abs(told["denoised"]).max() < 20
        asked = images(1, 200, 300, 1)
        many = np.repeat(images(1, 512, 512, 1), 12, axis=0)
        whole = [("grpc.max_receive_message_length", -1)]
        channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}", whole)
        with ThreadPoolExecutor() as threads, channel:
            body = {"instances": asked.tolist()}
            asking = [
                threads.submit(httpx.post, f"{address}:predict", json=body, timeout=60)
                for _ in range(5)
            ]
            by_grpc = threads.submit(asked_by_grpc, channel, many, "encoder_decoder_ldct")
            time.sleep(1)  # all have arrived, not all are answered
            assert not by_grpc.done()
            process.send_signal(signal.SIGTERM)
            answers = [each.result().json()["predictions"] for each in asking]
            parts = by_grpc.result()
        model = zoo.load("encoder_decoder_ldct")
        for answer in answers:
            np.testing.assert_allclose(answer, model.translate(asked), atol=1)
        assert len(parts) == 12
        np.testing.assert_allclose(parts[-1:], model.translate(many[:1]), atol=1)
        assert process.wait(30) == 0
        told = process.stdout.read() + log.read_text()
        assert "MUSTER" not in told and "CompressedSamples" not in told and "translate" not in told
        assert not left(scratch)
    finally:
        process.kill()
        process.stdout.close()


def test_it_is_ready_when_warm_and_takes_nothing_new_when_told_to_stop(model, slow, monkeypatch):
    listening = run._listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    hu = images(1, 2, 3, 1)

    def ready() -> int:
        return httpx.get(f"{address}/readyz").status_code

    told, known = [], threading.Event()

    def told_to_stop() -> asyncio.Event:
        told.extend([asyncio.get_running_loop(), asyncio.Event()])
        known.set()
        return told[1]

    monkeypatch.setattr(run, "_told_to_stop", told_to_stop)

    def drive(threads):
        try:
            assert httpx.get(f"{address}/healthz").status_code == 200
            assert ready() == 503
            slow.set()  # it warms up
            end = time.monotonic() + 30
            while ready() != 200:
                assert time.monotonic() < end
            slow.clear()
            body = {"instances": hu.tolist()}
            asked = threads.submit(httpx.post, f"{address}{MODEL}:predict", json=body, timeout=30)
            time.sleep(1)  # it has arrived
        finally:
            assert known.wait(30)
            told[0].call_soon_threadsafe(told[1].set)
        time.sleep(0.5)
        with pytest.raises(httpx.ConnectError):
            ready()
        slow.set()
        return asked.result().json()["predictions"]

    with ThreadPoolExecutor() as threads:
        driving = threads.submit(drive, threads)
        asyncio.run(asyncio.wait_for(run._serve(model, listening, 0, 4, rest.BODY), 120))
    np.testing.assert_allclose(driving.result(), hu + 10, atol=1e-2)


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port: expected a free one. Received: 127.0.0.1:{port}"):
            run.run(None, port=port)
