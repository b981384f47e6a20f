"""Every model by its name, from training to export; and what no model may be given."""

import json
from pathlib import Path

import keras
import nibabel
import numpy as np
import pydicom
import pytest
import tensorflow as tf

import harness
import zoo
from runs import RUNS
from zoo import command_line
from zoo.training import train


def cli(*arguments: str) -> int:
    return command_line.main(["cli.py", *arguments])


def images_for(model, folder: Path) -> tuple[Path, int]:
    """A file that the model takes, and how many times as many pixels a side it gives back."""
    folder.mkdir()
    if model.source.unit == "k-space":
        n = model.network.input_shape[1] or 32
        kspace = np.random.default_rng(0).normal(size=[2, n, n, 2]).view(np.complex128)[..., 0]
        np.save(folder / "kspace.npy", kspace.astype("complex64"))
        return folder / "kspace.npy", 1
    if model.source.measured:
        sides = model.network.input_shape[1:3]
        np.save(folder / "scan.npy", np.random.default_rng(0).uniform(size=sides))
        return folder / "scan.npy", 1
    if model.source.modality == "CT":
        scan = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
        scan.save_as(folder / "slice.dcm")
        return folder / "slice.dcm", model.scale
    values = np.random.default_rng(0).uniform(*model.source.window, (40, 36, 2))
    nibabel.save(
        nibabel.Nifti1Image(values.astype("float32"), np.diag([2.0, 2.0, 3.0, 1.0])),
        folder / "scan.nii",
    )
    return folder / "scan.nii", model.scale


def pixels(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".dcm":
        return pydicom.dcmread(path).pixel_array
    return nibabel.load(path).get_fdata()


@pytest.mark.parametrize("name", zoo.names())
def test_trains_measures_translates_and_exports(name, tmp_path, data_dir, capsys, monkeypatch):
    if name not in ("automap", "dcgan", "pix2pix"):  # a measurement, a sample and an image
        harness.export_in_this_process(monkeypatch)
    dataset, *fields = RUNS[name]
    run = [f"--model={name}", f"--dataset={dataset}", f"--workdir={tmp_path / 'run'}"]
    run += [f"--data_dir={data_dir}"]
    fields = [f"--set={field}" for field in fields]
    steps = 4 if name == "srgan" else 3
    assert cli("train", *run, *fields, f"--steps={steps}") == 0, capsys.readouterr().err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["state"] == "done" and record["step"] == steps
    assert record["dataset"] == dataset
    assert list((tmp_path / "run" / "samples").glob("*.png"))

    assert cli("evaluate", *run, "--limit=3") == 0, capsys.readouterr().err
    metrics = json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text())
    assert metrics["images"] == 3
    assert "<html" in (tmp_path / "run" / "evaluation" / "report.html").read_text()

    model = zoo.load(str(tmp_path / "run"))
    trained, output = f"--model={tmp_path / 'run'}", tmp_path / "out"
    if metrics["kind"] == "generation":
        assert cli("generate", trained, f"--output={output}", "--count=3") == 0
        written = json.loads((output / "images.json").read_text())
        assert len(written["files"]) == 3 and written["unit"] == model.target.unit
    else:
        given, scale = images_for(model, tmp_path / "in")
        code = cli("predict", trained, f"--input={given}", f"--output={output}")
        assert code == 0, capsys.readouterr().err
        source, result = pixels(given), pixels(output / given.name)
        sides = slice(-2, None) if given.suffix != ".nii" else slice(0, 2)
        wanted = tuple(scale * side for side in source.shape[sides])
        if model.source.words == "sinograms":
            wanted = model.network.output_shape[1:3]
        assert result.shape[sides] == wanted
        assert np.isfinite(result.astype("float64")).all()

    assert cli("export", trained, f"--output={tmp_path / 'served'}") == 0, capsys.readouterr().err
    contract = tmp_path / "served" / "1" / "assets.extra" / "intensity.json"
    contract = json.loads(contract.read_text())
    assert contract["model"] == name
    assert contract["target"]["unit"] == model.target.unit


UNROUNDED = [(name, RUNS[name][1:]) for name in zoo.names() if name not in ("automap", "srcnn")]
_UNFIT = ("conditional=true", "crop=32")  # one needs the names of classes, unit larger crops
UNROUNDED = [(name, [f for f in fields if f not in _UNFIT]) for name, fields in UNROUNDED]
UNROUNDED += [
    ("automap", ["n=16", "filters=4", "base_filters=4", "levels=2", f"variant={variant}"])
    for variant in ("automap", "dautomap", "encoder_decoder", "pix2pix")
]
UNROUNDED += [
    ("srcnn", ["deviation=0.05"]),  # the paper's 0.001 would leave all values at one number
    ("pix2pix", ["levels=3", "base_filters=4", "refine=4"]),
    ("srgan", ["crop=32", "base_filters=4", "blocks=1", "spectral_norm=true"]),
    ("dcgan", ["base_filters=4", "spectral_norm=true"]),
]


