"""The card that comes with an exported model, for people."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.domain import HANGS
from zoo.recipe import per_axis
from zoo.trust.calibration import Calibration
from zoo.trust.limits import Limits

# Side of the largest volume that an export is tried with: a whole tile may take minutes.
LARGEST_CUBE = 32


def write(contract: dict[str, Any], fields: dict[str, Any], version: int, memory: int) -> str:
    """The card of an exported model, Markdown.

    Args:
        contract: what `intensity.json` says.
        fields: what the model cannot know, see `export`.
        version: the number of the export.
        memory: bytes that the largest input tried takes; 0 where unknown.
    """
    # What goes in.
    if contract["input"]["name"] == "latents":
        given = _latents(contract)
    else:
        given = _images(contract, memory)
    # The answer, and how good it is.
    target = contract["target"]
    output = f"{_unit(target)}, window {target['window'][0]:g} to {target['window'][1]:g}; float32."
    if "classes" in contract:
        output = "the number of each pixel's class, a whole number in float32"
        output += f": {_numbered(contract['label_names'])}." if contract["label_names"] else "."
    measured = "None were given."
    if fields.get("metrics"):
        rows = "\n".join(f"| {name} | {value} |" for name, value in _flat(fields["metrics"]))
        measured = f"| metric | value |\n|---|---|\n{rows}"
    return f"""# {fields["name"]}, version {version}

{fields.get("summary", "")}

| | |
|---|---|
| what it does | {given.makes} |
| architecture | {contract["model"]} |
| paper | {fields.get("paper", "not stated")} |
| data set | {fields.get("dataset") or "not stated"} |
| licence | {fields.get("licence") or "not stated"} |
| weights (sha256) | `{contract["weights_sha256"]}` |
| precision inside | {_precision(contract)} |
| made with | {", ".join(f"{k} {v}" for k, v in contract["libraries"].items())} |

## Intended use and limits

For research only. **Not a medical device**: not for diagnosis or treatment. A translated or
generated image can lack findings that are there, and show findings that are not. It holds only
for images like those it was trained on: same modality, body part, protocol and pixel spacing.

## Numbers in and out

- Input: {given.numbers}
{_channels(contract["source"])}- Output: {output}
- Pixel spacing it was trained on: {_spacing(contract["source"])}.
- Slices it was trained on: {_plane(contract["source"])}.
- Sizes: {given.sizes}

`intensity.json` beside this card says the same for programs.

## Measured

{measured}

{fields.get("notes", "")}

{_certainty(contract)}{_alarms(contract)}## How to call it

In the folder that holds version {version}:

{_calls(contract, given, version)}
"""


def _precision(contract: dict[str, Any]) -> str:
    told = contract.get("int8")
    if not told:
        return contract["precision"]
    return (
        f"int8, calibrated on {told['calibrated_on']} images; {told['loss_percent']:.2g} % of the "
        f"window from float32 (root mean square, on {told['judged_on']} others)"
    )


# How each kind of export is called, by its file; a SavedModel has none of its own.
_CALLS = {
    "model.onnx": """```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{version}/model.onnx")
{inputs}
answer = session.run(["{output}"], {{{by_name}}})[0]
print(answer.shape)
```

Triton takes the folder that holds version {version} as a model of its repository.""",
    "model.xml": """```python
import numpy as np
import openvino

model = openvino.Core().compile_model("{version}/model.xml", "CPU")
{inputs}
answer = model({{{by_name}}})["{output}"]
print(answer.shape)
```""",
    "model.tflite": """```python
import numpy as np
from ai_edge_litert.interpreter import Interpreter

runner = Interpreter("{version}/model.tflite").get_signature_runner("{signature}")
{inputs}
answer = runner({keywords})["{output}"]
print(answer.shape)
```""",
    "": """```python
import numpy as np
import tensorflow as tf

model = tf.saved_model.load("{version}")
{inputs}
answer = model.signatures["{signature}"]({tensors})
print(answer["images"].shape)
```

With TF Serving:

