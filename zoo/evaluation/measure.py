"""`evaluate`: one model on one data set, as `metrics.json` and a self-contained `report.html`."""

import contextlib
import datetime
import importlib.metadata
import itertools
import json
import operator
import platform
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tqdm

from zoo import guards, metrics
from zoo.atomic import write_atomic
from zoo.evaluation import intervals, report

SET_LIMIT = 1024  # images held at once where whole sets are compared
AIR = -1000.0  # HU: no attenuation, of which the normalised error is counted
_KEPT = 24  # examples held for the report's pictures


def evaluate(
    model,
    dataset: Iterable[dict[str, Any]],
    output: Path,
    *,
    name: str,
    dataset_name: str,
    dataset_version: str = "",
    description: str = "",
    split: str = "test",
    aligned: bool = True,
    training_images: Iterable[Any] | None = None,
    label_names: Sequence[str] = (),
    limit: int | None = None,
    batch_size: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a model and write `metrics.json` and `report.html` into `output`.

    A translator's examples hold "source" and "target" and it is measured image by image, beside
    what there is without it (`Translator.baseline`); of a pixel-wise classifier the overlap with
    the target's label map is measured. A generator's examples hold "image" and its samples are
    compared with the data set as a whole. Examples are read once and not kept.

    Args:
        model: a `Translator`, or what has its `source`, `target`, `dimensions` and `classes`, and
            `translate` and `baseline`, or `generate`.
        dataset: NumPy examples in physical units, images `[H, W, C]` or volumes `[D, H, W, C]`
            (axial slices of at least 11 x 11 pixels, as SSIM needs), with "patient" (a pseudonym)
            and "name", and perhaps "mask", bool of the target's shape with one channel, True in
            the patient's body. Of a CT without it the body is `metrics.body_mask` of the target.
            Slices of one patient whose names differ in a last number are one volume where these
            numbers have no gap.
        output: folder, made where missing.
        name: the model's name in the report.
        dataset_name: such as "ldct/phantom".
        dataset_version: such as "1.0.0".
        description: a sentence for the report on what the data are, such as "simulated".
        split: the split that `dataset` is.
        aligned: whether source and target show the same anatomy; if not, outputs are compared
            with the targets as a set (at most 1024 images).
        training_images: a generator's training images, `[H, W, C]` or examples with "image",
            for the memorisation check; None leaves it out.
        label_names: a classifier's classes, the background first; empty calls them by number.
        limit: take the first so many examples.
        batch_size: consecutive examples of one size given to `translate` together.
        seed: of generated images, bootstrap intervals and the choice of example pictures.

    Returns:
        What `metrics.json` holds.

    Raises:
        ValueError: for an empty data set, values that are not finite, label maps with values that
            name no class, masks of another size or of some examples only, or outputs whose shape
            is not the target's. Nothing is written then.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected 1 or more, or None. Received: {limit}")
    stream = iter(dataset)
    first = next(stream, None)
    if first is None:
        raise ValueError(
            f"dataset: expected at least one example in split {split!r} of {dataset_name}. "
            "Received: none"
        )
    generator = "source" not in first
    wanted = ("image",) if generator else ("source", "target")
    if any(key not in first for key in wanted):
        raise ValueError(
            "dataset: expected examples with source and target, or with image. "
            f"Received: {', '.join(sorted(first))}"
        )
    stream = itertools.islice(itertools.chain([first], stream), limit)
    total = min(filter(None, (operator.length_hint(dataset), limit)), default=None)
    examples = (
        _checked_example(example, wanted, model.dimensions)
        for example in tqdm.tqdm(stream, total=total, desc="evaluate", unit="image", disable=None)
    )
    if generator:
        measured, pictures = _generation(model, examples, training_images, seed)
    elif model.classes:
        if not aligned:
            raise ValueError("aligned: label maps need targets that are. Received: False")
        measured, pictures = _segmentation(model, examples, batch_size, seed, label_names)
    elif aligned:
        measured, pictures = _translation(model, examples, batch_size, seed)
    else:
        measured, pictures = _unaligned(model, examples, batch_size, seed)
    results = {
        "model": name,
        "weights": str(getattr(model, "weights_hash", "")),
        "dataset": {"name": dataset_name, "version": dataset_version, "split": split}
        | {"description": description},
        "limit": limit,
        "seed": seed,
        "dimensions": model.dimensions,
        "unit": model.target.unit,
        "window": list(model.target.window),
        "source": model.source.to_dict(),
        "target": model.target.to_dict(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
    } | measured
    results = _finite(results)
    text = json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False)
    page = report.page(results, pictures)
    write_atomic(Path(output) / "metrics.json", text.encode())
    write_atomic(Path(output) / "report.html", page.encode())
    return results


def _translation(model, examples, batch_size: int, seed: int):
    """Pixel-wise measures, image by image and volume by volume, and the examples to show."""
    domain, rows = model.target, []
    zero = AIR if domain.unit == "HU" else 0.0
    kept, stored = _Kept(seed, "PSNR"), None
    with tempfile.TemporaryFile() as file:
        volumes = _Volumes(model, file)
        for example in _translated(model, examples, batch_size):
            target = example["target"]
            _require_shape(example)
            # The body: the data set's mask, or what of a CT lies within the skin.
            stored = "mask" in example if stored is None else stored
            if stored != ("mask" in example):
                raise ValueError(
                    "dataset: expected a mask with every example, or with none. "
                    f"Received: {'none' if stored else 'one'} with {example['name']!r}"
                )
            if not stored and domain.unit == "HU":
                example["mask"] = metrics.body_mask(target)
            options = {"mask": example.get("mask"), "zero": zero}
            # The image's measures, beside those of what there is without the model.
            row = {
                "name": example["name"],
                "patient": example["patient"],
                "ms_ssim_scales": metrics.ms_ssim_scales(target.shape[-3:]),
                "output": metrics.compare(example["output"], target, domain.window, **options),
            }
            baseline, name = model.baseline(example["source"])
            if baseline is not None:
                row["input"] = metrics.compare(baseline, target, domain.window, **options)
                row["gain"] = _less(row["output"], row["input"])
            rows.append(row)
            kept.add(_shown(example, baseline) | {"row": row}, row["output"]["psnr"])
            volumes.add(example, baseline)
        by_volume = volumes.measured(seed)
    body = "mask of the data set" if stored else "threshold" if domain.unit == "HU" else None
    summary, per_patient = intervals.summaries(rows, ("output", "input", "gain"), seed)
    measured = {
        "kind": "translation",
        "images": len(rows),
        "patients": len(per_patient) or None,
        "baseline": name or None,
        "body": body,
        "ms_ssim_scales": sorted({row["ms_ssim_scales"] for row in rows}),
        "summary": summary,
        "volumes": by_volume,
        "per_patient": per_patient,
        "per_image": rows,
    }
    return measured, {"examples": kept.chosen(summary["output"]["psnr"]["median"])}


def _less(output: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {key: output[key] - other[key] for key in other}


class _Volumes:
    """Measures that are defined of whole volumes, also where examples are slices.

    Slices wait in a file until all have come: the examples' order is the data set's, not the
    volumes'.

    Args:
        model: its target decides which measures; others than CT in HU and MR have none.
        file: empty, for reading and writing.
    """

    def __init__(self, model, file: BinaryIO):
        domain = model.target
        self.whole = model.dimensions == 3
        self.measure: Callable[..., dict[str, float]] | None = None
        self.definition, self.least = "", 1
        if domain.unit == "HU" and domain.channels == 1:
            self.measure, self.definition, self.least = metrics.synthrad, "SynthRAD2023", 7
        elif domain.modality == "MR" and domain.unit == "signal" and domain.channels == 1:
            self.measure, self.definition, self.least = _fastmri, "fastMRI", 2
        self.rows: list[dict[str, Any]] = []
        self.left_out = 0
        self.slices: dict[tuple[str, str], list[tuple[int, int, tuple[int, ...]]]] = {}
        self.file = file

    def add(self, example: dict, baseline: np.ndarray | None) -> None:
        """A volume, or a slice of one."""
        if self.measure is None:
            return
        images = [example["output"], example["target"]]
        images.append(example.get("mask", np.ones_like(example["target"])))
        images += [] if baseline is None else [baseline]
        stack = np.stack(images)[..., 0].astype(np.float32)
        if self.whole:
            self._measure(example["name"], example["patient"], stack)
            return
        if not example["patient"]:  # numbered images need not be slices of anything
            return
        volume, number = re.fullmatch(r"(.*?)(\d*)", example["name"], re.DOTALL).groups()
        place = int(number or 0), self.file.tell(), stack.shape
        self.slices.setdefault((example["patient"], volume), []).append(place)
        self.file.write(stack.tobytes())

    def measured(self, seed: int) -> dict[str, Any] | None:
        """Definition, counts, `statistics.summaries` and each volume's measures; None of none."""
        for (patient, volume), places in self.slices.items():
            places.sort()
            numbers = [number for number, *_ in places]
            gap = numbers != list(range(numbers[0], numbers[0] + len(numbers)))
            if gap or len({shape for *_, shape in places}) > 1:
                self.left_out += 1
                continue
            stack = np.stack([self._read(place, shape) for _, place, shape in places], axis=1)
            self._measure(volume.rstrip("-_. "), patient, stack)
        if not self.rows:
            return None
        summary, _ = intervals.summaries(self.rows, ("output", "input", "gain"), seed)
        return {
            "definition": self.definition,
            "volumes": len(self.rows),
            "left_out": self.left_out,
            "summary": summary,
            "per_volume": self.rows,
        }

    def _read(self, place: int, shape: tuple[int, ...]) -> np.ndarray:
        self.file.seek(place)
        count = int(np.prod(shape))
        return np.frombuffer(self.file.read(4 * count), np.float32).reshape(shape)

    def _measure(self, name: str, patient: str, stack: np.ndarray) -> None:
        """Of output, target, mask and perhaps baseline, float32 `[3 or 4, D, H, W]`."""
        output, target, mask, *baseline = stack
        # Fewer slices, or smaller ones, hold no window of 7.
        if len(target) < self.least or min(target.shape[1:]) < 7:
            self.left_out += 1
            return
        row = {"name": name, "patient": patient, "slices": len(target)}
        row["output"] = self.measure(output, target, mask > 0)
        for image in baseline:
            row["input"] = self.measure(image, target, mask > 0)
            row["gain"] = _less(row["output"], row["input"])
        self.rows.append(row)


def _fastmri(output: np.ndarray, target: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    return metrics.fastmri(output, target)  # which knows no mask


def _segmentation(model, examples, batch_size: int, seed: int, label_names: Sequence[str]):
    """Overlap of label maps, image by image, and the examples to show.

    A class that is neither in an image's output nor in its target does not count there, and the
    mean Dice is over the foreground classes that do.
    """
    count = model.classes
    names = [str(name) for name in label_names or range(count)]
    if len(set(names)) != count or len(names) != count:
        raise ValueError(f"label_names: expected {count} different names. Received: {names}")
    rows, shares = [], []
    kept = _Kept(seed, "mean Dice")
    for example in _translated(model, examples, batch_size):
        output, target = example["output"], example["target"]
        _require_shape(example)
        try:
            overlap = metrics.dice(output, target, count)
        except ValueError as error:
            raise ValueError(f"{example['name']!r}: {error}") from None
        present = overlap[1:][~np.isnan(overlap[1:])]
        row = {
            "name": example["name"],
            "patient": example["patient"],
            "output": {
                "dice": float(present.mean()) if present.size else float("nan"),
                "accuracy": float(np.mean(output == target)),
            },
            "classes": dict(zip(names, overlap.tolist(), strict=True)),
        }
        rows.append(row)
        shares.append(np.bincount(target.astype(int).ravel(), minlength=count) / target.size)
        if present.size:
            baseline, _ = model.baseline(example["source"])
            kept.add(_shown(example, baseline) | {"row": row}, row["output"]["dice"])
    summary, per_patient = intervals.summaries(rows, ("output", "classes"), seed)
    share = np.mean(shares, axis=0)
    measured = {
        "kind": "segmentation",
        "images": len(rows),
        "patients": len(per_patient) or None,
        "label_names": names,
        "share": dict(zip(names, share.tolist(), strict=True)),
        # What is right where every pixel is given the commonest class.
        "majority": {"class": names[share.argmax()], "accuracy": float(share.max())},
        "summary": summary,
        "per_patient": per_patient,
        "per_image": rows,
    }
    return measured, {"examples": kept.chosen(summary["output"]["dice"]["median"])}


def _unaligned(model, examples, batch_size: int, seed: int):
    """Outputs against targets as sets, for data whose source and target do not correspond.

    Both come from different halves of the examples, as do the two real sets of the reference.
    Of volumes the middle slices are compared.
    """
    kept, patients = [], set()
    for example in _translated(model, itertools.islice(examples, SET_LIMIT), batch_size):
        patients.add(example["patient"])
        kept.append(_shown(example, model.baseline(example["source"])[0]))
    if len(kept) < 2:
        raise ValueError("dataset: expected at least 2 unaligned examples. Received: 1")
    half = len(kept) // 2
    keys = ("input", "target", "output")
    size = tuple(min(example[key].shape[i] for example in kept for key in keys) for i in (0, 1))

    def images(part: list[dict], key: str) -> np.ndarray:
        window = _input_window(model) if key == "input" else model.target.window
        return np.clip([_middle_crop(example[key], size) for example in part], *window)

    real = images(kept[:half], "target")
    others = {
        "output": images(kept[half : 2 * half], "output"),
        "real target": images(kept[half : 2 * half], "target"),
    }
    if kept[0]["input"].shape[-1] == model.target.channels:
        others["input"] = images(kept[half : 2 * half], "input")
    distances = {
        key: metrics.sliced_wasserstein(real, value, seed=seed) for key, value in others.items()
    }
    measured = {
        "kind": "unaligned translation",
        "images": len(kept),
        "patients": len(patients) if "" not in patients else None,
        "sliced_wasserstein": {"images": half} | distances,
    }
    chosen = np.random.default_rng(seed).permutation(len(kept))[:5]
    return measured, {"examples": [("Random", kept[i]) for i in sorted(chosen)]}


def _generation(model, examples, training_images, seed: int):
    """Generated images against held-out ones as sets, and against the training images."""
    domain = model.target
    images, patients = [], set()
    for example in itertools.islice(examples, SET_LIMIT):
        images.append(example["image"])
        patients.add(example["patient"])
        if images[-1].shape != images[0].shape:
            raise ValueError(
                f"dataset: expected images of one shape, {images[0].shape}. "
                f"Received: {images[-1].shape} in {example['name']!r}"
            )
    # A generator cannot leave its window: real images are compared within it too.
    held_out = domain.clip(np.stack(images))
    generated = np.asarray(model.generate(len(held_out), seed=seed), np.float32)
    if generated.shape != held_out.shape:
        raise ValueError(
            f"model: expected generated images {held_out.shape}, as in the data set. "
            f"Received: {generated.shape}"
        )
    for i, image in enumerate(generated):
        _require_finite(image, "model", f"generated image {i}")
    sets = {"generated": generated, "held out": held_out}
    memorisation, pairs = None, []
    if training_images is not None:
        sample: list[np.ndarray] = []
        stream = _sampled(_training(training_images, domain), len(held_out), sample, seed)
        nearest = metrics.nearest_training(generated, stream, held_out)
        if len(sample) == len(held_out):
            sets["training"] = np.stack(sample)
        memorisation = {
            "training_images": nearest.training,
            "flagged": int(nearest.flagged.sum()),
            "threshold": nearest.threshold,
            "median_distance": float(np.median(nearest.distance)),
            "median_held_out_distance": float(np.median(nearest.held_out_distance)),
            "median_ratio": float(np.median(nearest.ratio)),
            "held_out_copies": nearest.held_out_copies,
            "per_image": [
                {
                    "distance": float(nearest.distance[i]),
                    "ratio": float(nearest.ratio[i]),
                    "percentile": float(nearest.percentile[i]),
                    "copy": bool(nearest.flagged[i]),
                }
                for i in range(len(generated))
            ],
        }
        for i in np.argsort(nearest.distance, kind="stable")[:6]:
            facts = memorisation["per_image"][i]
            pairs.append((generated[i], nearest.nearest[i], facts))
    measured = {
        "kind": "generation",
        "images": len(held_out),
        "patients": len(patients) if "" not in patients else None,
        "sliced_wasserstein": {"images": len(held_out)}
        | {
            key: metrics.sliced_wasserstein(held_out, value, seed=seed)
            for key, value in sets.items()
            if key != "held out"
        },
        "intensity": {
            key: {"mean": float(value.mean()), "sd": float(value.std())}
            for key, value in sets.items()
        },
        "pair_ms_ssim": {
            key: metrics.pair_similarity(value, domain.window, seed=seed)
            for key, value in sets.items()
        },
        "memorisation": memorisation,
    }
    shown = {key: value[:25] for key, value in sets.items()}
    return measured, {"sets": shown, "pairs": pairs}


class _Kept:
    """A bounded choice of examples: best, worst, and a random sample that holds the median."""

    def __init__(self, seed: int, measure: str):
        self.measure = measure  # what the scores are, in words
        self.rng = np.random.default_rng(seed)
        self.count = 0
        self.best: tuple[float, dict] | None = None
        self.worst: tuple[float, dict] | None = None
        self.sample: list[tuple[float, dict]] = []

    def add(self, example: dict, score: float) -> None:
        if self.best is None or score > self.best[0]:
            self.best = score, example
        if self.worst is None or score < self.worst[0]:
            self.worst = score, example
        _reservoir(self.sample, (score, example), self.count, _KEPT, self.rng)
        self.count += 1

    def chosen(self, median: float) -> list[tuple[str, dict]]:
        """Label and example, each example once: best, near the median, worst, two random."""
        if not self.sample:
            return []
        middle = min(self.sample, key=lambda item: abs(item[0] - median))
        order = self.rng.permutation(len(self.sample))
        items = [(f"Best {self.measure}", self.best[1])]
        items += [(f"Near the median {self.measure}", middle[1])]
        items += [(f"Worst {self.measure}", self.worst[1])]
        items += [("Random", self.sample[i][1]) for i in order]
        unique: dict[int, tuple[str, dict]] = {}
        for label, example in items:
            unique.setdefault(id(example), (label, example))
        return list(unique.values())[:5]


def _translated(model, examples: Iterator[dict], batch_size: int) -> Iterator[dict]:
    """Examples with "output", translated in runs of one shape."""
    for _, run in itertools.groupby(examples, key=lambda example: example["source"].shape):
        while batch := list(itertools.islice(run, batch_size)):
            with guards.silent():
                outputs = model.translate(np.stack([example["source"] for example in batch]))
            for example, output in zip(batch, outputs, strict=True):
                output = np.asarray(output, np.float32)
                _require_finite(output, "model", f"its output for {example['name']!r}")
                yield example | {"output": output}


def _shown(example: dict, baseline: np.ndarray | None) -> dict:
    """The example with images to look at: of volumes the middle slice, and as "input" the baseline.

    Without one "input" is the source itself.
    """
    images = {key: example[key] for key in ("source", "output", "target")}
    images["input"] = images["source"] if baseline is None else baseline
    if example["target"].ndim == 4:
        images = {key: volume[len(volume) // 2] for key, volume in images.items()}
    return example | images


def _input_window(model) -> tuple[float, float]:
    """Window of the "input" that is shown: what comes of k-space is in the target's unit."""
    return (model.target if model.source.unit == "k-space" else model.source).window


def _checked_example(
    example: dict[str, Any], keys: tuple[str, ...], dimensions: int
) -> dict[str, Any]:
    """The example's images as finite float32 `[H, W, C]`, its mask, patient and name as text."""
    checked = {key: _text(example.get(key, "")) for key in ("patient", "name")}
    for key in keys:
        image = np.asarray(example[key], np.float32)
        if image.ndim != dimensions + 1:
            axes = "[H, W, C]" if dimensions == 2 else "[D, H, W, C]"
            raise ValueError(f"dataset: expected {key} {axes}. Received: shape {image.shape}")
        _require_finite(image, "dataset", f"{key} of {checked['name']!r}")
        checked[key] = image
    if "mask" in example and "target" in checked:
        mask, shape = np.asarray(example["mask"], bool), (*checked["target"].shape[:-1], 1)
        if mask.shape != shape:
            raise ValueError(
                f"dataset: expected a mask of shape {shape} with {checked['name']!r}. "
                f"Received: {mask.shape}"
            )
        checked["mask"] = mask
    return checked


def _require_finite(image: np.ndarray, argument: str, what: str) -> None:
    bad = int(image.size - np.isfinite(image).sum())
    if bad:
        raise ValueError(
            f"{argument}: expected finite values in {what}. "
            f"Received: NaN or infinity in {bad} of {image.size} values"
        )


def _require_shape(example: dict) -> None:
    output, target = example["output"].shape, example["target"].shape
    if output != target:
        raise ValueError(
            f"model: expected an output of the target's shape {target} for "
            f"{example['name']!r}. Received: {output}"
        )


def _training(images: Iterable[Any], domain) -> Iterator[np.ndarray]:
    for item in tqdm.tqdm(images, desc="training images", unit="image", disable=None):
        image = item["image"] if isinstance(item, dict) else item
        yield domain.clip(np.asarray(image, np.float32))


def _sampled(images: Iterator, size: int, sample: list, seed: int) -> Iterator:
    """Passes images through and leaves a uniform sample of them in `sample`."""
    rng = np.random.default_rng(seed)
    for count, image in enumerate(images):
        _reservoir(sample, image, count, size, rng)
        yield image


def _reservoir(sample: list, item: Any, count: int, size: int, rng: np.random.Generator) -> None:
    """Vitter's algorithm R: after each of many calls `sample` is uniform over the items seen."""
    if len(sample) < size:
        sample.append(item)
    elif (position := int(rng.integers(count + 1))) < size:
        sample[position] = item


def _middle_crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    top, left = ((side - wanted) // 2 for side, wanted in zip(image.shape, size, strict=False))
    return image[top : top + size[0], left : left + size[1]]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _finite(value: Any) -> Any:
    """The same structure with None for numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("tensorflow", "keras", "numpy", "scikit-image"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # tensorflow-cpu, say
            versions[package] = importlib.metadata.version(package)
    return versions


def summary_lines(results: dict[str, Any]) -> list[str]:
    """The evaluation's main figures, each with its interval over patients, or images."""
    data = results["dataset"]
    patients = f" of {results['patients']} patients" if results["patients"] else ""
    images = "volumes" if results.get("dimensions") == 3 else "images"
    lines = [f"{data['name']}, {data['split']} split: {results['images']} {images}{patients}"]
    # What is measured of images, and of volumes made of them.
    shown = {"psnr": "PSNR", "ssim": "SSIM", "rmse": "RMSE", "mae": "MAE", "nmse": "NMSE"}
    shown |= {"psnr_body": "PSNR in the body", "mae_body": "MAE in the body"}
    shown |= {"ssim_fastmri": "SSIM (fastMRI)", "ssim_synthrad": "SSIM (SynthRAD2023)"}
    shown |= {"dice": "Dice", "accuracy": "Accuracy"}
    volumes = results.get("volumes") or {}
    for part in (results, volumes):
        summary = part.get("summary", {})
        for key in filter(summary.get("output", {}).__contains__, shown):
            kind = key.partition("_")[0]
            unit = {"psnr": " dB"}.get(kind, "")
            if kind in ("rmse", "mae") and results["unit"] != "1":
                unit = f" {results['unit']}"
            line = f"  {shown[key]} {mean_line(summary['output'][key], unit)}"
            if "gain" in summary:
                gain = mean_line(summary["gain"][key], unit, "+", counted=False)
                line += f"; against the {results['baseline']} {gain}"
            lines.append(line)
    for name, distances in results.get("sliced_wasserstein", {}).items():
        if isinstance(distances, dict):
            lines.append(f"  sliced Wasserstein distance ×1000, {name}: {distances['mean']:.1f}")
    if results.get("memorisation"):
        lines.append(f"  too close to a training image: {results['memorisation']['flagged']}")
    return lines


def mean_line(summary: dict[str, Any], unit: str, sign: str = "", counted: bool = True) -> str:
    """Such as "34.1 dB (33.2 to 35, 12 patients)"."""
    from zoo.evaluation import intervals

    found = intervals.independent(summary)
    if found["mean"] is None:
        return "not measured"
    low, high = found["ci95"]
    text = f"{found['mean']:{sign}.4g}{unit} ("
    text += "no interval" if low is None else f"{low:{sign}.4g} to {high:{sign}.4g}"
    return text + (f", {found['count']} {found['of']})" if counted else ")")
