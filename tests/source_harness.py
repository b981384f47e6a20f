"""What every data set must do.

One that reads a publisher's files is built from dummy data, which are then damaged:

    check_source(Builder, "tcia", dummy_data.ldct_tcia, tmp_path)

A simulated one is built, and its patients follow from their numbers:

    check_simulated(Builder(config="phantom_tiny", data_dir=tmp_path), (6, 2, 2), {...})
    check_repeatable(lambda seed, number: phantom.patient(SMALL, seed, number), differs)
"""

import copy
import json
import shutil
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tensorflow_datasets as tfds

from zoo.domain import Domain
from zoo_datasets import sources
from zoo_datasets.cases import SPLITS, Case

# Writes a publisher's tree into a folder; may return known values, in physical units:
# {example's name: {feature: {(row, column, channel): value}}}.
MakeDummy = Callable[[Path], dict[str, dict[str, dict[tuple[int, ...], float]]] | None]


def build(builder_cls: type, config: str, make_dummy: MakeDummy, tmp_path: Path):
    """The builder, prepared in `tmp_path/tfds` from dummy data in `tmp_path/manual`."""
    manual = tmp_path / "manual"
    if not manual.exists():
        manual.mkdir(parents=True)
        make_dummy(manual)
    return prepare(builder_cls, config, manual, tmp_path / "tfds")


def prepare(builder_cls: type, config: Any, manual: Path, data_dir: Path):
    """The builder, prepared from a manual directory."""
    builder = builder_cls(config=config, data_dir=data_dir)
    options = tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
    builder.download_and_prepare(download_config=options)
    return builder


def read(builder: tfds.core.DatasetBuilder) -> dict[str, list[dict[str, Any]]]:
    """The examples of each split, as NumPy arrays and texts."""
    return {
        split: [
            {k: v.decode() if isinstance(v, bytes) else v for k, v in example.items()}
            for example in builder.as_dataset(split=split).as_numpy_iterator()
        ]
        for split in builder.info.splits
    }


