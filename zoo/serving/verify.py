"""Whether an exported model answers as the Keras model that it was made of."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import tensorflow as tf

from zoo.imaging import files
from zoo.recipe import per_axis
from zoo.serving import card, png16
from zoo.translator import Translator
from zoo.trust import served
from zoo.trust.half_width import HalfWidth

# Greatest difference between the Keras model and its reloaded export, as a fraction of the target's
# window. Convolutions may add up in another order; bfloat16 keeps 8 bits of each value, float16 11.
_TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}
# Of a label map: the greatest fraction of pixels whose class may differ, at ties of two classes.
_TIES = {"float32": 1e-3, "bfloat16": 2e-2, "float16": 5e-3}

SIGNATURE = "serving_default"
_REAL = {"CT": "CT_small.dcm", "MR": "MR_small.dcm"}  # of pydicom's wheel

Question = dict[str, np.ndarray]  # the signature's inputs by name


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
signatures = tf.saved_model.load(folder).signatures
asked, given = {}, {}
for key, value in np.load(questions).items():
    signature, number, name = key.split(" ")
    asked.setdefault((signature, number), {})[name] = tf.constant(value)
try:
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far (Linux)
    before = memory("VmRSS")
except OSError:
    before = None
for (signature, number), inputs in asked.items():
    answer = signatures[signature](**inputs)
    answer = answer["half_width"] if len(answer) == 2 else next(iter(answer.values()))
    if answer.dtype == tf.string:
        answer = tf.stack([tf.io.decode_png(png, dtype=tf.uint16) for png in answer])
    given[f"{signature} {number}"] = answer.numpy()
given["memory"] = memory("VmHWM") - before if before else 0
own = [module for module in sys.modules if module.split(".")[0].startswith("zoo")]
if own:
    sys.exit(f"expected no project code. Received: {own}")
np.savez(answers, **given)
"""


def verify(
    model: Translator,
    folder: Path,
    specs: Mapping[str, tf.TensorSpec],
    widths: HalfWidth | None = None,
) -> int:
    """Compare a SavedModel, in a fresh process, with the Keras model, on random and real images.

    Args:
        model: what was exported.
        folder: of the SavedModel.
        specs: the signature's inputs.
        widths: what the half-widths of the signature `uncertainty` must be.

    Returns:
        Memory that the largest input takes on a CPU, in bytes; 0 where it cannot be measured.

    Raises:
        ValueError: where they differ, or the SavedModel does not run by itself.
    """
    questions = _questions(model, specs)
    first = next(iter(questions))
    questions |= _real(model, specs)
    if png16.fits(model) and "images" in questions[first]:
        # Both signatures are asked the same: values that a PNG holds.
        scale = png16.Scale.of(model.source)
        questions[first]["images"] = scale.physical(
            scale.stored(questions[first]["images"])
        ).numpy()

    def ask(question: Question) -> np.ndarray:
        inputs = [tf.constant(question[name]) for name in specs]
        return np.asarray(tf.cast(call(model, inputs), tf.float32))

    # Both on the CPU: this process may hold all of an accelerator's memory.
    with tf.device("CPU:0"):
        expected = {key: ask(question) for key, question in questions.items()}
        again = ask(questions[first])
    compare(model, again, expected[first], "the model itself gives two answers to one input")
    # The export's own answers, those of PNG too.
    asked = {f"{SIGNATURE} {key}": question for key, question in questions.items()}
    coded = png16.fits(model)
    if coded:
        asked[f"{png16.SIGNATURE} {first}"] = png16.question(model, questions[first])
    if widths is not None:
        asked[f"{served.SIGNATURE} {first}"] = questions[first]
    with _fresh_answers(folder, asked) as answers:
        for key, question in questions.items():
            shape = next(iter(question.values())).shape
            what = f"the export differs from the model on an input of {shape}"
            compare(model, answers[f"{SIGNATURE} {key}"], expected[key], what)
        if coded:
            scale = png16.Scale.of(model.target)
            received = scale.physical(answers[f"{png16.SIGNATURE} {first}"]).numpy()
            wanted = scale.physical(scale.stored(expected[first])).numpy()
            what = "the signature bytes differs from the model"
            compare(model, received, wanted, what, rounding=scale.slope)
        if widths is not None:
            wanted = widths.translate(questions[first]["images"])
            what = "the signature uncertainty differs from the model"
            received = answers[f"{served.SIGNATURE} {first}"]
            compare(model, received, wanted, what, rounding=_rounding(model, widths))
        return int(answers["memory"])


