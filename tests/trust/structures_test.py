"""The alarm `dice`: of a segmentation that is given with what an output shows of it."""

import json
import types

import nibabel
import numpy as np
import pytest
from scipy import ndimage

import harness
from harness import HU
from tools import battery
from zoo import command_line, run
from zoo.imaging.files import open_volume
from zoo.trust import alarms, structures
from zoo.trust.limits import Limits, Usual

DENOISER = types.SimpleNamespace(
    source=HU, target=HU, scale=1, residual=True, dimensions=2, classes=0, weights_hash="a" * 64
)


def disc(side=64, row=30, column=34, radius=9.0):
    """int32 labels of a disc: 3 inside, else 0."""
    rows, columns = np.mgrid[:side, :side]
    return np.where(np.hypot(rows - row, columns - column) <= radius, 3, 0).astype("int32")


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_dice_of_a_disc_that_is_there_moved_blurred_or_gone():
    labels, rng = disc(), np.random.default_rng(0)
    inside = labels == 3
    noise = rng.normal(0, 10, labels.shape)
    assert structures.dice(labels, 100.0 * inside) == 1
    assert structures.dice(labels, -100.0 * inside + noise) > 0.99
    # Moved, it is looked for where it was given and in the rim about it.
    moved = np.roll(inside, 3, axis=1)
    near = ndimage.distance_transform_edt(~inside) <= np.sqrt(inside.sum() / np.pi) / 2
    expected = dice(moved & near, inside)
    assert expected < 0.85
    assert structures.dice(labels, 100.0 * moved) == pytest.approx(expected)
    # Gone, what is nearer to either is chance.
    assert structures.dice(labels, noise) < 0.6
    assert structures.dice(labels, np.zeros(labels.shape)) == 0


def test_dice_is_of_the_worst_structure_over_one_field_of_view():
    labels = disc(32, 8, 8, 4.0) + 2 * (disc(32, 22, 22, 4.0) > 0)
    image = np.kron(100.0 * (labels == 3), np.ones((2, 2)))
    assert set(np.unique(labels)) == {0, 2, 3}
    assert structures.dice(np.where(labels == 3, 3, 0), image) == 1
    assert structures.dice(labels, image) == 0  # the other one is not there
    # What is too small, or without a rim, tells nothing.
    assert structures.dice(disc(radius=1.0), np.zeros((64, 64))) is None
    assert structures.dice(np.ones((8, 8), int), np.zeros((8, 8))) is None


