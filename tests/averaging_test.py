"""Means over views of an image and over models."""

import json
import warnings
import weakref

import numpy as np
import pydicom
import pytest

import dicom_files
import zoo
from harness import HU
from zoo import averaging, command_line, guards, loading, registry, run, tiled
from zoo.averaging import Average, View
from zoo.domain import Domain
from zoo.imaging.files import open_volume
from zoo.inference import predict

FIELDS = {"precision": "float32", "levels": 2, "base_filters": 4, "tile": 64}


def built(seed=0, source=HU, target=HU, **fields):
    entry = registry.lookup("encoder_decoder", overrides=FIELDS | {"seed": seed} | fields)
    return loading.build(entry, source, target)


@pytest.fixture(scope="module")
def models():
    """Two that were trained with every mirror image and turn."""
    return [built(seed, flip=True, flip_up_down=True, turn=True) for seed in (0, 1)]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-900, 900, (2, 20, 26)).astype("float32")


def symmetries():
    """All eight of a square, as functions and their inverses, written out."""
    return [
        (lambda x: x, lambda x: x),
        (lambda x: x[..., ::-1], lambda x: x[..., ::-1]),
        (lambda x: x[..., ::-1, :], lambda x: x[..., ::-1, :]),
        (lambda x: x[..., ::-1, ::-1], lambda x: x[..., ::-1, ::-1]),
        (lambda x: np.swapaxes(x, -1, -2), lambda x: np.swapaxes(x, -1, -2)),
        (
            lambda x: np.swapaxes(x, -1, -2)[..., ::-1],
            lambda x: np.swapaxes(x[..., ::-1], -1, -2),
        ),
        (
            lambda x: np.swapaxes(x, -1, -2)[..., ::-1, :],
            lambda x: np.swapaxes(x[..., ::-1, :], -1, -2),
        ),
        (
            lambda x: np.swapaxes(x, -1, -2)[..., ::-1, ::-1],
            lambda x: np.swapaxes(x[..., ::-1, ::-1], -1, -2),
        ),
    ]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"flip": True}, [0, 1]),
        ({"flip_up_down": True}, [0, 2]),
        ({"flip": True, "flip_up_down": True}, [0, 1, 2, 3]),
        ({"turn": True}, [0, 3, 5, 6]),
        ({"flip": True, "turn": True}, range(8)),
    ],
)
def test_the_mean_is_over_what_training_had(fields, kept, images):
    """Against the mean that is written out here, in physical units."""
    model = built(**{"flip": False} | fields)
    expected = np.mean([symmetries()[k][1](model.translate(symmetries()[k][0](images)))
                        for k in kept], axis=0)  # fmt: skip
    average = Average([model], tta=True)
    np.testing.assert_allclose(average.translate(images, batch_size=2), expected, atol=0.02)
    assert average.note == f"test-time augmentation of {len(kept)}"
    # What a view does is undone, and no two are the same.
    seen = {view.of(images[..., None]).tobytes() for view in average.views[0]}
    assert len(seen) == len(kept)
    for view in average.views[0]:
        np.testing.assert_array_equal(view.back(view.of(images[..., None])), images[..., None])


def test_an_equivariant_answer_stays_and_each_rank_is_taken(models, images):
    average = Average(models[:1], tta=True)
    whole = average.translate(images)
    np.testing.assert_array_equal(average.translate(images[0]), whole[0])
    np.testing.assert_array_equal(average.translate(images[..., None])[..., 0], whole)
    assert average.translate(images[:0]).shape == images[:0].shape
    # The answer follows the image when that is mirrored or turned: of one model alone it does not.
    for there, _ in symmetries():
        np.testing.assert_allclose(average.translate(there(images)), there(whole), atol=0.02)
    mirrored = symmetries()[1][0]
    alone = models[0].translate(mirrored(images)) - mirrored(models[0].translate(images))
    assert abs(alone).max() > 1


def test_models_are_averaged_in_physical_units_and_with_views(models, images):
    narrow = built(2, target=Domain(modality="CT", unit="HU", window=(-200, 300)), turn=True)
    members = [models[0], narrow]
    expected = np.mean([member.translate(images) for member in members], axis=0)
    both = Average(members)
    np.testing.assert_allclose(both.translate(images), expected, atol=0.02)
    assert both.target == models[0].target and both.note == "mean of 2 models"
    assert both.weights_hash not in {member.weights_hash for member in members}
    # Each model counts alike, however many views it has.
    flips = built(3, flip=True)
    each = [Average([member], tta=True).translate(images) for member in (models[0], flips)]
    mixed = Average([models[0], flips], tta=True)
    np.testing.assert_allclose(mixed.translate(images), np.mean(each, axis=0), atol=0.02)
    assert mixed.note == "mean of 2 models, test-time augmentation of 2 or 8"
    # Tiles of a large image, too.
    large = np.random.default_rng(1).uniform(-900, 900, (150, 90)).astype("float32")
    expected = np.mean([member.translate(large) for member in models], axis=0)
    np.testing.assert_allclose(Average(models).translate(large), expected, atol=0.02)


