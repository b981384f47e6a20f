"""`export`: a model as a SavedModel that TF Serving takes, with its card and intensity contract."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import zoo
from zoo import registry
from zoo.atomic import write_json
from zoo.checkpoints import written
from zoo.serving import card as model_card
from zoo.translator import Translator

SIGNATURE = "serving_default"
CARD_FIELDS = ("name", "summary", "paper", "dataset", "metrics", "licence", "notes")
# Greatest difference between the Keras model and its reloaded export, as a fraction of the target's
# window. Convolutions may add up in another order, and bfloat16 keeps 8 bits of each value.
_TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}
# Of a label map: the greatest fraction of pixels whose class may differ, at ties of two classes.
_TIES = {"float32": 1e-3, "bfloat16": 2e-2}


def export(
    model: Translator,
    output: Path | str,
    *,
    version: int | None = None,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model as `<output>/<version>/`, the layout that TF Serving watches.

    The signature `serving_default` takes and gives float32 images in physical units: "images"
    `[N, H, W, C]` to "images" `[N, H', W', C']`, padding and intensity windows in the graph. A
    model of volumes has `[N, D, H, W, C]`; a classifier gives class numbers; a generator takes
    "latents" `[N, latent]` and, where it is conditional, "labels" int64 `[N]`. Another rank, other
    channels and labels that no class has are errors; no images give none. `assets.extra/` holds
    `model_card.md` for people and `intensity.json`, the intensity contract, for clients.

    The folder appears complete or not at all: before it gets its number it is loaded by a fresh
    process, without this package, and must answer as the Keras model does.

    Args:
        model: a `Translator`, whose `call` is what is served.
        output: folder of the numbered versions; made where it is missing.
        version: number of the new version; None takes the highest there is plus one.
        card: what the model cannot know: any of name, summary, paper, dataset, metrics (a dict),
            licence, notes (Markdown). Summary and paper default to the registry's.

    Returns:
        The version's folder.

    Raises:
        ValueError: for an unknown card field, a version that is not a positive number or exists
            already, an output that is a file, or an export that answers otherwise than the model.
        OSError: where it cannot be written.
    """
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
        archive = keras.export.ExportArchive()
        archive.add_endpoint(SIGNATURE, _endpoint(model, specs))
        with written(final):
            archive.write_out(temporary, verbose=False)
        memory = _verify(model, temporary, specs)
        extra = temporary / "assets.extra"
        contract = _contract(model, specs, fields)
        card_text = model_card.write(contract, fields, version, memory)
        with written(final):
            extra.mkdir()
            write_json(extra / "intensity.json", contract)
            (extra / "model_card.md").write_text(card_text, encoding="utf-8")
            os.replace(temporary, final)
    return final


def serving_specs(model: Translator) -> dict[str, tf.TensorSpec]:
    """Names and shapes of what the model serves: "images" or, for a generator, "latents".

    A generator is a model that `generates`; its recipe's `latent` is the vector's length,
    and where the recipe is `conditional` it takes "labels" too, the number of each image's class.
    N and the sides of an image are free, but for a network that is built for one size.
    """
    if model.generates:
        specs = {"latents": tf.TensorSpec([None, model.recipe.latent], tf.float32, name="latents")}
        if getattr(model.recipe, "conditional", False):
            specs["labels"] = tf.TensorSpec([None], tf.int64, name="labels")
        return specs
    rank = model.dimensions
    shape = getattr(model.network, "input_shape", None)
    # A network may take several tensors, or be subclassed and know no shape: then sides are free.
    known = isinstance(shape, tuple) and len(shape) == rank + 2
    sides = shape[1:-1] if known else [None] * rank
    shape = [None, *sides, model.source.channels]
    return {"images": tf.TensorSpec(shape, tf.float32, name="images")}


def card_fields(entry: registry.Entry) -> dict[str, Any]:
    """The card's fields that a registry entry knows; give them to `export` as its `card`."""
    fields: dict[str, Any] = {"name": Path(entry.name).name}
    if entry.dataset:
        fields["dataset"] = entry.dataset
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


def _endpoint(model: Translator, specs: dict[str, tf.TensorSpec]):
    def serve(*inputs):
        # A signature's shape binds no caller: of other channels the network would make nonsense.
        given = [tf.ensure_shape(x, s.shape) for x, s in zip(inputs, specs.values(), strict=True)]
        count = tf.shape(given[0])[0]
        # Some operations take no empty batch: it is served as one of zeros, which is left out.
        padded = [tf.cond(count > 0, lambda x=x: x, lambda x=x: _one_like(x)) for x in given]
        return {"images": tf.cast(_call(model, padded), tf.float32)[:count]}

    # The names of the specs become the signature's.
    return tf.function(serve, input_signature=list(specs.values()), autograph=False)


def _one_like(batch: tf.Tensor) -> tf.Tensor:
    return tf.zeros(tf.concat([[1], tf.shape(batch)[1:]], axis=0), batch.dtype)


def _call(model: Translator, inputs: Sequence[Any]) -> tf.Tensor:
    return model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)


# Run by a fresh interpreter: plain TensorFlow, none of this package.
_CHILD = """
import re, sys
from pathlib import Path
import numpy as np
import tensorflow as tf

def memory(kind):
    found = re.search(kind + r":\\s*(\\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found.group(1))

folder, questions, answers = sys.argv[1:]
serve = tf.saved_model.load(folder).signatures["serving_default"]
asked, given = {}, {}
for key, value in np.load(questions).items():
    number, name = key.split(" ")
    asked.setdefault(number, {})[name] = tf.constant(value)
try:
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far (Linux)
    before = memory("VmRSS")
except OSError:
    before = None
for number, inputs in asked.items():
    given[number] = serve(**inputs)["images"].numpy()
given["memory"] = memory("VmHWM") - before if before else 0
own = [module for module in sys.modules if module.split(".")[0].startswith("zoo")]
if own:
    sys.exit(f"expected no project code. Received: {own}")
np.savez(answers, **given)
"""


