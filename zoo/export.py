"""`export`: a model as a SavedModel that TF Serving takes, with its card and intensity contract."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import zoo
from zoo import registry
from zoo.translator import Translator

SIGNATURE = "serving_default"
CARD_FIELDS = ("name", "summary", "paper", "dataset", "metrics", "licence", "notes")
# Greatest difference between the Keras model and its reloaded export, as a fraction of the target's
# window. Convolutions may add up in another order, and bfloat16 keeps 8 bits of each value.
_TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}


def export(
    model: Translator,
    output: Path | str,
    *,
    version: int | None = None,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model as `<output>/<version>/`, the layout that TF Serving watches.

    The signature `serving_default` takes and gives float32 images in physical units: "images"
    `[N, H, W, C]` to "images" `[N, H', W', C']`, padding and intensity windows in the graph; a
    generator takes "latents" `[N, latent]`. `assets.extra/` holds `model_card.md` for people and
    `intensity.json`, the intensity contract, for clients.

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
        name, spec = serving_specs(model)
        archive = keras.export.ExportArchive()
        archive.add_endpoint(SIGNATURE, _endpoint(model, name, spec))
        archive.write_out(temporary, verbose=False)
        memory = _verify(model, temporary, name, spec)
        extra = temporary / "assets.extra"
        extra.mkdir()
        contract = _contract(model, name, spec, fields)
        text = json.dumps(contract, indent=2) + "\n"
        (extra / "intensity.json").write_text(text, encoding="utf-8")
        text = _card(contract, fields, version, memory)
        (extra / "model_card.md").write_text(text, encoding="utf-8")
        os.replace(temporary, final)
    return final


def serving_specs(model: Translator) -> tuple[str, tf.TensorSpec]:
    """Name and shape of what the model serves: "images" or, for a generator, "latents".

    A generator is a model with its own `generate`; its recipe's `latent` is the vector's length.
    N, H and W are free, but for a network that is built for one height and width.
    """
    if type(model).generate is not Translator.generate:
        return "latents", tf.TensorSpec([None, model.recipe.latent], tf.float32, name="latents")
    shape = getattr(model.network, "input_shape", None)
    # A network may take several tensors, or be subclassed and know no shape: then H and W are free.
    size = shape[1:3] if isinstance(shape, tuple) and len(shape) == 4 else (None, None)
    return "images", tf.TensorSpec([None, *size, model.source.channels], tf.float32, name="images")


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


def _endpoint(model: Translator, name: str, spec: tf.TensorSpec):
    # The argument's name becomes the signature's.
    if name == "latents":

        def serve(latents):
            return {"images": tf.cast(model(latents, training=False), tf.float32)}
    else:

        def serve(images):
            return {"images": tf.cast(model(images, training=False), tf.float32)}

    return tf.function(serve, input_signature=[spec], autograph=False)


# Run by a fresh interpreter: plain TensorFlow, none of this package.
_CHILD = """
import re, sys
from pathlib import Path
import numpy as np
import tensorflow as tf