```sh
tensorflow_model_server --rest_api_port=8501 --model_name=translate --model_base_path="$PWD"
```""",
}


def _calls(contract: dict[str, Any], given: "_Given", version: int) -> str:
    """Python that calls the export, and a server's command where there is one."""
    return _CALLS[contract.get("file", "")].format(
        version=version,
        signature=contract["signature"],
        output=contract["output"]["name"],
        inputs="\n".join(f"{name} = {example}" for name, example in given.examples.items()),
        **_arguments(list(given.examples)),
    )


def _arguments(names: list[str]) -> dict[str, str]:
    """The inputs as a dictionary's entries, as keywords, and as keywords of tensors."""
    forms = {"by_name": '"{0}": {0}', "keywords": "{0}={0}", "tensors": "{0}=tf.constant({0})"}
    found = {}
    for kind, form in forms.items():
        found[kind] = ", ".join(form.format(name) for name in names)
    return found


def _certainty(contract: dict[str, Any]) -> str:
    """What intervals about the output promise, where it was calibrated."""
    found = dict(contract.get("uncertainty", {}))
    if not found:
        return ""
    signature, name = found.pop("signature", ""), found.pop("name")
    where = f"signature `{signature}` gives `{name}` beside `images`"
    if not signature:
        where = f"output `{name}` lies beside `{contract['output']['name']}`"
    told = Calibration.from_dict(found)
    unit = "" if told.unit == "1" else f" {told.unit}"
    return f"""## How sure it is

The {where}. The {told.words}. Here
{told.risk:.1%} of the pixels ({told.pixels}) were missed, and the half-width was
{told.half_width:.4g}{unit} on average, {told.factor:.4g} times the spread by {told.spread}.
It promises nothing of another scanner, protocol or body part, of a single pixel, or of what the
target lacks too.

"""


def _alarms(contract: dict[str, Any]) -> str:
    """From where on figures of an output are unusual, where that was calibrated."""
    if "alarms" not in contract:
        return ""
    limits = Limits.from_dict(contract["alarms"])
    return f"""## Alarms

{limits.markdown(contract["target"]["unit"])}

`zoo predict --report` raises them. No alarm says nothing of a lesion that is a few pixels.

"""


@dataclasses.dataclass(frozen=True)
class _Given:
    """What a model is given, in words.

    Attributes:
        makes: what it makes of it.
        numbers: what its values mean.
        sizes: how large it may be.
        examples: Python that makes one, by the input's name.
    """

    makes: str
    numbers: str
    sizes: str
    examples: dict[str, str]


def _latents(contract: dict[str, Any]) -> _Given:
    """Of a generator."""
    length = contract["input"]["shape"][1]
    numbers = "standard normal latent vectors."
    drawn = f'np.random.default_rng(0).standard_normal([1, {length}]).astype("float32")'
    examples = {"latents": drawn}
    if "labels" in contract:
        numbers += f" labels, the class of each image: {_numbered(contract['labels']['names'])}."
        examples["labels"] = 'np.array([0], "int64")'
    sizes = f"Any number of latent vectors of {length} values."
    return _Given("New images from noise", numbers, sizes, examples)


def _images(contract: dict[str, Any], memory: int) -> _Given:
    """Of a model that translates images or volumes."""
    source, shape = contract["source"], contract["input"]["shape"]
    makes = f"From {_in_words(source)} to {_in_words(contract['target'])}"
    if contract["scale"] > 1:
        makes += f", {contract['scale']} times as fine"
    low, high = source["window"]
    numbers = (
        f"{_unit(source)}, as they are, unscaled; the network sees what lies between "
        f"{low:g} and {high:g}."
    )
    if source.get("inputs"):
        numbers = "several images of one grid as channels, unscaled, in this order:"
    if source["unit"] == "k-space":
        numbers = f"Channels are the real and the imaginary part. {numbers}"
    example = [1, *shape[1:]]
    if None in shape[1:-1]:
        sides = [64, 64] if contract["dimensions"] == 2 else [16, 16, 16]
        example = [1, *sides, shape[-1]]
    made = f'np.full({example}, {low}, "float32")'
    if source.get("inputs"):
        lows = [each["window"][0] for each in source["inputs"] for _ in range(each["channels"])]
        made = f'np.full({example}, {lows}, "float32")'
    return _Given(makes, numbers, _sizes(contract, memory), {contract["input"]["name"]: made})


