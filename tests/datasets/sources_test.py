"""zoo_datasets.sources: cases, splits by patient, bad files, worker processes, Beam."""

import dataclasses
import functools
import hashlib
import json
import os
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

import source_harness
from zoo.domain import Domain
from zoo_datasets import features, sources, workers
from zoo_datasets.cases import (
    SPLITS,
    Case,
    SourceConfig,
    by_patient,
    check_splits,
    hashed_split,
    need,
    read_case,
)
from zoo_datasets.publishers import volumes

# A small data set of text files: "<patient>.txt" holds the values of its two images.


def find(root):
    files = need(root, "*.txt", "<patient>.txt")
    return by_patient(Case(key=f.stem, patient=f.stem[:4], files={"text": f}) for f in files)


def read_text(case, config):
    values = case.files["text"].read_text().split()
    if len(values) != 2:
        raise ValueError(f"{case.key}: expected two values. Received: {len(values)}")
    if values[0] == "bug":
        raise TypeError("the reader is wrong")
    for i, value in enumerate(values):
        name = f"{case.key}-{i}"
        image = np.full((2, 3, 1), int(value), np.int16)
        yield name, {"image": image, "patient": case.patient, "name": name}


class Texts(sources.SourceBuilder, skip_registration=True):
    """Images from texts."""

    name = "texts"
    pkg_dir_path = None
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        SourceConfig(name="simulated", read=read_text),
        SourceConfig(
            name="real", find=find, read=read_text, manual="https://example.org", bad_limit=0.1
        ),
    ]

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": features.image_feature((None, None, 1)),
                    "patient": tfds.features.Text(),
                    "name": tfds.features.Text(),
                }
            ),
        )


def write(root, count=40, bad=()):
    root.mkdir(exist_ok=True)
    for i in range(count):
        (root / f"P{i:03d}.txt").write_text("1" if i in bad else f"{i} {i + 1000}")
    return root


def prepare(root, data_dir, **options):
    builder = Texts(config="real", data_dir=data_dir)
    options = tfds.download.DownloadConfig(manual_dir=root, try_download_gcs=False, **options)
    builder.download_and_prepare(download_config=options)
    return builder


def digest(builder):
    """Split, name, patient and pixels of every example, in the order of the records."""
    return [
        (split, e["name"], e["patient"], e["image"].tobytes())
        for split, examples in source_harness.read(builder).items()
        for e in examples
    ]


# Splits.


PINNED = ["train", "test", "validation", "train", "validation", "test"]


def test_hashed_split_is_the_published_one():
    # Pinned: another release must not move a patient from test to train.
    patients = ["L067", "C003", "IXI012", "LIDC-IDRI-0001", "1BA001", "C3N-00014"]
    assert [hashed_split(p) for p in patients] == PINNED
    independent = [int(hashlib.sha256(p.encode()).hexdigest()[:8], 16) % 100 for p in patients]
    expected = ["train" if b < 80 else "validation" if b < 90 else "test" for b in independent]
    assert expected == PINNED


def test_hashed_split_has_its_shares():
    splits = [hashed_split(f"patient {i}") for i in range(20_000)]
    for name, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        assert abs(splits.count(name) / len(splits) - share) < 0.01


@given(st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=30), st.data())
def test_more_data_never_move_a_patient(patients, data):
    fewer = data.draw(st.sets(st.sampled_from(sorted(patients)), min_size=1))

    def where(names):
        cases = [Case(key=f"{n}-{i}", patient=n) for n in sorted(names) for i in (1, 0)]
        splits = by_patient(cases)
        assert list(splits) == list(SPLITS)
        for found in splits.values():
            assert [c.key for c in found] == sorted(c.key for c in found)
        return {case.patient: split for split, found in splits.items() for case in found}

    alone, together = where(fewer), where(patients)
    assert len(together) == len(patients)
    assert alone == {name: together[name] for name in fewer}


def test_splits_that_share_a_patient_are_refused():
    case = Case(key="a", patient="P1")
    other = Case(key="b", patient="P1")
    check_splits({"train": [case, other]})
    with pytest.raises(ValueError, match="P1 in train and test"):
        check_splits({"train": [case], "validation": [], "test": [other]})
    with pytest.raises(ValueError, match="Received: a twice"):
        check_splits({"train": [case, case]})
    with pytest.raises(ValueError, match="in train. Received: none"):
        check_splits({"train": [], "test": [case]})


