"""`reconstruct`: images of measurements, by physics."""

import inspect
import itertools
import sys
from pathlib import Path
from typing import Any

from zoo.commands import asked
from zoo.commands.asked import FLAGS, UsageError

_FLAGS = ("lam", "photons", "sigma", "denoiser", "critic", "stop", "iterations")


def reconstruct() -> int:
    (output,) = asked.need("output")
    if bool(FLAGS.dataset) == bool(FLAGS.input):
        raise UsageError(
            "reconstruct: expected --dataset, or --input with a file of yours. "
            f"Received: {FLAGS.dataset or 'neither'}"
        )
    method, options = _method()
    import numpy as np

    from zoo.atomic import replacing, sweep, write_atomic, write_json
    from zoo.errors import contained
    from zoo.reconstruction import unseen
    from zoo.reconstruction.measured import in_unit
    from zoo.reconstruction.reconstruct import reconstruct as solve

    # Where the results go.
    folder = Path(output).expanduser()
    if (folder / "records.json").exists() and not FLAGS.overwrite:
        raise UsageError(f"output: {folder} has results; --overwrite replaces them.")
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    records: list[dict[str, Any]] = []
    failed: list[str] = []
    study = None
    for number, each in enumerate(_measurements()):
        name, measured, operator, unit, target, window, sigma = each
        # The image, and what it is worth where the truth is known.
        options |= sigma
        place = _free(folder / f"{name}.npy")
        if FLAGS.dicom:
            _free(place.with_suffix(".dcm"))
            _check_ct(operator, unit)
            if study is None or FLAGS.dataset:  # whose slices are of many patients
                study = _study(method, measured, operator)
        try:
            with contained("reconstruction"):
                image, record = solve(measured, operator, method, **options, **_bar(name, method))
                values = in_unit(image, unit)
                as_dicom = study and study.encode(values, number, _how(record, method))
        except ValueError as error:
            failed.append(f"{name}: {error}")
            continue
        fields = {"name": name} | record.to_dict() | {"method": FLAGS.method}
        noise = {key: options[key] for key in ("sigma", "photons") if key in options}
        fields |= unseen.figures(image, measured, operator, **noise)
        fields |= _measured(values, target, window)
        with replacing(place) as path, path.open("wb") as file:
            np.save(file, values)
        if as_dicom:
            write_atomic(place.with_suffix(".dcm"), as_dicom)
        records.append(fields)
        print(_line(fields))
        write_json(folder / "records.json", {"images": records})  # whole wherever it is stopped
    if not records:
        raise ValueError(failed[0] if failed else "reconstruct: expected images. Received: none")
    for text in failed:
        print(f"skipped: {text}", file=sys.stderr)
    print(f"Wrote {len(records)} images and records.json to {folder}")
    return 1 if failed or not all(record["converged"] for record in records) else 0


def _check_ct(operator: Any, unit: str) -> None:
    """A UsageError for an image that is no CT in HU."""
    if operator.dtype.is_complex or unit != "HU":
        received = "signal of MRI" if operator.dtype.is_complex else unit
        raise UsageError(f"dicom: expected CT in HU. Received: {received}")


def _study(method: Any, measured: Any, operator: Any) -> Any:
    """The DICOM study of a file's slices, or of one of a data set."""
    import hashlib

    from zoo.cache import file_sha256
    from zoo.imaging.dicom.reconstructed import Study
    from zoo.reconstruction.measured import slice_distance

    name = method if isinstance(method, str) else method.name
    if not FLAGS.input:
        return Study(name, hashlib.sha256(measured.tobytes()).hexdigest(), operator.spacing_mm)
    path = Path(FLAGS.input).expanduser()
    return Study(name, file_sha256(path), operator.spacing_mm, slice_distance(path))


def _how(record: Any, method: Any) -> str:
    """How an image came about, for its DICOM header."""
    parts = [f"Reconstructed by {record.method}"]
    if not isinstance(method, str):
        parts.append(f"weights SHA-256 {method.weights_hash}")
    if record.lam is not None:
        parts.append(f"lam {record.lam:.4g} ({record.why})")
    return ", ".join(parts + record.notes)


def _free(path: Path) -> Path:
    """A path that may be written to: that of no measurement, and of a file only if told so."""
    if FLAGS.input and path.exists() and path.samefile(Path(FLAGS.input).expanduser()):
        raise UsageError(f"output: would replace the measurement. Received: {path.parent}")
    if path.exists() and not FLAGS.overwrite:
        raise UsageError(f"output: {path} exists; --overwrite replaces it.")
    return path