def memory(kind):
    found = re.search(kind + r":\\s*(\\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found.group(1))

folder, questions, answers, name = sys.argv[1:]
serve = tf.saved_model.load(folder).signatures["serving_default"]
asked = dict(np.load(questions))
given = {}
try:
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far (Linux)
    before = memory("VmRSS")
except OSError:
    before = None
for key, value in asked.items():
    given[key] = serve(**{name: tf.constant(value)})["images"].numpy()
given["memory"] = memory("VmHWM") - before if before else 0
own = [module for module in sys.modules if module.split(".")[0].startswith("zoo")]
if own:
    sys.exit(f"expected no project code. Received: {own}")
np.savez(answers, **given)
"""


def _questions(model: Translator, name: str, spec: tf.TensorSpec) -> dict[str, np.ndarray]:
    """Random inputs: two sizes, one of them odd, then a whole tile."""
    draw = np.random.default_rng(0)
    if name == "latents":
        shapes = [(1, spec.shape[1]), (3, spec.shape[1])]
        return {f"{i}": draw.standard_normal(s, "float32") for i, s in enumerate(shapes)}
    sizes = [(37, 51), (64, 64), (model.recipe.tile, model.recipe.tile)]
    if spec.shape[1] is not None:
        sizes = [tuple(spec.shape[1:3])]
    shapes = [(1 + (i == 0), *size, spec.shape[3]) for i, size in enumerate(sizes)]
    (low, high), margin = model.source.window, 0.1 * model.source.span
    return {  # somewhat beyond the window, as real images are
        f"{i}": draw.uniform(low - margin, high + margin, shape).astype("float32")
        for i, shape in enumerate(shapes)
    }


def _verify(model: Translator, folder: Path, name: str, spec: tf.TensorSpec) -> int:
    """Compare the SavedModel, in a fresh process, with the Keras model.

    Returns:
        Memory that the largest input takes on a CPU, in bytes; 0 where it cannot be measured.

    Raises:
        ValueError: where they differ, or the SavedModel does not run by itself.
    """
    questions = _questions(model, name, spec)
    # Both on the CPU: this process may hold all of an accelerator's memory.
    with tf.device("CPU:0"):
        ask = lambda x: np.asarray(tf.cast(model(tf.constant(x), training=False), tf.float32))  # noqa: E731
        expected = {key: ask(value) for key, value in questions.items()}
        first = next(iter(questions))
        again = ask(questions[first])
    allowed = _TOLERANCE[model.compute_dtype] * model.target.span
    _compare(again, expected[first], allowed, "the model itself gives two answers to one input")
    with _fresh_answers(folder, questions, name) as answers:
        for key in questions:
            what = f"the export differs from the model on an input of {questions[key].shape}"
            _compare(answers[key], expected[key], allowed, what)
        return int(answers["memory"])


def _compare(received: np.ndarray, expected: np.ndarray, allowed: float, what: str) -> None:
    if received.shape != expected.shape:
        raise ValueError(f"{what}: expected {expected.shape}. Received: {received.shape}")
    if not np.isfinite(expected).all():
        raise ValueError(f"{what}: expected finite values. Received: NaN or infinity")
    largest = float(np.abs(received - expected).max())
    if not largest <= allowed:
        raise ValueError(
            f"{what}: expected a difference up to {allowed:.3g}. Received: {largest:.3g}"
        )


@contextlib.contextmanager
def _fresh_answers(
    folder: Path, questions: dict[str, np.ndarray], name: str
) -> Iterator[Mapping[str, np.ndarray]]:
    with tempfile.TemporaryDirectory() as scratch:
        asked, given = Path(scratch) / "questions.npz", Path(scratch) / "answers.npz"
        np.savez(asked, **questions)
        # -P: nothing of the working folder can be imported.
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD, folder.resolve(), asked, given, name],
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
    model: Translator, name: str, spec: tf.TensorSpec, fields: dict[str, Any]
) -> dict[str, Any]:
    """What a client must know of the numbers; `intensity.json`."""
    return {
        "format": 1,
        "model": model.registered_name,
        "signature": SIGNATURE,
        "input": {"name": name, "dtype": "float32", "shape": spec.shape.as_list()},
        "output": {"name": "images", "dtype": "float32"},
        "source": model.source.to_dict(),
        "target": model.target.to_dict(),
        "size_multiple": model.size_multiple,
        "tile": {"size": model.recipe.tile, "overlap": 2 * model.tile_margin},
        "precision": model.compute_dtype,
        "weights_sha256": model.weights_hash,
        "dataset": fields.get("dataset"),
        "recipe": model.recipe.to_dict(),
        "libraries": {
            "zoo": zoo.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }


def _card(contract: dict[str, Any], fields: dict[str, Any], version: int, memory: int) -> str:
    source, target, tile = contract["source"], contract["target"], contract["tile"]
    given, shape = contract["input"]["name"], contract["input"]["shape"]
    generator = given == "latents"
    free = shape[1] is None
    if generator:
        makes, window = "New images from noise", "standard normal latent vectors."
        sizes = f"Any number of latent vectors of {shape[1]} values."
        example = f'np.random.default_rng(0).standard_normal([1, {shape[1]}]).astype("float32")'
    else:
        makes = f"From {_in_words(source)} to {_in_words(target)}"
        low, high = source["window"]
        window = (
            f"{_unit(source)}, as they are, unscaled; the network sees what lies between "
            f"{low:g} and {high:g}."
        )
        size = [64, 64] if free else shape[1:3]
        whole = f"[1, {size[0]}, {size[1]}, {shape[3]}]"
        example = f'np.full({whole}, {low}, "float32")'
        sizes = f"Images of {size[0]} × {size[1]} pixels, and no others."
    if not generator and free:
        edge, used = tile["size"], max(1, round(memory / 2**20))
        took = f"One image of {edge} × {edge} took about {used} MiB on a CPU, besides the model. "
        took = took if memory else ""
        sizes = (
            "Any height and width; the graph pads to a multiple of "
            f"{contract['size_multiple']} and crops again. It does not tile: an image goes through "
            "whole, and memory grows with H × W. "
            f"{took}Cut larger images into tiles of {edge} × {edge} pixels which overlap by "
            f"{tile['overlap']}, and blend them where they overlap."
        )
    metrics = _flat(fields.get("metrics") or {})
    measured = "\n".join(f"| {name} | {value} |" for name, value in metrics)
    measured = f"| metric | value |\n|---|---|\n{measured}" if metrics else "None were given."
    return f"""# {fields["name"]}, version {version}

{fields.get("summary", "")}

| | |
|---|---|
| what it does | {makes} |
| architecture | {contract["model"]} |
| paper | {fields.get("paper", "not stated")} |
| data set | {fields.get("dataset") or "not stated"} |
| licence | {fields.get("licence") or "not stated"} |
| weights (sha256) | `{contract["weights_sha256"]}` |
| precision inside | {contract["precision"]} |
| made with | {", ".join(f"{k} {v}" for k, v in contract["libraries"].items())} |

## Intended use and limits

For research only. **Not a medical device**: not for diagnosis or treatment. A translated or
generated image can lack findings that are there, and show findings that are not. It holds only
for images like those it was trained on: same modality, body part, protocol and pixel spacing.

## Numbers in and out

- Input: {window}
- Output: {_unit(target)}, window {target["window"][0]:g} to {target["window"][1]:g}; float32.
- Pixel spacing it was trained on: {_spacing(source)}.
- Sizes: {sizes}

`intensity.json` beside this card says the same for programs.

## Measured

{measured}

{fields.get("notes", "")}

## How to call it

In the folder that holds version {version}:

```python
import numpy as np
import tensorflow as tf

model = tf.saved_model.load("{version}")
{given} = {example}
answer = model.signatures["{SIGNATURE}"]({given}=tf.constant({given}))
print(answer["images"].shape)
```

With TF Serving:

```sh
tensorflow_model_server --rest_api_port=8501 --model_name=translate --model_base_path="$PWD"
```
"""


def _in_words(domain: dict[str, Any]) -> str:
    return f"{domain['modality']} images in {_unit(domain)}, {domain['channels']} channel(s)"


def _unit(domain: dict[str, Any]) -> str:
    return {"1": "values without a unit", "signal": "signal values"}.get(
        domain["unit"], domain["unit"]
    )


def _spacing(domain: dict[str, Any]) -> str:
    spacing = domain["spacing"]
    return f"{spacing[0]:g} × {spacing[1]:g} mm (row, column)" if spacing else "not stated"


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}, ")
        else:
            rows.append((prefix + name, f"{value:.4g}" if isinstance(value, float) else f"{value}"))
    return rows
