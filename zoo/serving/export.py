"""`export`: a model as a SavedModel that TF Serving takes, with its card and intensity contract."""

import dataclasses
import itertools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import zoo
from zoo import registry, tiled
from zoo.atomic import write_atomic, write_json
from zoo.checkpoints import written
from zoo.serving import card as model_card
from zoo.serving import formats, monai, png16, warmup
from zoo.serving.verify import SIGNATURE, call, class_names, loss, verify, verify_engine
from zoo.translator import Translator
from zoo.trust import served
from zoo.trust.calibration import Calibration
from zoo.trust.half_width import HalfWidth
from zoo.trust.limits import Limits

_EXAMPLE = 64  # pixels a side of the images that warm a server up
CARD_FIELDS = ("name", "summary", "paper", "dataset", "metrics", "licence", "notes", "alarms")


def export(
    model: Translator,
    output: Path | str,
    *,
    version: int | None = None,
    card: Mapping[str, Any] | None = None,
    uncertainty: Calibration | None = None,
    format: str = formats.SAVED_MODEL,
    int8: Sequence[np.ndarray] = (),
    allowed: float = 0.5,
) -> Path:
    """Write a model as `<output>/<version>/`, the layout that TF Serving watches.

    The signature `serving_default` takes and gives float32 images in physical units: "images"
    `[N, H, W, C]` to "images" `[N, H', W', C']`, padding and intensity windows in the graph. A
    model of volumes has `[N, D, H, W, C]`; a classifier gives class numbers; a generator takes
    "latents" `[N, latent]` and, where it is conditional, "labels" int64 `[N]`. Several inputs are
    the channels of "images", in the order that the card says. Another rank, other
    channels and labels that no class has are errors; no images give none. Where a PNG holds the
    images, the signature `bytes` takes and gives them as PNG of 16 bits (`zoo.serving.png16`).
    With `uncertainty` a signature of that name gives "half_width" beside "images": the output ± it
    is the interval that `calibrate` found. `assets.extra/` holds `model_card.md` for people,
    `intensity.json`, the intensity contract, for clients, `metadata.json` for MONAI's tools, and
    for TF Serving requests that warm it up and parameters for batching.

    The folder appears complete or not at all: before it gets its number it is loaded by a fresh
    process, without this package, and must answer as the Keras model does. Other formats than the
    SavedModel (`zoo.serving.formats`) are answered by their own engine; they have the card and
    the contract in the version's folder itself, "half_width" as a second output, and ONNX has
    `config.pbtxt` for Triton above it.

    Args:
        model: a `Translator`, whose `call` is what is served.
        output: folder of the numbered versions; made where it is missing.
        version: number of the new version; None takes the highest there is plus one.
        card: what the model cannot know: any of name, summary, paper, dataset, metrics (a dict),
            licence, notes (Markdown), alarms (as `zoo.trust.limits` has them). Summary and paper
            default to the registry's.
        uncertainty: a calibration of this model, by quantile heads, or by mirror images and turns.
        format: "saved_model", "onnx", "openvino" or "litert".
        int8: images `[1, H, W, C]` that make an int8 network of another format than
            SavedModel: every other one calibrates it, the rest tell what it loses.
        allowed: what int8 may lose, in percent of the target's window (`verify.loss`).

    Returns:
        The version's folder.

    Raises:
        ValueError: for an unknown card field, another kind of `uncertainty` or one of int8, a
            version that is not a positive number or exists already, an output that is a file, an
            export that answers otherwise than the model, or for other formats a model that does
            not compute in float32.
        OSError: where it cannot be written, or what the format needs is not installed.
    """
    _check_format(model, format, bool(int8))
    if int8 and uncertainty is not None:
        raise ValueError(
            "uncertainty: expected float32, in which it was calibrated. Received: int8"
        )
    # Where it goes.
    output = Path(output)
    fields = _card_fields(model, card or {})
    if output.exists() and not output.is_dir():
        raise ValueError(f"output: expected a folder. Received: {output}, a file")
    output.mkdir(parents=True, exist_ok=True)
    version = _next_version(output) if version is None else version
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"version: expected a positive number. Received: {version!r}")
    final = output / str(version)
    if final.exists():
        raise ValueError(f"version: expected one that {output} lacks. Received: {version}")
    # A sibling that has no number, so that TF Serving does not see it; made inside a folder of its
    # own, because a temporary folder itself is closed to other users.
    with tempfile.TemporaryDirectory(dir=output, prefix=".writing-") as folder:
        temporary = Path(folder) / "model"
        specs = serving_specs(model)
        if format == formats.SAVED_MODEL:
            _write_saved_model(model, temporary, specs, final, fields, uncertainty)
        else:
            given = format, int8, allowed, uncertainty
            _write_other(model, temporary, specs, final, fields, *given)
        with written(final):
            os.replace(temporary, final)
    return final