def _rounding(model: Translator, widths: HalfWidth) -> float:
    """What the rounding of answers makes of half-widths."""
    return 4 * widths.calibration.factor * _TOLERANCE[model.precision] * model.target.span


def verify_engine(
    model: Translator,
    ask: Callable[[Sequence[np.ndarray]], np.ndarray],
    specs: Mapping[str, tf.TensorSpec],
    widths: HalfWidth | None = None,
) -> None:
    """Compare another engine with the Keras model, at two batch sizes and two sizes of images.

    They are random, and of CT and MR real slices besides.

    Args:
        model: that was converted, in float32.
        ask: the engine: the inputs in their order to the answer.
        specs: the signature's inputs.
        widths: what the engine must give in place of the model's answers.

    Raises:
        ValueError: where they differ.
    """
    questions = list(_questions(model, specs).values())[:2]
    for question in (*questions, *_real(model, specs).values()):
        given = [question[name] for name in specs]
        if widths is not None:  # of one tile at most: `HalfWidth` would cut the rest, and blend
            sides = per_axis(model.recipe.tile, model.dimensions)
            given = [given[0][(slice(None), *map(slice, sides))]]
        with tf.device("CPU:0"):
            if widths is None:
                expected = np.asarray(call(model, [tf.constant(each) for each in given]))
            else:
                expected = widths.translate(given[0])
        what = f"the export differs from the model on an input of {given[0].shape}"
        rounding = 0.0 if widths is None else _rounding(model, widths)
        compare(model, ask(given), expected, what, rounding=rounding)


def loss(
    model: Translator,
    ask: Callable[[Sequence[np.ndarray]], np.ndarray],
    images: Sequence[np.ndarray],
) -> float:
    """How far an engine of fewer bits is from the Keras model, in percent of the target's window.

    The root mean square over all pixels of all images `[1, H, W, C]`; of label maps the pixels of
    another class, in percent. Each image is asked for alone and in a batch of two.
    """
    squares, count, other = 0.0, 0, 0
    for image in images:
        expected = np.asarray(call(model, [tf.constant(image)]))
        for copies in (1, 2):
            for answer in ask([np.repeat(image, copies, axis=0)]):
                squares += float(np.sum((answer - expected[0]).astype(np.float64) ** 2))
                other += int(np.sum(answer != expected[0]))
                count += answer.size
    return 100 * (other / count if model.classes else (squares / count) ** 0.5 / model.target.span)


def call(model: Translator, inputs: Sequence[Any]) -> tf.Tensor:
    """What is served, of one input or of several."""
    return model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)


def class_names(model: Translator) -> tuple[str, ...]:
    """What the values of a generator's "labels" mean, or of the label map that comes out."""
    if model.classes:
        return tuple(model.label_names)
    return tuple(model.recipe.to_dict().get("class_names", ()))


