"""Inference: by side and batch, and in tiles, by Keras, OpenVINO and MONAI's inferer."""

from collections.abc import Callable

import numpy as np

import zoo
from benchmarks import measure
from zoo import guards
from zoo.inference import engines

MODELS = ("encoder_decoder_ldct", "pix2pix_ldct", "srresnet_mri_x2")
SIZES = ((256, 1), (256, 4), (512, 1), (512, 4))
TILED = 1024  # side of an image that goes through in tiles


def images_of(side: int, batch: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(0, 100, (batch, side, side, 1)).astype(np.float32)


def run_by(
    name: str, engine: str, images: np.ndarray, precision: str = "float32"
) -> Callable[[], object]:
    """A model's answers by an engine; the first batches are answered by both, and compared."""
    if engine == "openvino":
        measure.needed("openvino")
    model = zoo.load(name, precision=precision)
    engines.use(model, engine, batch_size=len(images))
    with guards.silent():
        for _ in range(3):
            model.serve(images)
    return lambda: model.serve(images)


def by_size(quick: bool, rounds: int) -> measure.Part:
    """Slices a second of shipped models."""
    rows, skipped = [], {}
    models, sizes = (MODELS[1:2], ((32, 2),)) if quick else (MODELS, SIZES)
    for name in models:
        for side, batch in sizes:
            images = images_of(side, batch)
            makers = {
                engine: lambda n=name, e=engine, i=images: run_by(n, e, i)
                for engine in ("keras", "openvino")
            }
            calls, missing = measure.peers(makers)
            skipped |= {f"{engine}, {name}": why for engine, why in missing.items()}
            seconds = measure.in_turns(calls, rounds)
            rates = {key: [batch / each for each in values] for key, values in seconds.items()}
            row = [f"`{name}`", f"{side}²", batch, measure.middle(rates["keras"])]
            found = "openvino" in rates
            row.append(measure.middle(rates["openvino"]) if found else "")
            row.append(measure.ratio(seconds, "keras", "openvino") if found else "")
            rows.append(row)
    columns = ["model", "slice", "batch", "Keras, slices/s", "OpenVINO, slices/s"]
    return measure.Part(f"""## Inference by side and batch

Shipped models, float32, from array to array, in turns. The last column is how many times as fast
OpenVINO is with the network as `--engine=openvino` converts it.

{measure.table([*columns, "OpenVINO to Keras"], rows)}{measure.skipped_in_words(skipped)}
""")


def tiles(quick: bool, rounds: int) -> measure.Part:
    """A large image in tiles, by `translate` and by MONAI's sliding window."""
    name, side = MODELS[0], 64 if quick else TILED
    tile = side // 2
    model = zoo.load(name, precision="float32", tile=tile)
    images = images_of(side, 1)
    margin = model.tile_margin

    def here() -> object:
        with guards.silent():
            return model.translate(images)

    def monai() -> Callable[[], object]:
        torch = measure.needed("torch")
        inferers = measure.needed("monai.inferers")

        def network(part):
            found = model.serve(np.moveaxis(part.numpy(), 1, -1))
            return torch.from_numpy(np.moveaxis(np.asarray(found), -1, 1).copy())

        overlap = min(0.9, 2 * margin / tile)
        window = inferers.SlidingWindowInferer(tile, 1, overlap)
        given = torch.from_numpy(np.moveaxis(images, -1, 1).copy())
        return lambda: window(given, network)

    calls, skipped = measure.peers({"here": lambda: here, "MONAI": monai})
    seconds = measure.in_turns(calls, rounds)
    found = "MONAI" in seconds
    row = [f"`{name}`", f"{side}²", f"{tile}²", measure.middle(seconds["here"])]
    row.append(measure.middle(seconds["MONAI"]) if found else "")
    row.append(measure.ratio(seconds, "MONAI", "here") if found else "")
    columns = ["model", "slice", "tile", "here, s", "MONAI's sliding window, s", "MONAI / here"]
    return measure.Part(f"""## A large image in tiles

The same Keras network behind both; tiles overlap by as much as it sees, {2 * margin} pixels, where
that is less than nine tenths of a tile.

{measure.table(columns, [row])}{measure.skipped_in_words(skipped)}
""")