def _sizes(contract: dict[str, Any], memory: int) -> str:
    """What the card says of the sizes of images, or of volumes."""
    sides, scale = contract["input"]["shape"][1:-1], contract["scale"]
    volumes = contract["dimensions"] == 3
    kind, axes = ("volume", "D × H × W") if volumes else ("image", "H × W")
    free = "depth, height and width" if volumes else "height and width"
    finer = f" Every side of the output is {scale} times the input's." if scale > 1 else ""
    if None not in sides:
        return f"Images of {_by(sides)} pixels, and no others.{finer}"
    took = ""
    # Exports of other versions have one number for all axes.
    tile, overlap = (
        list(per_axis(_tuple(contract["tile"][key]), len(sides))) for key in ("size", "overlap")
    )
    if memory:
        tried = [min(side, LARGEST_CUBE) for side in tile] if volumes else tile
        used = max(1, round(memory / 2**20))
        took = f"One {kind} of {_by(tried)} took about {used} MiB on a CPU, besides the model. "
    return (
        f"Any {free}; the graph pads to a multiple of "
        f"{contract['size_multiple']} and crops again. It does not tile: each {kind} goes through "
        f"whole, and memory grows with {axes}. {took}"
        f"Cut larger {kind}s into tiles of {_by(tile)} pixels which overlap "
        f"by {_by(overlap if len(set(overlap)) > 1 else overlap[:1])}, and blend them where they "
        f"overlap.{finer}"
    )


def _tuple(sides: Any) -> Any:
    return tuple(sides) if isinstance(sides, list) else sides


def _by(sides: Sequence[int | str]) -> str:
    return " × ".join(str(side) for side in sides)


def _numbered(names: Sequence[str]) -> str:
    return ", ".join(f"{number} {name}" for number, name in enumerate(names))


def _channels(source: dict[str, Any]) -> str:
    """The inputs of a model of several, a line each."""
    lines, first = [], 0
    for each in source.get("inputs", ()):
        last = first + each["channels"] - 1
        place = f"channel {first}" if last == first else f"channels {first} to {last}"
        low, high = each["window"]
        lines.append(
            f"  - {place}: {each['name']}, {each['modality']}, {_unit(each)}; the network sees "
            f"what lies between {low:g} and {high:g}\n"
        )
        first = last + 1
    return "".join(lines)


def _in_words(domain: dict[str, Any]) -> str:
    if domain.get("inputs"):
        named = [f"{each['name']} ({each['modality']})" for each in domain["inputs"]]
        return f"{', '.join(named)} images, {domain['channels']} channels"
    if domain["unit"] == "class":
        return "label maps"
    if domain["unit"] == "k-space":
        return f"{domain['modality']} k-space"
    if domain["unit"] == "line integral":
        return f"{domain['modality']} sinograms"
    return f"{domain['modality']} images in {_unit(domain)}, {domain['channels']} channel(s)"


def _unit(domain: dict[str, Any]) -> str:
    words = {"1": "values without a unit", "signal": "signal values", "k-space": "k-space values"}
    words["line integral"] = "line integrals, -log of the share of photons that pass"
    return words.get(domain["unit"], domain["unit"])


def _plane(domain: dict[str, Any]) -> str:
    if not domain["plane"]:
        return "of no stated plane"
    edges = {"S": "top", "I": "bottom", "A": "front", "P": "back", "L": "left", "R": "right"}
    rows, columns, _ = (edges[letter] for letter in HANGS[domain["plane"]])
    return f"{domain['plane']}, rows to the patient's {rows} and columns to the {columns}"


def _spacing(domain: dict[str, Any]) -> str:
    spacing = domain["spacing"]
    if not spacing:
        return "not stated"
    axes = "(row, column)" if len(spacing) == 2 else "(slice, row, column)"
    return f"{_by([f'{step:g}' for step in spacing])} mm {axes}"


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Name and value of all measures, nested ones behind the names that they are in."""
    rows = []
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}, ")
        else:
            rows.append((prefix + name, f"{value:.4g}" if isinstance(value, float) else f"{value}"))
    return rows