def _method() -> tuple[Any, dict[str, Any]]:
    """The method, a model of the zoo loaded, and what it takes of the flags."""
    from zoo import loading, registry
    from zoo.reconstruction.learned import reconstruct as by_model
    from zoo.reconstruction.reconstruct import METHODS, is_known

    if not is_known(FLAGS.method):
        raise UsageError(
            f"method: expected {', '.join(METHODS)}, a pretrained model or the folder of a run. "
            f"Received: {FLAGS.method}"
        )
    # What it takes, of what was given.
    named = METHODS.get(FLAGS.method)
    taken = inspect.signature(named or by_model).parameters
    given = {name: getattr(FLAGS, name) for name in _FLAGS}
    given = {name: value for name, value in given.items() if value is not None}
    if unfit := [f"--{name}" for name in given if name not in taken]:
        raise UsageError(f"{FLAGS.method} takes none of {', '.join(unfit)}.")
    for name in {"lam", "photons", "sigma"} & set(given):
        try:
            given[name] = float(given[name])
        except ValueError:
            of_data = name == "sigma" and given[name] == "data" and FLAGS.dataset
            if name != "lam" and not of_data:
                words = "a number, or data with --dataset" if name == "sigma" else "a number"
                raise UsageError(f"{name}: expected {words}. Received: {given[name]}") from None
    if named and taken.get("critic") and "critic" not in given:
        raise UsageError(f"{FLAGS.method}: expected --critic. Received: none")
    if "seed" in taken:
        given["seed"] = FLAGS.seed or 0
    # A model is loaded once for all images.
    for name in {"denoiser", "critic"} & set(given):
        given[name] = loading.build(registry.lookup(given[name]))
    return FLAGS.method if named else loading.build(registry.lookup(FLAGS.method)), given


def _measurements():
    """Name, measurement, operator, unit, where they are known target and window, own options."""
    from zoo.reconstruction import measured

    if FLAGS.input:
        path = Path(FLAGS.input).expanduser()
        count, found = measured.of_input(path)
        for number, (one, operator) in enumerate(itertools.islice(found, FLAGS.limit)):
            name = path.stem if count == 1 else f"{path.stem}_{number:04d}"
            yield name, one, operator, "HU", None, None, {}
        return
    from zoo.data import batches, facts, prepare
    from zoo.recipe import Recipe

    recipe = Recipe.preset("paper")
    builder = prepare.load_builder(FLAGS.dataset, asked.path("data_dir"), recipe, None)
    domain = facts.data_facts(builder, recipe).target
    examples = batches.eval_dataset(builder, FLAGS.split, FLAGS.limit)
    for number, (example, one, operator) in enumerate(measured.of_examples(builder, examples)):
        name, target = f"{FLAGS.split}_{number:04d}", example["target"][..., 0]
        sigma = {"sigma": measured.noise_of(builder, one)} if FLAGS.sigma == "data" else {}
        yield name, one, operator, domain.unit, target, domain.window, sigma


def _bar(name: str, method: Any) -> dict[str, Any]:
    """Progress on a terminal, of a method that iterates."""
    from zoo.reconstruction.reconstruct import METHODS

    known = isinstance(method, str) and inspect.signature(METHODS[method]).parameters
    iterates = known and "progress" in known
    if not iterates or not sys.stderr.isatty():
        return {}

    def progress(done: int, left: float) -> None:
        print(f"\r{name}: {done} iterations, {left:.1e} ", end="", file=sys.stderr, flush=True)

    return {"progress": progress}


def _measured(values: Any, target: Any, window: Any) -> dict[str, float]:
    if target is None:
        return {}
    import numpy as np

    from zoo import metrics

    pair = np.clip(values, *window)[..., None], target[..., None]
    return {"psnr": float(metrics.psnr(*pair, window)), "ssim": float(metrics.ssim(*pair, window))}


def _line(fields: dict[str, Any]) -> str:
    parts = [f"{fields['seconds']:.1f} s"]
    if fields["iterations"]:
        parts.append(f"{fields['iterations']} iterations")
    for name, shown in (("gap", "gap"), ("change", "change"), ("lipschitz", "Lipschitz constant")):
        if fields[name] is not None:
            parts.append(f"{shown} {fields[name]:.2g}")
    if fields["lam"] is not None:
        parts.append(f"lam {fields['lam']:.4g}")
    if fields["why"]:
        parts.append(f"({fields['why']})")
    parts += _unseen(fields)
    if "psnr" in fields:
        parts.insert(0, f"PSNR {fields['psnr']:.2f} dB, SSIM {fields['ssim']:.3f}")
    return f"{fields['name']}: {', '.join(parts + fields['notes'])}"


def _unseen(fields: dict[str, Any]) -> list[str]:
    """How an image fits what was measured, and what of it was not."""
    misfit = f"misfit {100 * fields['misfit']:.2g} %"
    if fields["misfit_noise"] is not None:
        misfit += f", {fields['misfit_noise']:.2f} times the noise"
    if fields["null_space"] is None:
        return [misfit]
    added, unseen = 100 * fields["added"], 100 * fields["null_space"]
    return [
        misfit,
        f"beyond the quick image {added:.2g} % of its energy, {unseen:.0f} % of it unseen",
    ]
