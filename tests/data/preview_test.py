"""`describe` and `preview` of data sets, and `prepare`'s flags, as a user runs them."""

import json
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import dummy_data
from tools import dataset_table
from zoo import command_line, registry
from zoo.data import batches, prepare, preview
from zoo.recipe import Recipe
from zoo_datasets import cases, features
from zoo_datasets.publishers import idc


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def run(*arguments):
    return command_line.main(["zoo", *map(str, arguments)])


# describe


def test_describe_tells_what_a_user_must_know(data_dir, capsys):
    assert run("describe", "ldct", f"--data_dir={data_dir}") == 0
    text = capsys.readouterr().out
    for expected in (
        "quarter-dose and normal-dose CT, in HU",
        "ldct/phantom 1.0.0, the default",
        "Simulated chest and abdomen, 256 x 256 at 1.4 mm; no download.",
        "[256, 256, 1] int16, CT, HU from -1024 to 1500, 1.4 x 1.4 mm",
        "[?, ?, 1] int16, CT, HU from -1024 to 1500, spacing varies",
        "train 44, validation 6, test 10 patients; not built yet",
        "patient, name, spacing",
        "Apache-2.0",
        "CC BY 4.0",
        "https://doi.org/10.7937/9NPB-2637",
        "Full Dose Images-<n>/*.dcm",
        f"{data_dir}/downloads/manual/ldct/tcia",
        "python cli.py prepare --dataset=ldct/cptac_sar --fetch",
        "@article{moen2021ldct",
        "Low-dose CT restoration",
    ):
        assert expected in text, expected
    assert run("describe", "--dataset=ldct/tcia", f"--data_dir={data_dir}") == 0
    one = capsys.readouterr().out
    assert "ldct/tcia 2.0.0" in one and "ldct/phantom 1.0.0" not in one


@pytest.mark.parametrize("name", sorted(registry.index()["datasets"]))
def test_every_data_set_is_described(name, data_dir, capsys):
    assert run("describe", name, "--json", f"--data_dir={data_dir}") == 0
    described = json.loads(capsys.readouterr().out)
    assert described["summary"] and described["documentation"] and described["models"]
    fields = registry.index()["datasets"][name]
    if name == "folder":
        return
    assert [c["name"] for c in described["configs"]] == [f"{name}/{c}" for c in fields["configs"]]
    assert [c["default"] for c in described["configs"]].count(True) == 1
    for config in described["configs"]:
        assert config["description"] and "\n" not in config["description"]
        assert config["images"] and config["licence"], config["name"]
        if "manual" in config:
            assert "http" in config["manual"]
            assert config["idc"] is None or config["idc"] in idc.SELECTIONS
    assert described["citation"].startswith("@")


def test_describe_of_what_is_not_there(capsys):
    assert run("describe", "ldtc") == 2
    assert "Did you mean ldct" in capsys.readouterr().err
    assert run("describe", "ldct/tica") == 2
    assert "tcia" in capsys.readouterr().err


# preview


def test_preview_writes_a_grid_and_describe_then_counts(data_dir, tmp_path, capsys):
    grid = tmp_path / "grid.png"
    flags = ["--dataset=ldct/phantom_tiny", f"--data_dir={data_dir}"]
    assert run("preview", *flags, f"--output={grid}") == 0
    assert "Wrote 4 examples of ldct/phantom_tiny/1.0.0" in capsys.readouterr().out
    with Image.open(grid) as image:
        assert image.format == "PNG" and image.width > 500 and image.height > 900
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
    assert run("describe", *flags) == 0
    assert "train 24, validation 8, test 8 images, in" in capsys.readouterr().out


def test_preview_refuses_what_it_cannot_do(data_dir, tmp_path, capsys):
    assert run("preview", "--dataset=ldct/phantom_tiny") == 2
    assert "needs --output" in capsys.readouterr().err
    assert run("preview", "--dataset=ldct/phantom_tiny", f"--output={tmp_path}/grid.jpg") == 2
    assert "ends in .png. Received:" in capsys.readouterr().err
    assert run("preview", "--dataset=ldct/tcia", f"--output={tmp_path}/a.png",
               f"--data_dir={data_dir}") == 1  # fmt: skip
    assert "cancerimagingarchive.net" in capsys.readouterr().err