def _check_format(model: Translator, format: str, int8: bool) -> None:
    known = (formats.SAVED_MODEL, *formats.FILES)
    if format not in known:
        raise ValueError(f"format: expected {', '.join(known)}. Received: {format!r}")
    if format == formats.SAVED_MODEL:
        if int8:
            others = ", ".join(formats.FILES)
            raise ValueError(f"int8: expected the format {others}. Received: {format}")
        return
    formats.require(format, model.precision, int8)


def _write_saved_model(
    model: Translator,
    folder: Path,
    specs: dict[str, tf.TensorSpec],
    final: Path,
    fields: dict[str, Any],
    uncertainty: Calibration | None,
) -> None:
    """A SavedModel in `folder`, which will be `final`, with what is told of it."""
    archive = keras.export.ExportArchive()
    for name, graph in endpoints(model, specs, uncertainty).items():
        archive.add_endpoint(name, graph)
    widths = None if uncertainty is None else HalfWidth(model, uncertainty)
    with written(final):
        archive.write_out(folder, verbose=False)
    # What it answers, and what is told of it.
    memory = verify(model, folder, specs, widths)
    extra = folder / "assets.extra"
    contract = _contract(model, specs, fields)
    if uncertainty is not None:
        about = {"signature": served.SIGNATURE, "name": "half_width"}
        contract["uncertainty"] = about | uncertainty.to_dict()
    with written(final):
        extra.mkdir()
        _tell(extra, contract, fields, int(final.name), memory)
        warmup.write(extra, examples(model, specs, uncertainty))


def _write_other(
    model: Translator,
    folder: Path,
    specs: dict[str, tf.TensorSpec],
    final: Path,
    fields: dict[str, Any],
    format: str,
    int8: Sequence[np.ndarray],
    allowed: float,
    uncertainty: Calibration | None,
) -> None:
    """The network in another format, as `_write_saved_model`."""
    with written(final):
        folder.mkdir()
        ask = formats.write(model, format, specs, folder, int8[::2], uncertainty)
    contract = _contract(model, specs, fields)
    contract["output"]["name"] = formats.OUTPUT
    contract["file"] = formats.FILES[format]
    contract.pop("bytes", None)
    # What it answers: to the rounding, or with fewer bits within what is allowed.
    if int8:
        lost = loss(model, ask, int8[1::2])
        contract["int8"] = {
            "calibrated_on": len(int8[::2]),
            "judged_on": len(int8[1::2]),
            "loss_percent": lost,
        }
        if not lost <= allowed:
            raise ValueError(
                f"int8: expected a loss up to {allowed:g} % of the window. Received: {lost:.3g} %"
            )
    else:
        verify_engine(model, ask, specs)
    # What its half-widths are.
    outputs = [formats.OUTPUT]
    if uncertainty is not None:
        outputs.append(formats.HALF_WIDTH)
        ask = formats.engine(format, folder, formats.HALF_WIDTH)
        verify_engine(model, ask, specs, HalfWidth(model, uncertainty))
        contract["uncertainty"] = {"name": formats.HALF_WIDTH} | uncertainty.to_dict()
    with written(final):
        _tell(folder, contract, fields, int(final.name), 0)
        if format == "onnx":
            text = formats.triton(specs, model, outputs)
            write_atomic(final.parent / "config.pbtxt", text.encode())