# A publisher's tree.


def test_need_names_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected the table \(\*\.csv\). Received: none"):
        need(tmp_path / "nowhere", "*.csv", "the table")
    for name in ("b.csv", "a.csv"):
        (tmp_path / name).touch()
    assert [p.name for p in need(tmp_path, "*.csv", "tables", 2)] == ["a.csv", "b.csv"]
    with pytest.raises(FileNotFoundError, match=r"expected 3 of tables .*Received: 2"):
        need(tmp_path, "*.csv", "tables", 3)


def test_instructions_are_shown_where_files_are_read(tmp_path):
    real = Texts(config="real", data_dir=tmp_path)
    simulated = Texts(config="simulated", data_dir=tmp_path)
    assert real.MANUAL_DOWNLOAD_INSTRUCTIONS == "https://example.org"
    assert simulated.MANUAL_DOWNLOAD_INSTRUCTIONS is None
    with pytest.raises(AssertionError, match="https://example.org"):
        prepare(tmp_path / "nothing", tmp_path)
    with pytest.raises(ValueError, match="simulated: expected `find`. Received: None"):
        simulated.download_and_prepare()


def test_domain_is_what_models_read():
    fields = json.loads(json.dumps(features.domain("CT", "HU", (-1024, 1500), (0.7, 0.7))))
    assert Domain.from_dict(fields) == Domain(
        modality="CT", unit="HU", window=(-1024, 1500), spacing=(0.7, 0.7), plane="axial"
    )
    assert Domain.from_dict(features.domain("MR", "signal", (0, 1), None)).spacing is None


def test_images_are_stored_without_loss(tmp_path):
    feature = features.image_feature((None, None, 1), np.uint16)
    image = np.random.default_rng(0).integers(0, 65536, (5, 7, 1)).astype(np.uint16)
    encoded = tfds.features.FeaturesDict({"image": feature})
    record = encoded.serialize_example({"image": image})
    np.testing.assert_array_equal(encoded.deserialize_example(record)["image"], image)


# Bad files.


def test_bad_files_are_listed_and_left_out(tmp_path):
    root = write(tmp_path / "manual", bad={7, 23})
    builder = prepare(root, tmp_path / "data")
    bad = json.loads((Path(builder.data_dir) / "bad_files.json").read_text())
    assert sorted(entry["case"] for entry in bad) == ["P007", "P023"]
    assert all(entry["reason"].endswith("expected two values. Received: 1") for entry in bad)
    assert len(digest(builder)) == 2 * 38
    assert not any(name.startswith(("P007", "P023")) for _, name, _, _ in digest(builder))


@pytest.mark.parametrize("beam", [False, True])
def test_too_many_bad_files_leave_no_data_set(tmp_path, beam):
    root = write(tmp_path / "manual", bad=set(range(5)))
    with pytest.raises(ValueError, match=r"at most 10% of 40 cases .* Received: 5 \(P00\d: P00\d"):
        prepare(root, tmp_path / "data", **({"beam_runner": "DirectRunner"} if beam else {}))
    assert not [p for p in (tmp_path / "data").rglob("*") if p.is_file() and "record" in p.name]
    builder = Texts(config="real", data_dir=tmp_path / "data")
    assert not Path(builder.data_dir).exists()
    # Once the files are there the same folder builds.
    assert len(digest(prepare(write(root), tmp_path / "data"))) == 80


def test_what_is_wrong_with_the_reader_is_no_bad_file(tmp_path):
    root = write(tmp_path / "manual")
    (root / "P003.txt").write_text("bug 1")
    with pytest.raises(TypeError, match="the reader is wrong"):
        prepare(root, tmp_path / "data")


# Worker processes.


def cases(count, bad=()):
    return [
        Case(key=f"{i}", patient=f"{i}", facts={"bad": i in bad, "number": i}) for i in range(count)
    ]


def read_number(case, config):
    if case.facts["bad"]:
        raise EOFError(f"{case.key} ends early")
    yield case.key, {"process": os.getpid(), "number": case.facts["number"]}


@dataclasses.dataclass(eq=False)
class Numbers(SourceConfig):
    """A config that adds a field."""

    extra: int = 0


