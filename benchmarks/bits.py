"""Fewer bits: how much faster a network is in bfloat16 and int8, and what PSNR is lost."""

import functools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import zoo
from benchmarks import inference, measure
from zoo import metrics
from zoo.data import batches, prepare
from zoo.serving import export, formats

WINDOW = (-1024.0, 1500.0)  # of PSNR, in HU
MODELS = ("encoder_decoder_ldct", "encoder_decoder_ldct_fast")
DATA, TINY = "ldct/phantom_small", "ldct/phantom_tiny"
PLAIN = "float32, Keras"

Serve = Callable[[np.ndarray], np.ndarray]


def fewer(quick: bool, rounds: int) -> measure.Part:
    """Each model in float32, bfloat16 and int8, by Keras and OpenVINO."""
    side, count = (64, 4) if quick else (512, 16)
    rows, skipped = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = zoo.load(MODELS[0]).recipe
        builder = prepare.load_builder(TINY if quick else DATA, folder, recipe)
        # What int8 is calibrated on is of other patients than what it is judged on.
        pairs = list(batches.eval_dataset(builder, "test", count))
        other = [
            each["source"][None] for each in batches.eval_dataset(builder, "validation", count)
        ]
        images = inference.images_of(side, 4)
        for model in MODELS[1:] if quick else MODELS:
            serves: dict[str, Serve] = {}

            def made(make: Callable[[], Serve], key: str, kept: dict[str, Serve]) -> Callable:
                kept[key] = make()
                return lambda: kept[key](images)

            makers = {}
            for key, make in _ways(model, folder, other).items():
                makers[key] = functools.partial(made, make, key, serves)
            calls, missing = measure.peers(makers)
            skipped |= {f"{key}, {model}": why for key, why in missing.items()}
            seconds = measure.in_turns(calls, rounds)
            whole = _psnr(serves[PLAIN], pairs)
            for key in calls:
                rate = measure.three(len(images) / statistics.median(seconds[key]))
                row = [f"`{model}`", key, rate, measure.ratio(seconds, PLAIN, key)]
                rows.append([*row, f"{whole - _psnr(serves[key], pairs):.3f}"])
    columns = ["model", "numbers, engine", "slices/s", f"to {PLAIN}", "PSNR lost, dB"]
    text = f"""## Fewer bits

Slices of {side}², four at once, from array to array, in turns. PSNR is lost from that of the
float32 network, on {len(pairs)} simulated slices of patients that int8 was not calibrated on; below
0 it is gained. OpenVINO is given the network of `export` and computes in bfloat16 by its hint
`INFERENCE_PRECISION_HINT`; a processor without the instructions gains nothing.

{measure.table(columns, rows)}{measure.skipped_in_words(skipped)}
"""
    return measure.Part(text)


def _ways(name: str, folder: Path, calibration: list[np.ndarray]) -> dict[str, Callable[[], Serve]]:
    """What makes each network that answers."""
    return {
        PLAIN: lambda: zoo.load(name, precision="float32").serve,
        "bfloat16, Keras": lambda: zoo.load(name, precision="bfloat16").serve,
        "float32, OpenVINO": lambda: _openvino(name, folder / f"{name}32", "f32"),
        "bfloat16, OpenVINO": lambda: _openvino(name, folder / f"{name}16", "bf16"),
        "int8, OpenVINO": lambda: _openvino(name, folder / f"{name}8", "f32", calibration),
    }


def _openvino(
    name: str, folder: Path, hint: str, calibration: list[np.ndarray] | None = None
) -> Serve:
    openvino = measure.needed("openvino")
    folder.mkdir()
    model = zoo.load(name, precision="float32")
    formats.write(model, "openvino", export.serving_specs(model), folder, calibration or ())
    compiled = openvino.Core().compile_model(
        folder / formats.FILES["openvino"], "CPU", {"INFERENCE_PRECISION_HINT": hint}
    )
    return lambda images: compiled([images])[formats.OUTPUT]


def _psnr(serve: Serve, pairs: list[dict]) -> float:
    """The mean PSNR of the answers."""
    found = []
    for pair in pairs:
        answer = np.asarray(serve(pair["source"][None]))[0]
        found.append(metrics.psnr(answer, pair["target"], WINDOW))
    return statistics.mean(found)