def _tell(
    folder: Path, contract: dict[str, Any], fields: dict[str, Any], version: int, memory: int
) -> None:
    """What people, clients and MONAI's tools are told of an export."""
    write_json(folder / "intensity.json", contract)
    write_json(folder / "metadata.json", monai.metadata(contract, fields, version))
    card_text = model_card.write(contract, fields, version, memory)
    (folder / "model_card.md").write_text(card_text, encoding="utf-8")


def serving_specs(model: Translator) -> dict[str, tf.TensorSpec]:
    """Names and shapes of what the model serves: "images" or, for a generator, "latents".

    A generator is a model that `generates`; its recipe's `latent` is the vector's length,
    and where the recipe is `conditional` it takes "labels" too, the number of each image's class.
    N and the sides of an image are free, but for a network that is built for one size.
    """
    if model.generates:
        fields = model.recipe.to_dict()
        specs = {"latents": tf.TensorSpec([None, fields["latent"]], tf.float32, name="latents")}
        if fields.get("conditional"):
            specs["labels"] = tf.TensorSpec([None], tf.int64, name="labels")
        return specs
    # A network may take several tensors, or be subclassed and know no shape: then sides are free.
    known = getattr(model.network, "input_shape", None)
    sides: list[int | None] = [None] * model.dimensions
    if isinstance(known, tuple) and len(known) == model.dimensions + 2:
        sides = list(known[1:-1])
    shape = [None, *sides, model.source.channels]
    return {"images": tf.TensorSpec(shape, tf.float32, name="images")}


def _tile(model: Translator) -> dict[str, Any]:
    """How larger images are to be cut: one number for all axes, or one for each."""
    sides, overlap = model.recipe.tile, 2 * model.tile_margin
    if model.dimensions == 2 and isinstance(sides, int):
        return {"size": sides, "overlap": overlap}
    cut = tiled.Cut.of(model)
    found = {"size": cut.tile, "overlap": tuple(min(overlap, shared) for shared in cut.overlap)}
    return {k: list(v) if len(set(v)) > 1 else v[0] for k, v in found.items()}


def card_fields(entry: registry.Entry) -> dict[str, Any]:
    """The card's fields that a registry entry knows; give them to `export` as its `card`."""
    fields: dict[str, Any] = {"name": Path(entry.name).name}
    if entry.dataset:
        fields["dataset"] = entry.dataset
    if entry.which:
        fields["notes"] = f"The weights of the run that were exported: {entry.which}."
    if entry.alarms is not None:
        fields["alarms"] = entry.alarms
    row = registry.index()["pretrained"].get(entry.name, {})
    return fields | {k: row[k] for k in ("summary", "metrics", "licence") if k in row}