@pytest.mark.parametrize(("name", "fields"), UNROUNDED)
def test_bfloat16_rounds_no_output(name, fields):
    overrides = zoo.registry.model_class(name).recipe_class.parse(fields)
    source = harness.MEASURED.get(name, harness.HU)
    model = harness.build(name, overrides | {"precision": "bfloat16"}, source)
    assert model.precision == "bfloat16"
    rng = np.random.default_rng(0)
    if model.generates:
        given = rng.standard_normal((8, model.recipe.latent), "float32")
    else:
        free = (64, 64) if model.tiles else (32, 32)
        known = getattr(model.network, "input_shape", (None, None, None, None))
        sides = [size or side for size, side in zip(known[1:-1], free, strict=True)]
        count = 1 if model.tiles else 16
        given = rng.uniform(-1, 1, (count, *sides, model.source.channels)).astype("float32")
    values = np.asarray(model.network(given))
    # Rounded to 8 bits, a third of these numbers would be left at most.
    assert values.dtype == np.float32 and np.unique(values).size > 0.8 * values.size
    judges = [part for part in model.layers if part.name.startswith("discriminator")]
    for judge in judges:
        sides = [side or 64 for side in judge.input_shape[1:-1]]
        images = rng.uniform(-1, 1, (4, *sides, judge.input_shape[-1])).astype("float32")
        for scores in tf.nest.flatten(judge(images)):
            rounded = keras.ops.cast(keras.ops.cast(scores, "bfloat16"), "float32")
            assert np.mean(scores == rounded) < 0.3


REFUSED = [
    # model, data set, fields, what the message names
    ("dcgan", "ldct/phantom_tiny", [], "trains on single images.*what suits dcgan: .*mammo"),
    ("pggan", "ldct/phantom_tiny", [], "trains on single images, and these are paired"),
    ("pix2pix", "mammo/phantom_tiny", [], "trains on paired.*what suits mammo.*: dcgan, pggan"),
    ("cyclegan", "mammo/phantom_tiny", [], "trains on unpaired.*what suits cyclegan: cbct_ct"),
    ("pix2pix", "ldct/phantom_tiny", ["crop=40"], "multiples of 32; set crop.*Received: 40"),
    ("encoder_decoder", "ldct/phantom_tiny", ["crop=0", "levels=8"], "multiples of 128"),
    ("srgan", "sr/phantom_tiny", ["dimensions=3"], "images of 3 axes, and these have 2"),
    ("srgan", "sr/phantom_3d_tiny", ["dimensions=2"], "images of 2 axes, and these have 3"),
    ("srcnn", "ldct/phantom_tiny", [], "makes images 2 times as large.*what suits srcnn: .*sr"),
    ("pix2pix", "sr/phantom_tiny", [], "super-resolution.*suits sr/phantom_tiny: srcnn, srgan"),
    ("srgan", "sr/phantom_tiny", ["scale=16"], "scale: "),
    ("encoder_decoder", "mri_recon/phantom_tiny", [], "takes images, and the sources are k-space"),
    ("cyclegan", "brain_seg/phantom_tiny", [], "learns intensities, and the targets are classes"),
    ("cyclegan", "cbct_ct/phantom_tiny", ["lambda_shape=1"], "needs source_label"),
    ("dcgan", "mammo/phantom_tiny", ["conditional=true"], "needs label"),
    ("automap", "ldct/phantom", [], "automap takes k-space or sinograms, and.* images"),
    ("automap", "mri_recon/phantom_128", ["n=256"], "n: "),
    ("automap", "mri_recon/phantom_128", ["variant=automap", "max_gigabytes=5"], "variant=dau"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "dataset", "fields", "message"), REFUSED)
def test_what_does_not_go_together_is_refused_before_any_work(
    model, dataset, fields, message, tmp_path
):
    with pytest.raises(ValueError, match=message):
        entry = zoo.lookup(model, dataset, "small", assignments=fields)
        train(entry, tmp_path / "run", data_dir=tmp_path / "data")
    assert not list(tmp_path.iterdir())  # no data were made, no run begun
