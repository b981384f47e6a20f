"""Where a region of an output comes from: of known filters, and on the command line."""

import json
import types

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import harness
from harness import HU
from zoo import command_line, run
from zoo.trust.explain import Region, explain, fill


class Known:
    """A model that is a function of images."""

    source = target = HU
    scale, dimensions, classes, name = 1, 2, 0, "known"

    def __init__(self, function):
        self.function = function

    def __call__(self, images, training=False):
        return self.function(images)


@pytest.fixture(scope="module")
def lesion():
    """A disc of 100 HU in noise, 48 x 56 pixels, and its region."""
    region = Region(20, 24, 4)
    image = np.random.default_rng(0).normal(0, 5, (48, 56, 1)) + 40
    image[region.inside((48, 56))] += 100
    return image.astype("float32"), region


def averaged(images):
    return tf.nn.avg_pool2d(images, 3, 1, "SAME")


def test_a_local_filter_has_all_its_influence_inside_its_reach(lesion):
    image, region = lesion
    found = explain(Known(averaged), image, region)
    away = region.away((48, 56))
    assert found.influence[away > region.radius + np.sqrt(2) + 1e-6].max() == 0
    assert found.influence.sum() == pytest.approx(1, rel=1e-5)
    assert 0.8 < found.share < 1 and found.reach <= 5
    # The lesion is the input's: without it there is none.
    assert found.contrast > 75 and abs(found.contrast_without) < 5
    whole = explain(Known(tf.identity), image, region)
    assert whole.share == pytest.approx(1) and whole.contrast == pytest.approx(100, abs=4)
    assert found.words("HU").startswith("8") or found.words("HU").startswith("9")


def test_a_model_that_copies_from_elsewhere_has_none_there(lesion):
    image, region = lesion
    found = explain(Known(lambda x: tf.roll(x, 25, axis=2)), image, Region(20, 49, 4))
    assert found.share == 0 and found.reach > 20
    assert found.influence[20, 24] > 0 and found.contrast > 75
    # What the model draws there by itself stays, whatever the input's region holds.
    assert found.contrast_without == found.contrast
    learned = np.zeros((1, 48, 56, 1), "float32")
    learned[0, region.inside((48, 56))] = 60
    invented = explain(Known(lambda x: averaged(x) * 0 + learned), image, region)
    assert invented.share == 0 and invented.contrast_without == pytest.approx(60)


def test_the_influence_is_how_much_a_pixel_moves_the_mean(lesion):
    image, region = lesion
    weights = np.random.default_rng(1).normal(0, 1, (5, 5, 1, 1)).astype("float32")
    model = Known(lambda x: tf.nn.conv2d(x, weights, 1, "SAME"))
    found = explain(model, image, region)
    mask = region.inside((48, 56))
    for pixel in ((20, 24), (17, 27), (26, 24), (40, 40)):
        moved = image.copy()
        moved[pixel] += 8
        mean = [model(each[None])[0, ..., 0].numpy()[mask].mean() for each in (moved, image)]
        change = (mean[0] - mean[1]) / 8
        assert found.influence[pixel] == pytest.approx(abs(change), abs=1e-3)
    # Twice as fine an output: the region and its mean are of twice the pixels.
    finer = Known(lambda x: tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2))
    finer.scale = 2
    assert explain(finer, image, region).share > 0.9


def test_a_filled_region_goes_on_as_its_surroundings():
    rows, columns = np.mgrid[:40, :40]
    slope = (3.0 * rows - 2.0 * columns).astype("float32")
    spoilt = slope.copy()
    region = Region(18, 20, 6)
    spoilt[region.inside((40, 40))] = 1000
    np.testing.assert_allclose(fill(spoilt, region), slope, atol=2.5)
    outside = ~region.inside((40, 40))
    np.testing.assert_array_equal(fill(spoilt, region)[outside], spoilt[outside])
    assert abs(fill(spoilt, Region(0, 0, 3))[0, 0] - slope[0, 0]) < 12


def test_what_is_wrong_is_said(lesion):
    image, _ = lesion
    for region in (Region(48, 0, 2), Region(0, 56, 2), Region(20, 20, 90)):
        with pytest.raises(ValueError, match="expected a row below 48, a column below 56"):
            explain(Known(averaged), image, region)
    with pytest.raises(ValueError, match="makes images of single images. Received: known"):
        explain(types.SimpleNamespace(source=HU, classes=3, dimensions=2, name="known"), image, 0)


def test_the_command_writes_it_beside_the_output(tmp_path, capsys, lesion):
    model = harness.build("encoder_decoder", {"levels": 2, "base_filters": 4, "tile": 64})
    sha256 = model.save_network(tmp_path / "run" / "a.weights.h5")
    record = {"model": "encoder_decoder", "state": "done", "recipe": model.recipe.to_dict()}
    record |= {"source": HU.to_dict(), "target": HU.to_dict()}
    run.write(tmp_path / "run", record | {"weights": {"file": "a.weights.h5", "sha256": sha256}})
    np.save(tmp_path / "a.npy", lesion[0][..., 0])
    np.save(tmp_path / "b.npy", np.zeros((2, 20, 20), "float32"))

    def zoo(name, *more):
        paths = [f"--input={tmp_path / name}", f"--output={tmp_path / 'out' / name}", *more]
        return command_line.main(["zoo", "predict", f"--model={tmp_path / 'run'}", *paths])

    assert zoo("a.npy", "--explain=20,24,4") == 0
    assert "of the influence lies in the region" in capsys.readouterr().out
    told = json.loads((tmp_path / "out" / "a_explained.json").read_text())
    expected = explain(model, lesion[0], lesion[1])
    assert told["pixels_of_network"] == pytest.approx(expected.to_dict(), rel=1e-3)
    assert told["asked"] == {"row": 20, "column": 24, "radius": 4}
    assert PIL.Image.open(tmp_path / "out" / "a_explained.png").width > 4 * 200
    # One image, and three numbers.
    assert zoo("b.npy", "--explain=5,5") == 1
    assert "explain: expected one image, such as a file. Received: 2" in capsys.readouterr().err
    assert zoo("a.npy", "--explain=5") == 2
    assert "expected ROW,COLUMN or ROW,COLUMN,RADIUS" in capsys.readouterr().err