def _questions(
    model: Translator, specs: dict[str, tf.TensorSpec]
) -> dict[str, dict[str, np.ndarray]]:
    """Random inputs: two sizes, one of them odd, then a whole tile."""
    draw = np.random.default_rng(0)
    if "latents" in specs:
        latents = [draw.standard_normal((n, model.recipe.latent), "float32") for n in (1, 3)]
        questions = {f"{i}": {"latents": value} for i, value in enumerate(latents)}
        if "labels" in specs:
            classes = max(1, len(_class_names(model)))
            for question in questions.values():
                count = len(question["latents"])
                question["labels"] = np.arange(count, dtype="int64")[::-1] % classes
        return questions
    sides = specs["images"].shape.as_list()[1:-1]
    if None not in sides:
        sizes = [sides]
    elif len(sides) == 3:
        sizes = [(5, 9, 12), (8, 8, 8), [_largest(model)] * 3]
    else:
        sizes = [(37, 51), (64, 64), [_largest(model)] * 2]
    shapes = [(1 + (i == 0), *size, model.source.channels) for i, size in enumerate(sizes)]
    (low, high), margin = model.source.window, 0.1 * model.source.span
    return {  # somewhat beyond the window, as real images are
        f"{i}": {"images": draw.uniform(low - margin, high + margin, shape).astype("float32")}
        for i, shape in enumerate(shapes)
    }


def _largest(model: Translator) -> int:
    """Side of the largest image that is tried."""
    return (
        model.recipe.tile
        if model.dimensions == 2
        else min(model.recipe.tile, model_card.LARGEST_CUBE)
    )


def _class_names(model: Translator) -> tuple[str, ...]:
    """What the values of "labels" mean, or of the label map that comes out."""
    names = getattr(model, "label_names", ()) if model.classes else model.recipe.class_names
    return tuple(names)


def _verify(model: Translator, folder: Path, specs: dict[str, tf.TensorSpec]) -> int:
    """Compare the SavedModel, in a fresh process, with the Keras model.

    Returns:
        Memory that the largest input takes on a CPU, in bytes; 0 where it cannot be measured.

    Raises:
        ValueError: where they differ, or the SavedModel does not run by itself.
    """
    questions = _questions(model, specs)

    def ask(question: dict[str, np.ndarray]) -> np.ndarray:
        inputs = [tf.constant(question[name]) for name in specs]
        return np.asarray(tf.cast(_call(model, inputs), tf.float32))

    # Both on the CPU: this process may hold all of an accelerator's memory.
    with tf.device("CPU:0"):
        expected = {key: ask(question) for key, question in questions.items()}
        first = next(iter(questions))
        again = ask(questions[first])
    _compare(model, again, expected[first], "the model itself gives two answers to one input")
    with _fresh_answers(folder, questions) as answers:
        for key, question in questions.items():
            shape = next(iter(question.values())).shape
            what = f"the export differs from the model on an input of {shape}"
            _compare(model, answers[key], expected[key], what)
        return int(answers["memory"])


def _compare(model: Translator, received: np.ndarray, expected: np.ndarray, what: str) -> None:
    if received.shape != expected.shape:
        raise ValueError(f"{what}: expected {expected.shape}. Received: {received.shape}")
    if not np.isfinite(expected).all():
        raise ValueError(f"{what}: expected finite values. Received: NaN or infinity")
    if model.classes:
        allowed, measure = _TIES[model.precision], "other classes at a fraction"
        largest = float(np.mean(received != expected))
    else:
        allowed, measure = _TOLERANCE[model.precision] * model.target.span, "a difference"
        largest = float(np.abs(received - expected).max())
    if not largest <= allowed:
        raise ValueError(f"{what}: expected {measure} up to {allowed:.3g}. Received: {largest:.3g}")


@contextlib.contextmanager
def _fresh_answers(
    folder: Path, questions: dict[str, dict[str, np.ndarray]]
) -> Iterator[Mapping[str, np.ndarray]]:
    with tempfile.TemporaryDirectory() as scratch:
        asked, given = Path(scratch) / "questions.npz", Path(scratch) / "answers.npz"
        named = {f"{k} {name}": v for k, inputs in questions.items() for name, v in inputs.items()}
        np.savez(asked, **named)
        # -P: nothing of the working folder can be imported.
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD, folder.resolve(), asked, given],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ValueError(f"the exported model does not run by itself. Received: {done.stderr}")
        with np.load(given) as answers:
            yield answers


def _contract(
    model: Translator, specs: dict[str, tf.TensorSpec], fields: dict[str, Any]
) -> dict[str, Any]:
    """What a client must know of the numbers; `intensity.json`."""
    inputs = [
        {"name": name, "dtype": spec.dtype.name, "shape": spec.shape.as_list()}
        for name, spec in specs.items()
    ]
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
        "tile": {"size": model.recipe.tile, "overlap": 2 * model.tile_margin},
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
    if "labels" in specs:
        contract["labels"] = inputs[1] | {"names": list(_class_names(model))}
    if model.classes:
        contract |= {"classes": model.classes, "label_names": list(_class_names(model))}
    return contract