def _questions(model: Translator, specs: Mapping[str, tf.TensorSpec]) -> dict[str, Question]:
    """Random inputs: two sizes, one of them odd, then a whole tile."""
    draw = np.random.default_rng(0)
    questions: dict[str, Question] = {}
    if "latents" in specs:
        length = specs["latents"].shape[1]
        for key, count in (("0", 1), ("1", 3)):
            questions[key] = {"latents": draw.standard_normal((count, length), np.float32)}
            if "labels" in specs:
                classes = max(1, len(class_names(model)))
                questions[key]["labels"] = np.arange(count, dtype="int64")[::-1] % classes
        return questions
    sides = specs["images"].shape.as_list()[1:-1]
    if None not in sides:
        sizes = [sides]
    elif len(sides) == 3:
        tile = per_axis(model.recipe.tile, 3)
        sizes = [(5, 9, 12), (8, 8, 8), [min(side, card.LARGEST_CUBE) for side in tile]]
    else:
        sizes = [(37, 51), (64, 64), per_axis(model.recipe.tile, 2)]
    # Somewhat beyond the window, as real images are.
    (low, high), margin = model.source.window, 0.1 * model.source.span
    for i, size in enumerate(sizes):
        shape = (2 if i == 0 else 1, *size, model.source.channels)
        images = draw.uniform(low - margin, high + margin, shape).astype("float32")
        if model.source.inputs:  # each by a window of its own
            images = model.source.decode(draw.uniform(-1.2, 1.2, shape)).astype("float32")
        questions[str(i)] = {"images": images}
    return questions


def _real(model: Translator, specs: Mapping[str, tf.TensorSpec]) -> dict[str, Question]:
    """A slice of CT or MR, which come with pydicom, alone and two odd parts of it; else none.

    It is all channels of the input. Numbers of MR mean nothing: they are made to fill the window.
    """
    name = _REAL.get(model.source.modality)
    shape = specs["images"].shape.as_list() if "images" in specs else []
    if name is None or model.source.measured or shape[1:-1] != [None, None]:
        return {}
    path = str(pydicom.data.get_testdata_file(name, download=False))
    image = files.open_volume(path).read(0)[None, ..., None]
    if model.source.modality == "MR":
        image = model.source.decode(image * (2 / image.max()) - 1)
    image = np.broadcast_to(image, (*image.shape[:3], shape[-1])).astype(np.float32)
    odd = image[:, : -image.shape[1] // 3, :-7]
    return {
        "real": {"images": image},
        "odd": {"images": np.concatenate([odd, odd[:, ::-1]])},
    }


def compare(
    model: Translator,
    received: np.ndarray,
    expected: np.ndarray,
    what: str,
    rounding: float = 0.0,
) -> None:
    """A ValueError where two answers differ by more than rounding may make.

    Args:
        model: whose answers they are.
        received: the one answer.
        expected: the other.
        what: what the error says of them.
        rounding: what is allowed beside the network's own rounding.
    """
    if received.shape != expected.shape:
        raise ValueError(f"{what}: expected {expected.shape}. Received: {received.shape}")
    if not np.isfinite(expected).all():
        raise ValueError(f"{what}: expected finite values. Received: NaN or infinity")
    if model.classes:
        allowed, measure = _TIES[model.precision], "other classes at a fraction"
        largest = float(np.mean(received != expected))
    else:
        # What lies beyond the window, as of random k-space, is rounded as coarsely as it is large.
        size = model.target.span + float(np.ptp(expected))
        allowed, measure = _TOLERANCE[model.precision] * size + rounding, "a difference"
        largest = float(np.abs(received - expected).max())
    if not largest <= allowed:
        raise ValueError(f"{what}: expected {measure} up to {allowed:.3g}. Received: {largest:.3g}")


@contextlib.contextmanager
def _fresh_answers(
    folder: Path, questions: dict[str, Question]
) -> Iterator[Mapping[str, np.ndarray]]:
    """What the SavedModel answers in a process that has none of this package, and its "memory"."""
    with tempfile.TemporaryDirectory() as scratch:
        asked, given = Path(scratch) / "questions.npz", Path(scratch) / "answers.npz"
        named: dict[str, Any] = {}
        for key, inputs in questions.items():
            named |= {f"{key} {name}": value for name, value in inputs.items()}
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