def _card_fields(model: Translator, card: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [field for field in card if field not in CARD_FIELDS]
    if unknown:
        raise ValueError(
            f"card: expected some of the fields {', '.join(CARD_FIELDS)}. Received: {unknown[0]!r}"
        )
    row = registry.index()["models"].get(model.registered_name, {})
    known = {k: row[k] for k in ("summary", "paper") if k in row}
    return {"name": model.registered_name or model.name} | known | dict(card)


def _next_version(output: Path) -> int:
    return max((int(p.name) for p in output.iterdir() if p.name.isdecimal()), default=0) + 1


def endpoints(
    model: Translator, specs: dict[str, tf.TensorSpec], uncertainty: Calibration | None = None
) -> dict[str, Callable[..., Any]]:
    """The graphs that are served, by the names of their signatures.

    Args:
        model: what is served.
        specs: its `serving_specs`.
        uncertainty: a calibration of the model, by a spread of `zoo.trust.served.IN_GRAPHS`.
    """

    def images(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"images": tf.cast(call(model, inputs), tf.float32)}

    serve = _endpoint(images, specs)
    found = {SIGNATURE: serve}
    if png16.fits(model):
        found[png16.SIGNATURE] = png16.endpoint(model, serve, specs)
    if uncertainty is not None:
        found[served.SIGNATURE] = _endpoint(served.endpoint(model, uncertainty, specs), specs)
    return found


def examples(
    model: Translator, specs: dict[str, tf.TensorSpec], uncertainty: Calibration | None = None
) -> dict[str, dict[str, Any]]:
    """One small request of each of `endpoints`: arrays, and PNG, by the inputs' names."""
    arrays: dict[str, Any] = {}
    for name, spec in specs.items():
        sides = [side or _EXAMPLE for side in spec.shape.as_list()[1:]]
        low = model.source.window[0] if name == "images" else 0
        arrays[name] = np.full([1, *sides], low, spec.dtype.as_numpy_dtype)
    found = {SIGNATURE: arrays}
    if png16.fits(model):
        found[png16.SIGNATURE] = png16.question(model, arrays)
    if uncertainty is not None:
        found[served.SIGNATURE] = arrays
    return found


def _endpoint(
    answer: Callable[..., dict[str, tf.Tensor]], specs: Mapping[str, tf.TensorSpec]
) -> Callable[..., Any]:
    """The graph that is served, of inputs by `specs`."""

    def serve(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        # A signature's shape binds no caller: of other channels the network would make nonsense.
        given = [tf.ensure_shape(x, s.shape) for x, s in zip(inputs, specs.values(), strict=True)]
        count = tf.shape(given[0])[0]
        # Some operations take no empty batch: it is served as one of zeros, which is left out.
        padded = [tf.cond(count > 0, lambda x=x: x, lambda x=x: _one_like(x)) for x in given]
        return {name: made[:count] for name, made in answer(*padded).items()}

    # The names of the specs become the signature's.
    return tf.function(serve, input_signature=list(specs.values()), autograph=False)


def _one_like(batch: tf.Tensor) -> tf.Tensor:
    return tf.zeros(tf.concat([[1], tf.shape(batch)[1:]], axis=0), batch.dtype)


def _contract(
    model: Translator, specs: dict[str, tf.TensorSpec], fields: dict[str, Any]
) -> dict[str, Any]:
    """What a client must know of the numbers; `intensity.json`."""
    inputs = [
        {"name": name, "dtype": spec.dtype.name, "shape": spec.shape.as_list()}
        for name, spec in specs.items()
    ]
    # The numbers that go in and come out, and what made them.
    contract = {
        "format": 1,
        "model": model.registered_name,
        "signature": SIGNATURE,
        "input": inputs[0],
        "output": {"name": "images", "dtype": "float32"},
        "scale": model.scale,
        "dimensions": model.dimensions,
        "source": model.source.to_dict(),
        "target": model.target.to_dict(),
        "size_multiple": model.size_multiple,
        "tile": _tile(model),
        "precision": model.precision,
        "weights_sha256": model.weights_hash,
        "dataset": fields.get("dataset"),
        "recipe": model.recipe.to_dict(),
        "libraries": {
            "zoo": zoo.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }
    if png16.fits(model):
        contract["bytes"] = _png_contract(model, specs)
    if model.source.inputs:
        of_each = [[each.name] * each.channels for each in model.source.inputs]
        inputs[0]["channels"] = list(itertools.chain.from_iterable(of_each))
    # Limits of other weights are none.
    alarms = fields.get("alarms")
    if alarms is not None and Limits.from_dict(alarms).weights == model.weights_hash:
        contract["alarms"] = alarms
    # What the numbers of classes mean, that are asked for or given.
    names = list(class_names(model))
    if "labels" in specs:
        contract["labels"] = inputs[1] | {"names": names}
    if model.classes:
        contract |= {"classes": model.classes, "label_names": names}
    return contract


def _png_contract(model: Translator, specs: dict[str, tf.TensorSpec]) -> dict[str, Any]:
    """How the signature `bytes` stores values: value = slope * stored + intercept."""
    ends = {"output": model.target} | ({"input": model.source} if "images" in specs else {})
    stored = {}
    for end, domain in ends.items():
        stored[end] = {"name": png16.NAME} | dataclasses.asdict(png16.Scale.of(domain))
    return {"signature": png16.SIGNATURE, "format": "PNG, 16 bits a channel"} | stored
