"""From a data set's name to a builder whose records are there to be read."""

import contextlib
import importlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from zoo import registry
from zoo.recipe import Recipe


def load_builder(
    dataset: str,
    data_dir: Path | None,
    recipe: Recipe,
    input: Path | None = None,
    *,
    prepare: bool = True,
) -> tfds.core.DatasetBuilder:
    """A data set that is ready to be read; downloads or generates it first where needed.

    Args:
        dataset: registered name, or "name/config"; the default config works offline.
        data_dir: where prepared data sets live; None: `$TFDS_DATA_DIR` or ~/tensorflow_datasets.
        recipe: `spacing`, `slices`, `source_unit`, `target_unit`, `source_series`, `target_series`,
            `target` and `allow_shared_patients` say how `folder` is prepared.
        input: the user's own folder or list of images, for the data set `folder` only.
        prepare: False only describes the data; `prepare_builder` then makes them ready.

    Raises:
        UnknownName: for an unknown data set or config.
        ValueError: for an option that the data set does not have, or data it cannot use.
        FileNotFoundError: where files are missing that have to be fetched by hand.
    """
    fields, config = registry.dataset_fields(dataset)
    name = fields["name"]
    module = importlib.import_module(f"{fields['module']}.{name}_dataset_builder")
    chosen: Any = config if module.Builder.BUILDER_CONFIGS else None
    if hasattr(module, "configure"):  # made from the user's own files
        chosen = module.configure(input, recipe)
    else:
        _refuse_folder_options(name, recipe, input)
    builder = module.Builder(config=chosen, data_dir=data_root(data_dir))
    if not prepare:
        return builder
    builder = prepare_builder(builder)
    warn_of_bad_files(builder)
    return builder


def layout(input: Path, recipe: Any) -> Any:
    """What the data set `folder` finds in a user's folder or list: its `Layout`.

    Raises:
        FileNotFoundError, ValueError: as `load_builder`.
    """
    fields, _ = registry.dataset_fields("folder")
    module = importlib.import_module(f"{fields['module']}.folder_dataset_builder")
    return module.configure(input, recipe).layout


def warn_of_bad_files(builder: tfds.core.DatasetBuilder) -> None:
    """Says on stderr how many files a prepared data set is without."""
    left_out = bad_files(builder)
    if left_out:
        print(f"warning: {builder.info.full_name}: {left_out}", file=sys.stderr, flush=True)


def bad_files(builder: tfds.core.DatasetBuilder) -> str:
    """Says what could not be read when a data set was prepared; "" where all could."""
    path = Path(builder.data_dir) / "bad_files.json"
    if not path.exists():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    return f"{len(found)} could not be read and were left out: {path}"


def data_root(data_dir: Path | None) -> Path:
    """Where prepared data sets live: the given folder, `$TFDS_DATA_DIR`, or TFDS's own."""
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    return root.expanduser()


def manual_dir(builder: tfds.core.DatasetBuilder) -> Path:
    """Where a config's files are looked for: `downloads/manual/NAME/CONFIG` of the data directory.

    Where that folder is not there but TFDS's own, `downloads/manual`, has files, it is that.
    """
    common = Path(builder.data_dir_root) / "downloads" / "manual"
    own = common / builder.name / getattr(builder.builder_config, "name", "")
    used = common.is_dir() and any(path.name not in _names() for path in common.iterdir())
    return common if used and not own.is_dir() else own


def _names() -> set[str]:
    return set(registry.index()["datasets"])


def prepare_builder(
    builder: tfds.core.DatasetBuilder,
    manual: Path | None = None,
    beam_options: Sequence[str] | None = None,
) -> tfds.core.DatasetBuilder:
    """The same data set, downloaded or generated where it is not there yet.

    Args:
        builder: from `load_builder`.
        manual: the user's files, for a config that reads such; None: `manual_dir(builder)`.
        beam_options: of Apache Beam, such as ["--runner=DirectRunner"], which then builds it.

    Raises:
        FileNotFoundError: for files that are missing; names them and how to get them.
        ValueError: for files that are wrong, and Beam options without Beam.
    """
    final = Path(builder.data_dir)
    if final.exists():  # TFDS renames a finished data set to this name
        return builder
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    config = builder.builder_config
    root = Path(builder.data_dir_root)
    with _locked(root / f".{builder.name}-{getattr(config, 'name', config)}.lock"):
        # Another process may have prepared it while this one waited.
        fresh = type(builder)(config=config, data_dir=root)
        if not final.exists():
            _prepare(fresh, manual or manual_dir(fresh), _pipeline_options(beam_options))
    return fresh


def _pipeline_options(options: Sequence[str] | None) -> Any:
    if not options:
        return None
    try:
        from apache_beam.options import pipeline_options
    except ImportError as error:
        raise ValueError(
            "beam_options: expected Apache Beam: pip install 'zoo-medical[beam]'. "
            f"Received: {error}"
        ) from error
    return pipeline_options.PipelineOptions(list(options))


def _refuse_folder_options(name: str, recipe: Recipe, input: Path | None) -> None:
    given = {
        "input": input,
        "spacing": recipe.spacing or None,
        "slices": recipe.slices if recipe.slices > 1 else None,
        "source_unit": recipe.source_unit or None,
        "target_unit": recipe.target_unit or None,
        "source_series": recipe.source_series or None,
        "target_series": recipe.target_series or None,
        "allow_shared_patients": recipe.allow_shared_patients or None,
    }
    given["target"] = recipe.target if recipe.target == "neighbour" else None
    for option, value in given.items():
        if value is not None:
            raise ValueError(
                f"{option}: only the data set `folder` has this option, {name} has not. "
                f"Received: {option}={value}"
            )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock, so that one of several processes prepares a data set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # no such locks on this system: the slower process fails to rename
        yield
        return
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _prepare(builder: tfds.core.DatasetBuilder, manual: Path, beam_options: Any) -> None:
    final = Path(builder.data_dir)
    # A process that was killed leaves a folder of this kind; the lock says that it is nobody's.
    for stale in final.parent.glob(f"incomplete.*_{final.name}"):
        shutil.rmtree(stale)
    print(f"Preparing {builder.info.full_name} in {final}", file=sys.stderr, flush=True)
    options = tfds.download.DownloadConfig(
        try_download_gcs=False, manual_dir=manual, beam_options=beam_options
    )
    try:
        with contextlib.redirect_stdout(sys.stderr), _bars_on_terminals():
            builder.download_and_prepare(download_config=options)
    except AssertionError as error:
        if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and "Manual directory" in str(error):
            raise FileNotFoundError(str(error)) from None
        raise


@contextlib.contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """No progress bars of TFDS where standard error is a file."""
    if sys.stderr.isatty():
        yield
        return
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        tfds.enable_progress_bar()