FEATURES = {
    "kspace": ((6, 8, 4), np.float32, features.domain("MR", "k-space", (-9, 9), None, 4)),
    "sinogram": ((4, 9, 1), np.float32, features.domain("CT", "line integral", (0, 8), None)),
    "volume": ((5, 6, 7, 1), np.int16, features.domain("CT", "HU", (-1000, 1000), None)),
    "classes": ((6, 8, 1), np.uint8, features.domain("SEG", "class", (0, 2), (2.0, 2.0))),
    "slices": ((6, 8, 3), np.uint16, features.domain("MR", "signal", (0, 4000), (1.5, 2.5), 3)),
}


def panel(key, **changes):
    shape, dtype, domain = FEATURES[key]
    image = (np.arange(np.prod(shape)) % 3).reshape(shape).astype(dtype)
    example = {"image": image, "name": b"P1-0"} | changes
    return image, preview._panel(example, "image", {"image": domain}, ["air", "a", "b"], None)


def test_panels_of_every_kind():
    image, drawn = panel("kspace")
    assert drawn["axes"] == ("kx", "ky") and drawn["unit"] == "log10 of |k-space|"
    power = np.hypot.reduce(image, axis=-1)
    np.testing.assert_allclose(drawn["pixels"], np.log10(power + 1e-3), atol=1e-5)

    _, drawn = panel("sinogram")
    assert drawn["axes"] == ("detector", "view") and drawn["window"] == (0, 8)

    image, drawn = panel("volume", spacing=np.array([2.0, 0.5, 0.25], np.float32))
    np.testing.assert_array_equal(drawn["pixels"], image[2, ..., 0])
    assert drawn["name"] == "P1-0, slice 2 of 5" and drawn["unit"] == "HU, soft tissue"
    assert drawn["window"] == (-160, 240)
    assert drawn["extent"] == (0, 7 * 0.25, 6 * 0.5, 0) and drawn["axes"][0] == "x in mm"

    image, drawn = panel("classes", label=np.int64(1))
    assert drawn["legend"] == ["air", "a", "b"] and drawn["pixels"].shape == (6, 8, 3)
    assert (drawn["pixels"][image[..., 0] == 0] == 0).all()
    assert drawn["name"] == "P1-0, class 1"

    image, drawn = panel("slices")
    np.testing.assert_array_equal(drawn["pixels"], image[..., 1])
    assert drawn["extent"] == (0, 8 * 2.5, 6 * 1.5, 0)

    assert panel("volume", image=np.zeros((0, 6, 7, 1)))[1] == {}  # the other side, unpaired