def test_of_classes_the_probabilities_are_averaged(images):
    labels = Domain(modality="SEG", unit="class", window=(0, 2))
    members = [built(seed, target=labels, classes=3, flip=True) for seed in (0, 1, 2)]
    batch = images[..., None]
    shares = [member.probabilities(batch).numpy() for member in members]
    expected = np.mean(shares, axis=0).argmax(-1)
    average = Average(members)
    np.testing.assert_array_equal(average.translate(images), expected)
    assert average.classes == 3
    # Which the mean of the classes' numbers would not be.
    votes = np.mean([share.argmax(-1) for share in shares], axis=0)
    assert (np.rint(votes) != expected).any()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"target": Domain(modality="MR", unit="HU")}, "target modality: .*CT of .*MR of"),
        ({"source": Domain(modality="CT", unit="1")}, "source unit: .*HU of .* 1 of"),
        ({"source": Domain(modality="CT", unit="HU", plane="axial")}, "source plane: .*None of"),
        ({"spacing": 0.5}, "spacing: .*0.0 of .*0.5 of"),
    ],
)
def test_models_that_do_not_go_together_are_refused(other, message, models):
    with pytest.raises(ValueError, match=message):
        Average([models[0], built(**other)])


def test_what_has_no_mean_is_refused(models):
    with pytest.raises(ValueError, match="tta: .*trained with mirror images .*without any"):
        Average([built(flip=False)], tta=True)
    with pytest.raises(ValueError, match="two or more, or one with tta. Received: 1"):
        Average(models[:1])
    with pytest.raises(ValueError, match="that translate images. Received: dcgan"):
        Average([zoo.load("dcgan", base_filters=4, resolution=64)], tta=True)
    automap = zoo.load("automap_mri")
    with pytest.raises(ValueError, match="tta: expected a model of images.*takes k-space"):
        Average([automap], tta=True)


def test_quarter_turns_need_square_pixels(models):
    average = Average(models, tta=True)
    for spacing, count in (((0.7, 0.7), 8), (None, 8), ((0.7, 0.9), 4), ((3.0, 0.7, 0.7), 8)):
        assert [len(seen) for seen in average.for_spacing(spacing).views] == [count, count]
    oblong = Domain(modality="CT", unit="HU", window=(-1000, 1000), spacing=(1.0, 2.0))
    turned = Average([built(source=oblong, turn=True, flip=False)], tta=True)
    assert turned.views == [[View(), View(False, 2)]]


def test_one_answer_is_held_beside_the_mean(models, monkeypatch):
    """However many there are: answers are let go of before the next is made."""
    alive: list[weakref.ref] = []
    most = []

    class Kept(np.ndarray):
        pass

    def answered(model, images, batch_size):
        most.append(sum(each() is not None for each in alive))
        made = np.zeros(images.shape, np.float32).view(Kept)
        alive.append(weakref.ref(made))
        return made

    monkeypatch.setattr(tiled, "answered", answered)
    Average(models, tta=True).answers(np.zeros((1, 8, 8, 1), np.float32))
    assert len(most) == 16 and max(most) <= 1


def test_a_warning_is_given_once(images):
    model = zoo.load("encoder_decoder_ldct")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Average([model], tta=True).translate(images[0] * 0 + images[0] / 1e4)
    assert [each.category for each in caught] == [guards.UntrainedInput]
    assert caught[0].filename == __file__


@pytest.fixture(scope="module")
def runs(tmp_path_factory, models):
    """Folders of two runs that came to an end."""
    folders = []
    for number, model in enumerate(models):
        folder = tmp_path_factory.mktemp("runs") / f"run{number}"
        sha256 = model.save_network(folder / "a.weights.h5")
        record = {"model": "encoder_decoder", "dataset": "ldct/phantom_tiny", "state": "done"}
        record |= {"recipe": model.recipe.to_dict(), "source": model.source.to_dict()}
        record |= {"target": model.target.to_dict()}
        run.write(folder, record | {"weights": {"file": "a.weights.h5", "sha256": sha256}})
        folders.append(folder)
    return folders