def patients(count, seed):
    """Input, output and labels of a disc, another one of each patient."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        labels = disc(64, *rng.uniform(24, 40, 2), rng.uniform(8, 11))
        image = ndimage.gaussian_filter(40.0 + 60 * (labels == 3), 0.7)
        given = image + rng.normal(0, 30, image.shape)
        made = image + rng.normal(0, 8, image.shape)
        yield given[..., None].astype("float32"), made[..., None].astype("float32"), labels


def test_planted_faults_raise_it_and_honest_outputs_do_not():
    usual = Usual()
    for number, (given, made, labels) in enumerate(patients(24, 1)):
        usual.add(f"{number}", alarms.figures(DENOISER, given, made, labels=labels)[0])
    limits = usual.limits(DENOISER, "own", "validation")
    assert limits.limits["dice"][0] > 0.7 and limits.limits["dice"][1] is None
    raised = {"none": [], "moved": [], "gone": []}
    for given, made, labels in patients(20, 2):
        gone = np.where(ndimage.binary_dilation(labels, iterations=4), 40.0, made[..., 0])
        outputs = {"none": made, "moved": np.roll(made, 4, axis=1), "gone": gone[..., None]}
        for name, output in outputs.items():
            found, _ = alarms.figures(DENOISER, given, output, labels=labels)
            raised[name].append({breach.alarm for breach in limits.breaches(found)})
    assert battery.share(raised["none"], "dice") <= 0.05
    assert battery.share(raised["moved"], "dice") >= 0.95
    assert battery.share(raised["gone"], "dice") >= 0.95


def test_label_maps_are_found_by_name_and_lie_as_the_image_does(tmp_path):
    rng = np.random.default_rng(3)
    values = rng.integers(0, 4, (6, 7, 8)).astype("uint8")
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])
    for name in ("in/testA/a.nii.gz", "in/testA/b.nii.gz", "labels/testA/a.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / name)
    np.save(tmp_path / "labels/a.npy", values)
    given = structures.Segmentations(tmp_path / "labels")
    for plane in ("axial", "coronal", "sagittal"):
        volume = open_volume(tmp_path / "in/testA/a.nii.gz").presented(plane)
        np.testing.assert_array_equal(given.of(volume, 2, plane), volume.read(2))
    other = open_volume(tmp_path / "in/testA/b.nii.gz")
    with pytest.raises(ValueError, match=r"a label map named as b.nii.gz. Received: none in"):
        given.of(other, 0, None)
    alone = structures.Segmentations(tmp_path / "labels/testA/a.nii")
    np.testing.assert_array_equal(alone.of(other, 5, None), other.read(5))
    # What cannot be one is named.
    np.save(tmp_path / "labels/b.npy", values[:4])
    with pytest.raises(ValueError, match=r"expected 8 x .* labels, as b.nii.gz has pixels. Recei"):
        structures.Segmentations(tmp_path / "labels").of(other, 0, None)
    np.save(tmp_path / "half.npy", np.full((8, 8), 0.5, "float32"))
    np.save(tmp_path / "image.npy", np.zeros((8, 8), "float32"))
    half = structures.Segmentations(tmp_path / "half.npy")
    with pytest.raises(ValueError, match=r"expected whole numbers in half.npy. Received: 0.5"):
        half.of(open_volume(tmp_path / "image.npy"), 0, None)
    with pytest.raises(FileNotFoundError, match="segmentation: expected a file or folder"):
        structures.Segmentations(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="segmentation: expected label maps in a folder"):
        structures.Segmentations(tmp_path / "empty")


def zoo(*arguments):
    return command_line.main(["zoo", *map(str, arguments)])


def test_calibrate_evaluate_and_predict_take_segmentations(tmp_path, data_dir, capsys):
    """Of a run on a user's pairs: the limit is found, and the figures are those of the files."""
    for split, first, count in (("train", 0, 2), ("val", 2, 3), ("test", 5, 2)):
        for folder in (f"in/{split}A", f"in/{split}B", f"labels/{split}A"):
            (tmp_path / folder).mkdir(parents=True)
        for number, (given, made, labels) in enumerate(patients(count, first)):
            np.save(tmp_path / f"in/{split}A/{split}{number}.npy", given[..., 0])
            np.save(tmp_path / f"in/{split}B/{split}{number}.npy", made[..., 0])
            np.save(tmp_path / f"labels/{split}A/{split}{number}.npy", labels)
    fields = {"levels": 2, "base_filters": 4, "tile": 64, "output": "auto"}
    model, folder = harness.build("encoder_decoder", fields), tmp_path / "run"
    sha256 = model.save_network(folder / "a.weights.h5")
    record = {"model": "encoder_decoder", "dataset": "folder", "state": "done"}
    record |= {"recipe": model.recipe.to_dict(), "source": HU.to_dict(), "target": HU.to_dict()}
    run.write(folder, record | {"weights": {"file": "a.weights.h5", "sha256": sha256}})
    labels = f"--segmentation={tmp_path / 'labels'}"
    options = [f"--model={folder}", f"--input={tmp_path / 'in'}", f"--data_dir={tmp_path / 'd'}"]
    assert zoo("calibrate", *options, labels, "--spread=none") == 0
    limits = Limits.from_dict(run.read(folder)["alarms"])
    assert limits.limits["dice"][0] is not None
    report = f"--report={tmp_path / 'report'}"
    assert zoo("evaluate", *options, labels, report, f"--output={tmp_path / 'e'}") == 0
    told = json.loads((tmp_path / "report/alarms.json").read_text())
    evaluated = sorted(each["figures"]["dice"]["median"] for each in told["series"])
    # The same of the files of the test split, one by one.
    files = [f"--model={folder}", f"--input={tmp_path / 'in/testA'}", f"--output={tmp_path / 'o'}"]
    assert zoo("predict", *files, labels, report) == 0
    told = json.loads((tmp_path / "report/alarms.json").read_text())
    for number, series in enumerate(told["series"]):
        made = np.load(tmp_path / f"o/test{number}.npy")
        truth = np.load(tmp_path / f"labels/testA/test{number}.npy")
        expected = structures.dice(truth, made)
        assert series["per_image"][0]["dice"] == pytest.approx(expected, abs=0.01)
    predicted = sorted(each["figures"]["dice"]["median"] for each in told["series"])
    assert predicted == pytest.approx(evaluated, abs=0.01)
    # What does not go together, or is not there.
    capsys.readouterr()
    assert zoo("predict", *files, labels, "--overwrite") == 2
    assert "segmentation: expected --report or --strict beside it" in capsys.readouterr().err
    (tmp_path / "labels/testA/test1.npy").unlink()
    assert zoo("predict", *files, labels, report, "--overwrite") == 1
    errors = capsys.readouterr().err
    assert "test1.npy: segmentation: expected a label map named as test1.npy" in errors
    others = [f"--model={folder}", "--dataset=ldct/phantom_tiny", f"--data_dir={data_dir}"]
    assert zoo("evaluate", *others, labels, report) == 1
    assert "segmentation: expected the data set folder" in capsys.readouterr().err


def test_a_model_of_volumes_takes_none():
    model = types.SimpleNamespace(dimensions=3)
    with pytest.raises(ValueError, match="segmentation: expected a model of slices"):
        structures.require(model)