def check_source(
    builder_cls: type, config: str, make_dummy: MakeDummy, tmp_path: Path
) -> tfds.core.DatasetBuilder:
    """Builds a config from dummy data and asserts what must hold of every source.

    - its folder, description and instructions are complete;
    - an empty manual directory is refused with those instructions;
    - patients are in one split, names are unique and tell no path;
    - metadata are domains, images have their type and channels, are finite and fill the window;
    - known values, where `make_dummy` returns some, come back in physical units;
    - a missing file, a truncated one and one of another modality are refused or reported, and a
      build with too many leaves nothing behind;
    - TFDS's own `DatasetBuilderTestCase` passes.

    Args:
        builder_cls: a `SourceBuilder`.
        config: name of a config with `find`.
        make_dummy: writes the publisher's layout into a folder.
        tmp_path: an empty folder.

    Returns:
        The prepared builder.
    """
    manual = tmp_path / "manual"
    manual.mkdir()
    known = make_dummy(manual) or {}
    check_description(builder_cls, config, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises((FileNotFoundError, AssertionError), match="http"):
        prepare(builder_cls, config, tmp_path / "empty", tmp_path / "never")
    builder = build(builder_cls, config, make_dummy, tmp_path)
    assert not (Path(builder.data_dir) / "bad_files.json").exists(), "dummy data that are bad"
    reloaded = builder_cls(config=config, data_dir=tmp_path / "tfds")
    check_examples(reloaded, read(reloaded), known, manual)
    check_damage(builder, manual, tmp_path)
    check_tfds(builder, manual)
    return builder


def check_simulated(
    builder: tfds.core.DatasetBuilder,
    counts: tuple[int, int, int],
    images: dict[str, tuple[tuple[int, ...], Any]],
    each: int = 1,
) -> dict[str, list[dict[str, Any]]]:
    """Builds a simulated config and asserts what must hold of every one.

    - its data set works without files: the default config is simulated;
    - patients are as many in each split as is said, each in one, with as many examples;
    - names are unique; label maps of source and target are one map of the classes;
    - images have their shape and type, and the metadata are their domains.

    Args:
        builder: of a simulated config, in an empty folder.
        counts: patients of train, validation and test.
        images: shape `[H, W, C]` and type of each image.
        each: examples of a patient.

    Returns:
        The examples of each split.
    """
    assert builder.BUILDER_CONFIGS[0].find is None
    builder.download_and_prepare()
    splits = read(builder)
    patients = [{e["patient"] for e in splits[split]} for split in SPLITS]
    assert tuple(map(len, patients)) == counts
    assert len(set.union(*patients)) == sum(counts), "a patient in two splits"
    assert [len(splits[split]) for split in SPLITS] == [each * count for count in counts]
    everything = [e for examples in splits.values() for e in examples]
    assert len({e["name"] for e in everything}) == len(everything), "names that come twice"
    metadata = builder.info.metadata
    assert metadata["kind"] == ("single" if "image" in images else "paired")
    assert "image" in images or metadata["aligned"] is True
    for key, (shape, dtype) in images.items():
        assert Domain.from_dict(metadata[key]).channels == shape[-1]
        for e in everything:
            assert (e[key].shape, e[key].dtype) == (shape, dtype), (e["name"], key)
    for e in everything:
        if "source_label" in e:
            assert e["source_label"].dtype == np.uint8
            assert e["source_label"].max() < len(metadata["label_names"])
            np.testing.assert_array_equal(e["source_label"], e["target_label"])
    return splits


def check_repeatable(
    patient: Callable[[int, int], Any], apart: Callable[[Any, Any], float], least: float
) -> None:
    """A patient follows from (seed, number), and another seed or number gives another one.

    Args:
        patient: (seed, number) to arrays, in any structure.
        apart: how far two patients are from each other.
        least: how far other patients must be.
    """
    first = patient(0, 3)
    np.testing.assert_equal(patient(0, 3), first)
    for seed, number in ((0, 4), (1, 3)):
        assert apart(patient(seed, number), first) > least


def check_description(builder_cls: type, config: str, tmp_path: Path) -> None:
    """The TFDS folder and the config say what a user must know."""
    folder = Path(builder_cls.code_path).parent
    for name in ("README.md", "CITATIONS.bib", "TAGS.txt"):
        assert (folder / name).read_text(encoding="utf-8").strip(), name
    builder = builder_cls(config=config, data_dir=tmp_path / "described")
    chosen = builder.builder_config
    assert chosen.description and "\n" not in chosen.description
    assert chosen.manual == builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    assert "http" in chosen.manual and len(chosen.manual.strip().splitlines()) >= 3
    assert builder_cls.BUILDER_CONFIGS[0].find is None, "the default config works offline"
    assert f"`{config}`" in (folder / "README.md").read_text(encoding="utf-8")


def check_examples(
    builder: tfds.core.DatasetBuilder,
    splits: dict[str, list[dict[str, Any]]],
    known: dict[str, dict[str, dict[tuple[int, ...], float]]],
    manual: Path,
) -> None:
    """Splits, names, metadata, types and values of what was built."""
    assert splits["train"] and set(splits) <= set(SPLITS)
    patients = [{e["patient"] for e in examples} for examples in splits.values()]
    assert len(set.union(*patients)) == sum(map(len, patients)), "a patient in two splits"
    everything = {e["name"]: e for examples in splits.values() for e in examples}
    assert len(everything) == sum(map(len, splits.values())), "names that come twice"
    for example in everything.values():
        for text in (example["name"], example["patient"]):
            assert text and str(manual) not in text and "/" not in text

    metadata = json.loads(json.dumps(dict(builder.info.metadata)))
    assert metadata["kind"] in ("paired", "unpaired", "single")
    keys = [k for k, v in metadata.items() if isinstance(v, dict) and "window" in v]
    assert "image" in keys or "target" in keys
    features = builder.info.features
    for key in keys:
        domain = Domain.from_dict(metadata[key])
        low, high = domain.window
        least, most = np.inf, -np.inf
        images = [e[key] for e in everything.values() if len(e[key])]
        assert images
        for image in images:
            assert image.dtype == features[key].np_dtype
            assert image.shape[-1] == domain.channels
            assert np.isfinite(image).all()
            magnitude = np.abs(image) if np.iscomplexobj(image) else image
            least, most = min(least, magnitude.min()), max(most, magnitude.max())
        assert least < high and most > low, f"{key}: nothing is inside the window"
        assert most > least, f"{key}: all values are the same"

    for name, values in known.items():
        for feature, at in values.items():
            for index, value in at.items():
                got = everything[name][feature][index]
                assert got == pytest.approx(value, rel=1e-3, abs=0.6), (name, feature, index)


def check_damage(builder: tfds.core.DatasetBuilder, manual: Path, tmp_path: Path) -> None:
    """A missing, a truncated and a foreign file are each refused or reported, by name."""
    config = builder.builder_config
    builder_cls = type(builder)
    for damage in (_missing, _truncated, _foreign):
        root = tmp_path / f"manual{damage.__name__}"
        shutil.copytree(manual, root)
        case = config.find(root)["train"][0]
        file = _victim(list(_files(case)))
        damage(file)
        words = {case.key, case.patient, file.name, file.stem, file.parent.name}
        error = _error(config, root, case.key)
        assert error is not None, f"{file.name}: {damage.__name__[1:]} passed unnoticed"
        assert isinstance(error, (OSError, ValueError, EOFError, KeyError)), repr(error)
        assert any(word in str(error) for word in words) or isinstance(error, FileNotFoundError), (
            f"{damage.__name__[1:]}: the message names neither file nor case: {error}"
        )
        # More are bad than is allowed: the build fails and leaves no half-written data set.
        strict = _with(config, bad_limit=0.0)
        failed = tmp_path / f"failed{damage.__name__}"
        with pytest.raises((OSError, ValueError)):
            prepare(builder_cls, strict, root, failed)
        assert not list(failed.rglob("*.tfrecord*")), "a half-written data set"
    # Up to the limit, the case is left out and listed.
    lenient = _with(config, bad_limit=1.0)
    root = tmp_path / "manual_truncated"
    kept = prepare(builder_cls, lenient, root, tmp_path / "lenient")
    (bad,) = json.loads((Path(kept.data_dir) / "bad_files.json").read_text())
    assert bad["case"] and bad["patient"] and bad["reason"]
    names = {e["name"] for examples in read(kept).values() for e in examples}
    assert not any(name.startswith(bad["case"]) for name in names)


def _with(config: Any, bad_limit: float) -> Any:
    changed = copy.copy(config)
    changed.bad_limit = bad_limit
    changed.name = f"{config.name}_{'strict' if bad_limit == 0 else 'lenient'}"
    return changed


def _error(config: Any, root: Path, key: str) -> Exception | None:
    """What is said of the case after the damage; None: nothing."""
    try:
        cases = [case for cases in config.find(root).values() for case in cases]
    except (OSError, ValueError) as error:
        return error
    (case,) = [case for case in cases if case.key == key] or [None]
    assert case is not None, f"{key} was left out and nobody told; list it and let `read` raise"
    ((_, found),) = sources.read_all(config, [case])
    return found if isinstance(found, Exception) else None


def _victim(files: list[Path]) -> Path:
    """The largest file; of a series of slices, the one in the middle."""
    largest = max(files, key=lambda path: path.stat().st_size)

    def place(path: Path) -> list[float]:
        try:
            return list(pydicom.dcmread(path).ImagePositionPatient)[::-1]
        except Exception:
            return [path.stat().st_size]

    series = sorted((path for path in files if path.parent == largest.parent), key=place)
    return series[len(series) // 2] if largest.suffix == ".dcm" else largest


def _files(case: Case) -> Iterator[Path]:
    """The files that a case reads, those inside folders too."""

    def walk(value: Any) -> Iterator[Path]:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for part in value:
                yield from walk(part)
        elif isinstance(value, Path) and value.is_dir():
            yield from (path for path in value.rglob("*") if path.is_file())
        elif isinstance(value, Path):
            yield value

    yield from walk(case.files)


def _missing(file: Path) -> None:
    file.unlink()


def _truncated(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 3 // 5])


def _foreign(file: Path) -> None:
    """The same name, another modality; for files that state none, another kind of file."""
    try:
        dataset = pydicom.dcmread(file)
    except Exception:
        file.write_bytes(b"GIF89a\x01\x00\x01\x00" + bytes(64))
        return
    dataset.Modality = "US"
    dataset.save_as(file)


def check_tfds(builder: tfds.core.DatasetBuilder, manual: Path) -> None:
    """TFDS's own checks: registration, tags, checksums, split overlap, types and reloading."""
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}

    class Case(tfds.testing.DatasetBuilderTestCase):
        DATASET_CLASS = type(builder)
        BUILDER_CONFIG_NAMES_TO_TEST = [builder.builder_config.name]
        SPLITS = counts
        EXAMPLE_DIR = str(manual)

    tests = unittest.defaultTestLoader.loadTestsFromTestCase(Case)
    result = unittest.TestResult()
    tests.run(result)
    assert result.testsRun >= 4 and result.wasSuccessful(), "\n".join(
        text for _, text in result.errors + result.failures
    )
