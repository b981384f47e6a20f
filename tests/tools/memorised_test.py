"""What the copies of a generator are told by: quickly of its parts, and slowly of two runs."""

import numpy as np
import pytest

from tools import memorised
from zoo_datasets.mammo import phantom


def memory(copied, auc):
    rng = np.random.default_rng(0)
    pairs = [(rng.uniform(0, 1, (16, 16, 1)), rng.uniform(0, 1, (16, 16, 1))) for _ in range(40)]
    return memorised.Memory(20, copied, [auc, 0.4, 0.6], pairs)


def test_a_single_copy_or_a_telling_answer_fails_the_gate():
    assert memory(0.0, 0.55).passes
    assert not memory(1 / 64, 0.5).passes
    assert not memory(0.0, 0.56).passes


def test_the_picture_has_pairs_one_above_the_other():
    found = memory(0.5, 0.8)
    picture = memorised.shown(found)
    rows, columns = picture.shape
    assert picture.dtype == np.uint8 and rows < columns
    side = 16 * memorised.LARGER
    first = picture[:side, :side][:: memorised.LARGER, :: memorised.LARGER]
    below = picture[-side:, :side][:: memorised.LARGER, :: memorised.LARGER]
    for shown, image in zip((first, below), found.pairs[0], strict=True):
        assert np.corrcoef(shown.ravel(), image.ravel())[0, 1] > 0.999


def test_images_are_means_of_the_simulation():
    (image,) = memorised.images(7, 1)
    fine = phantom.example(7, 2024, 64)["image"]
    assert image.shape == (16, 16, 1)
    assert image[3, 5, 0] == pytest.approx(fine[12:16, 20:24].mean(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "passes"), [(memorised.FEW, False), (memorised.MANY, True)])
def test_a_run_on_20_images_fails_and_the_same_on_many_passes(count, passes, tmp_path):
    """Some five minutes each."""
    found = memorised.remembered(tmp_path, count)
    assert found.passes == passes
    assert (found.copied > 0.1) != passes and (found.auc[1] > 0.55) != passes