def numbers(find=find):
    return Numbers(name="numbers", find=find, read=read_number)


def test_cases_are_read_in_order_by_other_processes():
    found = list(sources.read_all(numbers(), cases(30, bad={11})))
    assert [case.key for case, _ in found] == [f"{i}" for i in range(30)]
    assert isinstance(found[11][1], EOFError) and str(found[11][1]) == "11 ends early"
    processes = set()
    for i, (_, examples) in enumerate(found):
        if i != 11:
            ((key, example),) = examples
            assert key == f"{i}" and example["number"] == i
            processes.add(example["process"])
    assert os.getpid() not in processes


@pytest.mark.parametrize("config", [numbers(), numbers(find=None)])
def test_few_or_simulated_cases_are_read_here(config):
    few = cases(3 if config.find else 30)
    for _, ((_, example),) in sources.read_all(config, few):
        assert example["process"] == os.getpid()


def double(number, delay=0):
    if number == 13:
        raise LookupError("no 13")
    return 2 * number


def test_map_in_order_holds_few_items_and_carries_exceptions():
    taken = []

    def items():
        for i in range(100):
            taken.append(i)
            yield i

    results = workers.map_in_order(double, items(), workers=2, waiting=3)
    for i in range(13):
        assert next(results) == 2 * i
        assert len(taken) <= i + 3
    with pytest.raises(LookupError, match="no 13"):
        next(results)
    assert list(workers.map_in_order(functools.partial(double, delay=1), range(5), 1)) == [
        0, 2, 4, 6, 8,
    ]  # fmt: skip


def test_a_script_without_a_guard_may_read(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from datasets import sources_test
        from zoo_datasets import sources
        print("here")
        found = list(sources.read_all(sources_test.numbers(), sources_test.cases(20)))
        print(len(found))
        """)
    )
    run = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split() == ["here", "20"], run.stderr


# Beam.


def test_beam_builds_the_same_data(tmp_path):
    root = write(tmp_path / "manual", bad={7})
    plain = prepare(root, tmp_path / "plain")
    beam = prepare(root, tmp_path / "beam", beam_runner="DirectRunner")
    assert digest(plain) == digest(beam)  # the same examples, in the same order of records
    bad = [
        json.loads((Path(builder.data_dir) / "bad_files.json").read_text())
        for builder in (plain, beam)
    ]
    assert bad[0] == bad[1] and bad[0][0]["case"] == "P007"
    left = {p.name for p in Path(beam.data_dir).iterdir()}
    assert not [name for name in left if "bad_files-" in name or "temp" in name]


def test_beam_options_choose_beam(tmp_path):
    from apache_beam.options.pipeline_options import PipelineOptions

    root = write(tmp_path / "manual", count=20)
    options = PipelineOptions(["--runner=DirectRunner"])
    builder = prepare(root, tmp_path / "beam", beam_options=options)
    assert builder._on_beam
    assert digest(builder) == digest(prepare(root, tmp_path / "plain"))
    assert not (Path(builder.data_dir) / "bad_files.json").exists()


# Damaged files.


@pytest.mark.parametrize(
    "error", [zlib.error("Error -3"), struct.error("unpack"), TypeError("None"), ValueError("x\ny")]
)
def test_whatever_a_library_throws_at_a_damaged_file_is_a_bad_file(error):
    def read(case, config):
        with sources.reading("a.nii.gz"):
            raise error
        yield

    case = Case(key="a", patient="a")
    found = read_case(case, SourceConfig(name="c", read=read))
    assert isinstance(found, ValueError)
    assert str(found).startswith("a.nii.gz: cannot be read: ")
    assert "\n" not in str(found)


@pytest.mark.parametrize("place", [0.5, -6])
def test_a_scan_whose_compressed_data_are_damaged_is_a_bad_file(tmp_path, place):
    """In the middle, where decompression breaks off, and in the checksum at the end."""
    values = np.random.default_rng(0).integers(0, 4000, (40, 40, 6)).astype("int16")
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    content = bytearray((tmp_path / "a.nii.gz").read_bytes())
    start = int(place * len(content)) if place > 0 else len(content) + place
    content[start : start + 40] = bytes(len(content[start : start + 40]))
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(ValueError, match="a.nii.gz: cannot be read: "):
        volumes.read_nifti(tmp_path / "a.nii.gz")