def test_predict_takes_the_mean_and_headers_say_so(runs, models, tmp_path, capsys):
    folder = dicom_files.series(tmp_path / "in", 2)
    options = [f"--ensemble={runs[0]},{runs[1]}", "--tta", f"--input={folder}", "predict"]
    assert command_line.main(["zoo", f"--output={tmp_path / 'out'}", *options]) == 0
    printed = capsys.readouterr().out
    assert "Mean of 2 models, test-time augmentation of 8: each image as it is, turned" in printed
    written = sorted((tmp_path / "out").iterdir())
    header = pydicom.dcmread(written[0])
    note = "mean of 2 models, test-time augmentation of 8"
    assert note in header.DerivationDescription
    assert Average(models).weights_hash in header.DerivationDescription
    # The pixels are those of the mean.
    given, made = (open_volume(path).read(0) for path in (sorted(folder.iterdir())[0], written[0]))
    expected = Average(models, tta=True).translate(given)
    step = float(header.RescaleSlope)
    np.testing.assert_allclose(made, expected, atol=step / 2 + 0.02)
    # Of pixels that are not square there are no quarter turns.
    for path in folder.iterdir():
        changed = pydicom.dcmread(path)
        changed.PixelSpacing = [1.0, 2.0]
        changed.save_as(path)
    predict.translate(Average(models, tta=True), folder, tmp_path / "oblong", progress=False)
    header = pydicom.dcmread(sorted((tmp_path / "oblong").iterdir())[0])
    assert "mean of 2 models, test-time augmentation of 4" in header.DerivationDescription


def test_evaluate_measures_the_mean_and_keeps_it_apart(runs, models, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [f"--data_dir={tmp_path / 'data'}", "evaluate"]
    before = (runs[0] / "run.json").read_bytes()
    found = {}
    for name, flags in {
        "first": [f"--model={runs[0]}"],
        "both": [f"--ensemble={runs[0]},{runs[1]}"],
        "views": [f"--model={runs[0]}", "--tta"],
    }.items():
        assert command_line.main(["zoo", *flags, *options]) == 0
        printed = capsys.readouterr().out
        path = printed.splitlines()[-1].split()[1]
        found[name] = json.loads((tmp_path / path).read_text())
        if name == "first":  # a run keeps its own figures
            assert (runs[0] / "run.json").read_bytes() != before
            before = (runs[0] / "run.json").read_bytes()
    assert (runs[0] / "run.json").read_bytes() == before
    assert found["both"]["average"] == "mean of 2 models" and "average" not in found["first"]
    assert found["both"]["members"] == [model.weights_hash for model in models]
    assert found["both"]["model"] == "run0+run1"
    assert found["views"]["average"] == "test-time augmentation of 8"
    assert "test-time augmentation of 8" in printed
    assert (runs[0] / "evaluation-tta/report.html").read_text().count("augmentation of 8") == 1
    # These networks know nothing yet; the mean's errors are smaller all the same.
    errors = {name: results["summary"]["output"]["rmse"]["mean"] for name, results in found.items()}
    assert errors["views"] < errors["first"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ensemble=pix2pix_ldct", "predict"], "expected two names or more"),
        (["--ensemble=pix2pix_ldct,", "predict"], "expected two names or more"),
        (["--ensemble=pix2pix_ldct,pix2pix", "predict"], "pretrained models, or runs that"),
        (["--ensemble=a,b", "--model=pix2pix_ldct", "predict"], "in place of --model"),
        (["--ensemble=pix2pix_ldtc,pix2pix_ldct", "predict"], "Did you mean pix2pix_ldct"),
        (["--model=pix2pix_ldct", "--tta", "export"], "Received: --tta"),
        (["--ensemble=a,b", "generate"], "Received: --ensemble"),
    ],
)
def test_wrong_usage_exits_with_2(arguments, message, tmp_path, capsys):
    paths = [f"--output={tmp_path}"]
    paths += [f"--input={tmp_path}"] if "predict" in arguments else []
    assert command_line.main(["zoo", *arguments, *paths]) == 2
    assert message in capsys.readouterr().err


def test_views_are_those_of_the_recipe_alone():
    recipe = registry.lookup("encoder_decoder").recipe
    assert [view.words for view in averaging.views(recipe)] == [
        "as it is",
        "mirrored left to right",
    ]


def test_volumes_are_averaged_slab_by_slab_as_they_are_whole():
    fields = {"dimensions": 3, "base_filters": 2, "tile": (8, 16, 16), "flip": True, "turn": True}
    fields |= {"flip_slices": True}
    members = [built(seed, **fields) for seed in (0, 1)]
    volume = np.random.default_rng(2).uniform(-900, 900, (14, 20, 18, 1)).astype("float32")
    average = Average(members, tta=True)
    assert average.note == "mean of 2 models, test-time augmentation of 16"
    whole = average.translate(volume[..., 0])
    slices = list(average.translate_slices(lambda a, b: volume[a:b], volume.shape[:3]))
    np.testing.assert_allclose(np.stack(slices)[..., 0], whole, atol=0.02)
    mirrored = average.translate(volume[:, :, ::-1, 0])[..., ::-1]
    np.testing.assert_allclose(mirrored, whole, atol=0.02)
    backwards = average.translate(volume[::-1, ..., 0])[::-1]
    np.testing.assert_allclose(backwards, whole, atol=0.02)
    alone = members[0].translate(volume[::-1, ..., 0])[::-1]
    assert abs(alone - members[0].translate(volume[..., 0])).max() > 1
