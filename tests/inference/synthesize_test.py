"""Data sets of generated images."""

import hashlib
import json
import types
from pathlib import Path

import numpy as np
import PIL.Image
import pydicom
import pytest
import tensorflow_datasets as tfds

import stand_in
from dicom_files import dciodvfy
from zoo.domain import Domain
from zoo.imaging import files
from zoo.imaging.dicom.provenance import made_here
from zoo.inference.synthesize import synthesize

CT = Domain(modality="CT", unit="HU", window=(-1000, 400), spacing=(0.7, 0.8))
LABELS = ("solid", "ground_glass")


class Generator(stand_in.Model):
    """Images of two classes, the second one darker; stops at `until`."""

    until = 10**9

    @property
    def recipe(self):
        return types.SimpleNamespace(class_names=LABELS)

    def generate(self, n, seed=0, first=0, label=None):
        if first + n > self.until:
            raise KeyboardInterrupt
        images = super().generate(n, seed, first)
        low = [(label or LABELS[k % 2]) == LABELS[1] for k in range(first, first + n)]
        return np.where(
            np.reshape(low, (-1, 1, 1, 1)), (images + self.target.window[0]) / 2, images
        )


def tree(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("format", ["png", "dicom", "tfds"])
def test_a_run_that_was_stopped_or_divided_ends_with_the_same_bytes(tmp_path, format):
    options = {"seed": 3, "format": format, "shard": 4, "progress": False}
    model = Generator(target=CT)
    assert synthesize(model, 10, tmp_path / "whole", **options) == 0
    # Stopped within the second shard, whose folder a killed process leaves as it is.
    stopped = Generator(target=CT)
    stopped.until = 5
    with pytest.raises(KeyboardInterrupt):
        synthesize(stopped, 10, tmp_path / "stopped", **options)
    assert not (tmp_path / "stopped/dataset_info.json").exists()
    left = tmp_path / "stopped/shards/00001.part"
    (left / "images").mkdir(parents=True, exist_ok=True)
    (left / "images/half").write_bytes(b"half")
    # A file of the first shard is lost, or damaged; the others are made by the second part.
    first = json.loads((tmp_path / "stopped/shards/00000.json").read_text())["files"]
    (tmp_path / "stopped" / min(first)).write_bytes(b"damaged")
    assert synthesize(model, 10, tmp_path / "stopped", **options, part=(2, 2)) == 2
    assert synthesize(model, 10, tmp_path / "stopped", **options, part=(1, 2)) == 0
    whole = tree(tmp_path / "whole")
    assert tree(tmp_path / "stopped") == whole
    for path in (tmp_path / "whole/shards").iterdir():
        for name, digest in json.loads(path.read_text())["files"].items():
            assert hashlib.sha256(whole.pop(name)).hexdigest() == digest
    rest = {"shards/00000.json", "shards/00001.json", "shards/00002.json", "synthetic.json"}
    described = {"dataset_info.json", "features.json", "metadata.json", "label.labels.txt"}
    assert set(whole) == rest | (described if format == "tfds" else set())


def test_png_says_where_it_is_from(tmp_path):
    synthesize(Generator(target=CT), 3, tmp_path, seed=1, progress=False)
    paths = sorted(tmp_path.rglob("*.png"), key=lambda path: path.name)
    assert [path.parts[-3] for path in paths] == ["solid", "ground_glass", "solid"]
    for number, path in enumerate(paths):
        with PIL.Image.open(path) as image:
            levels, text = np.asarray(image), image.text["Description"]
        wanted = Generator(target=CT).generate(1, 1, number)[0, ..., 0]
        np.testing.assert_allclose(-1000 + levels / 65535 * 1400, wanted, atol=0.011)
        for said in ("Synthetic", "cd" * 32, "seed 1", f"image {number} ", "-1000 to 400 HU"):
            assert said in text
        assert f"class {LABELS[number % 2]}" in text


def test_dicom_is_valid_marked_and_read_back(tmp_path):
    synthesize(Generator(target=CT), 2, tmp_path, label="solid", format="dicom", progress=False)
    assert {path.parts[-3] for path in tmp_path.rglob("*.dcm")} == {"solid"}
    found = files.find(tmp_path / "images")
    assert len(found.volumes) == 2 and not found.problems
    headers = []
    for number, volume in enumerate(sorted(found.volumes, key=lambda each: each.paths[0])):
        wanted = Generator(target=CT).generate(1, 0, number, "solid")[0, ..., 0]
        np.testing.assert_array_equal(np.squeeze(volume.read(0)), np.rint(wanted))
        assert (volume.unit, volume.spacing) == ("HU", (0.7, 0.8))
        header = pydicom.dcmread(volume.paths[0])
        assert (header.ConversionType, header.SyntheticData) == ("SYN", "YES")
        assert header.PatientID.startswith("SYNTHETIC") and made_here(header)
        for said in ("SYNTHETIC IMAGE", "cd" * 32, f"image {number} ", "seed 0", "class solid"):
            assert said in header.ImageComments
        # Synthetic Data is younger than the validator.
        assert all("(0x0008,0x001c)" in line for line in dciodvfy(volume.paths[0]))
        headers.append(header)
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert len({header[keyword].value for header in headers}) == 2


def test_tfds_reads_what_was_written(tmp_path):
    signal = Domain(modality="MR", unit="signal", window=(0, 800), channels=1)
    synthesize(Generator(target=signal), 5, tmp_path, format="tfds", shard=2, progress=False)
    builder = tfds.builder_from_directory(tmp_path)
    assert builder.info.splits["train"].shard_lengths == [2, 2, 1]
    assert builder.info.features["label"].names == list(LABELS)
    assert Domain.from_dict(builder.info.metadata["image"]) == signal
    records = sorted(tfds.as_numpy(builder.as_dataset("train")), key=lambda each: each["number"])
    for number, record in enumerate(records):
        wanted = Generator(target=signal).generate(1, 0, number)[0]
        np.testing.assert_allclose(record["image"], wanted, atol=0.051)  # steps of 0.1
        assert (record["number"], record["label"], record["seed"]) == (number, number % 2, 0)
        assert record["weights_sha256"].decode() == "cd" * 32
    assert len({record["patient"] for record in records}) == len(records) == 5


def test_another_set_is_not_mixed_in(tmp_path):
    model = Generator(target=CT)
    synthesize(model, 2, tmp_path / "set", progress=False)
    for change in ({"seed": 1}, {"format": "dicom"}, {"n": 3}, {"label": "solid"}, {"shard": 1}):
        arguments = {"n": 2, "output": tmp_path / "set"} | change
        with pytest.raises(ValueError, match="as it was begun. Received: "):
            synthesize(model, **arguments, progress=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.png").touch()
    for change in ({"n": 0}, {"shard": 0}, {"format": "jpg"}, {"label": "x"}, {"seed": -1}):
        with pytest.raises(ValueError, match="Received: "):
            synthesize(model, **({"n": 1, "output": tmp_path / "none"} | change))
    with pytest.raises(ValueError, match="new or empty folder"):
        synthesize(model, 1, tmp_path / "other")
    assert not (tmp_path / "none").exists()