class Mixed(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One image of every kind in each example."""

    name = "mixed"
    pkg_dir_path = None
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        images = {k: features.image_feature(shape, t) for k, (shape, t, _) in FEATURES.items()}
        text = {"patient": tfds.features.Text(), "name": tfds.features.Text()}
        domains = {key: domain for key, (_, _, domain) in FEATURES.items()}
        metadata = {"kind": "paired", "label_names": ["air", "a", "b"], **domains}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(images | text),
            metadata=tfds.core.MetadataDict(metadata),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(6):
            images = {k: np.full(shape, i % 3, t) for k, (shape, t, _) in FEATURES.items()}
            yield i, images | {"patient": f"P{i // 3}", "name": f"{i}"}


def test_a_grid_of_every_kind(tmp_path):
    builder = Mixed(data_dir=tmp_path)
    builder.download_and_prepare()
    assert preview.save(builder, tmp_path / "grid.png") == 4
    with Image.open(tmp_path / "grid.png") as image:
        assert image.width > 5 * 300
    first = preview._examples(builder, 2)
    assert {e["patient"] for e in first} == {b"P0", b"P1"}  # not two of one patient


# prepare


@pytest.fixture
def files(tmp_path):
    dummy_data.ldct_tcia(tmp_path / "files")
    return tmp_path / "files"


def test_prepare_from_a_manual_directory_on_beam(files, tmp_path, capsys):
    flags = ["prepare", "--dataset=ldct/tcia"]
    assert run(*flags, f"--data_dir={tmp_path}/a", f"--manual_dir={files}") == 0
    assert "ldct/tcia/2.0.0: train 15" in capsys.readouterr().out
    beam = "--beam_options=--runner=DirectRunner --direct_num_workers=1"
    assert run(*flags, f"--data_dir={tmp_path}/b", f"--manual_dir={files}", beam) == 0
    recipe = Recipe.preset("paper")
    built = [prepare.load_builder("ldct/tcia", tmp_path / name, recipe) for name in "ab"]
    for split in cases.SPLITS:
        plain, on_beam = (list(batches.eval_dataset(builder, split)) for builder in built)
        assert len(plain) == len(on_beam) > 0
        for one, other in zip(plain, on_beam, strict=True):
            assert one["name"] == other["name"]
            np.testing.assert_array_equal(one["source"], other["source"])


def test_files_are_looked_for_in_the_config_s_own_folder(files, tmp_path, capsys):
    builder = prepare.load_builder("ldct/tcia", tmp_path, Recipe.preset("paper"), prepare=False)
    common = tmp_path / "downloads" / "manual"
    assert prepare.manual_dir(builder) == common / "ldct" / "tcia"
    (common / "mammo" / "cbis_ddsm").mkdir(parents=True)
    assert prepare.manual_dir(builder) == common / "ldct" / "tcia"
    (common / "L067").mkdir()  # as TFDS alone has it
    assert prepare.manual_dir(builder) == common
    assert run("prepare", "--dataset=ldct/tcia", f"--data_dir={tmp_path}") == 1
    message = capsys.readouterr().err
    assert f"manual directory {common}: expected" in message and "NBIA Data Retriever" in message
    (common / "ldct").mkdir()
    (files / "LDCT-and-Projection-data").rename(files / "inside")
    files.rename(common / "ldct" / "tcia")
    assert prepare.manual_dir(builder) == common / "ldct" / "tcia"
    assert run("prepare", "--dataset=ldct/tcia", f"--data_dir={tmp_path}") == 0


def test_bad_files_are_told(files, tmp_path, capsys, monkeypatch):
    from zoo_datasets.ldct.ldct_dataset_builder import Builder

    monkeypatch.setattr(Builder.builder_configs["tcia"], "bad_limit", 0.5)
    victim = sorted(files.rglob("L006/**/*.dcm"))[2]
    victim.write_bytes(victim.read_bytes()[:900])
    flags = ["--dataset=ldct/tcia", f"--data_dir={tmp_path}", f"--manual_dir={files}"]
    assert run("prepare", *flags) == 0
    assert "1 could not be read and were left out" in capsys.readouterr().err


def test_fetch_says_what_it_cannot_do(tmp_path, capsys, monkeypatch):
    assert run("prepare", "--dataset=ldct/phantom_tiny", "--fetch", f"--data_dir={tmp_path}") == 2
    assert "fetch: expected a data set of the Imaging Data Commons" in capsys.readouterr().err
    monkeypatch.setattr(idc, "HOST", "nowhere.invalid")
    flags = ["--dataset=ldct/cptac_sar", "--fetch", f"--data_dir={tmp_path}"]
    assert run("prepare", *flags) == 1
    captured = capsys.readouterr()
    assert "network" in captured.err and "series" in captured.out
    assert not list(tmp_path.rglob("*.dcm"))


def test_fetch_then_prepare(tmp_path, capsys, monkeypatch):
    def download(name, manual):
        assert name == "ldct_and_projection_data"
        dummy_data.ldct_tcia(manual)

    monkeypatch.setattr(idc, "fetch", download)
    assert run("prepare", "--dataset=ldct/tcia", "--fetch", f"--data_dir={tmp_path}") == 0
    assert "ldct/tcia/2.0.0: train 15" in capsys.readouterr().out
    assert (tmp_path / "downloads" / "manual" / "ldct" / "tcia").is_dir()


def test_beam_options_without_beam(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam.options", None)
    flags = [f"--data_dir={tmp_path}", f"--manual_dir={files}", "--beam_options=--runner=X"]
    assert run("prepare", "--dataset=ldct/tcia", *flags) == 1
    assert "pip install 'zoo-medical[beam]'" in capsys.readouterr().err


def test_the_docs_have_the_registry_s_table():
    table = dataset_table.dataset_table()
    for name in registry.index()["datasets"]:
        assert f"| `{name}` |" in table
    assert "| `ldct` | quarter-dose and normal-dose CT, in HU | `phantom`, " in table
    assert "| `varied_scans`, `tcia`, `cptac_sar` |" in table
    page = dataset_table.PAGE.read_text(encoding="utf-8")
    assert f"\n\n{table}\n\n" in page, "make table"
    assert dataset_table.with_table(page) == page
    with pytest.raises(ValueError, match="one table .* Received: 0"):
        dataset_table.with_table("no table")
