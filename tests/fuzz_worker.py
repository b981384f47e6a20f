"""Runs one damaged file after another in a process that may hang, crash or run out of memory.

python fuzz_worker.py predict|command FOLDER

Reads a line of JSON for each file from the standard input, and answers each with another: what is
wrong, "" where nothing is, and in a word what became of the file.
"""

import contextlib
import hashlib
import io
import json
import os
import resource
import shutil
import sys
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
MEMORY = 2**31  # bytes beyond what the process takes when it is ready


def predict(folder: Path, deidentify: bool, channels: int) -> tuple[str, str]:
    """Translates what is in `folder`/in, where the files "good" must come through."""
    from stand_in import Model
    from zoo.domain import Domain
    from zoo.imaging.files import open_volume
    from zoo.inference import predict

    source, output = folder / "in", folder / "out"
    shutil.rmtree(output, ignore_errors=True)
    model = Model(source=Domain(channels=channels), target=Domain(channels=channels))
    report = predict.translate(
        model, source, output, deidentify=deidentify, progress=False, overwrite=True
    )
    # nothing is left behind, and every file that is there has been reported
    written = {path for path in output.rglob("*") if path.is_file()}
    if written != set(report.outputs):
        return f"files {written} of which {report.outputs} were reported", "left"
    reasons = [problem.reason for problem in [*report.skipped, *report.ignored]]
    for reason in reasons:
        if "\n" in reason or len(reason) > 2000 or not reason:
            return f"a message of another form: {reason[:300]!r}", "message"
        if "Unable to allocate" in reason:
            return f"too much memory was asked for: {reason}", "memory"
    skipped = {problem.path.name for problem in report.skipped}
    if any(name.startswith("z_good") for name in skipped):
        return f"a good file was skipped: {reasons}", "good"
    if not deidentify:
        for path in source.glob("z_good.*"):
            old, new = (open_volume(place / path.name).read(0) for place in (source, output))
            if not (old == new).all():
                return f"{path.name} came out as another", "good"
    good = len(list(source.glob("z_good.*")))
    if report.done < good:
        return f"{good} good files, of which {report.done} were translated", "good"
    return "", "skipped" if skipped else "translated" if report.done > good else "ignored"


def command(arguments: list[list[str]], index: str, folder: Path) -> tuple[str, str]:
    """Runs commands in turn; the first that ends otherwise than it may is told."""
    from zoo import command_line, registry

    registry._own_index = lambda: Path(index or ROOT / "registry.yaml")
    outcome = ""
    for line in arguments:
        for cached in vars(registry).values():
            if hasattr(cached, "cache_clear"):
                cached.cache_clear()
        said, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
            code = command_line.main(["zoo", *line])
        # entries of a damaged registry that are left out are warned of, a line each
        lines = [x for x in errors.getvalue().splitlines() if not x.startswith("warning: ")]
        faults = [text for text in lines if text.startswith("error: ")]
        if code not in (0, 1, 2):
            return f"{line}: exit code {code}", "code"
        if "Traceback" in errors.getvalue() or len(faults) > 1 or (code == 2 and not faults):
            return f"{line}: exit code {code}, said {errors.getvalue()[:500]!r}", "message"
        if faults and lines[0] != faults[0]:
            return f"{line}: an error of several lines: {errors.getvalue()[:500]!r}", "message"
        if faults and len(lines) > 1 + (code == 2):
            return f"{line}: an error of several lines: {errors.getvalue()[:500]!r}", "message"
        if "MemoryError" in errors.getvalue():
            return f"{line}: too much memory was asked for: {lines}", "memory"
        outcome = "refused" if code else "taken"
    left = [path for path in folder.rglob("*") if path.name.endswith(".part")]
    return (f"partial files: {left}", "left") if left else ("", outcome)


def prepare(folder: Path) -> str:
    """A run folder with the weights of a tiny network: the content of its run.json."""
    import zoo

    model = zoo.load("encoder_decoder", base_filters=2, levels=2, precision="float32")
    weights = folder / "run" / "weights" / "network.weights.h5"
    weights.parent.mkdir(parents=True, exist_ok=True)
    model.network.save_weights(weights)
    record = {
        "model": "encoder_decoder",
        "dataset": "ldct/phantom_tiny",
        "preset": "small",
        "recipe": model.recipe.to_dict(),
        "weights": {
            "file": "weights/network.weights.h5",
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        },
        "source": model.source.to_dict(),
        "target": model.target.to_dict(),
    }
    return json.dumps(record)


def main(kind: str, folder: Path) -> None:
    # the answers have a channel of their own, and what else is written goes nowhere
    answers = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    warnings.simplefilter("ignore")
    ready = ""
    if kind == "command":
        ready = prepare(folder)
        command([["list"]], "", folder)
    else:
        predict(folder, True, 1)
        predict(folder, False, 1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    print(json.dumps(ready), file=answers, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        try:
            answer = (predict if kind == "predict" else command)(folder=folder, **task)
        except BaseException:
            answer = (traceback.format_exc(limit=-4), "exception")
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
