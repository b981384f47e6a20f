import json

import numpy as np
import pytest

from measured import Double, Page, evaluated, image
from zoo.domain import Domain


class Generator(Double):
    source = Domain()

    def __init__(self, copies=()):
        self.copies = list(copies)

    def generate(self, n, seed=0):
        fresh = [image(9, seed, i) for i in range(n - len(self.copies))]
        return np.stack(self.copies + fresh)


def _singles(n, seed):
    return [{"image": image(seed, i), "patient": f"p{i}", "name": f"image {i}"} for i in range(n)]


def test_generation_finds_copies(tmp_path):
    training = _singles(60, seed=5)
    # One is upside down and of another contrast, which its pixels would not tell.
    other = 0.9 * training[40]["image"][::-1]
    model = Generator(copies=[training[11]["image"], other])
    results = evaluated(model, iter(_singles(24, seed=6)), tmp_path, training_images=training)
    assert results["kind"] == "generation" and results["images"] == 24
    found = results["memorisation"]
    assert found["flagged"] == 2 and found["training_images"] == 60
    assert 0.5 < found["planted_copies_found"] < 1  # smooth images have little to tell them apart
    assert [image["copy"] for image in found["per_image"]] == [True, True] + [False] * 22
    assert set(results["sliced_wasserstein"]) == {"images", "generated", "training"}
    page = Page(tmp_path / "report.html")
    assert len(page.images) == 3 + 6 * 2
    assert "2 of 24 generated images are suspiciously close" in page.text
    assert json.loads((tmp_path / "metrics.json").read_text()) == results


def test_generation_without_training_images(tmp_path):
    results = evaluated(Generator(), _singles(8, seed=6), tmp_path, limit=5)
    assert results["memorisation"] is None and results["images"] == 5
    text = Page(tmp_path / "report.html").text
    assert "Not checked" in text and "at most 5 asked for" in text


def test_a_generator_s_faults_are_named(tmp_path):
    class Broken(Generator):
        def generate(self, n, seed=0):
            return super().generate(n, seed) * np.inf

    class Fewer(Generator):
        def generate(self, n, seed=0):
            return super().generate(n - 1, seed)

    shorter = [*_singles(1, 0), {"image": image(1)[1:], "name": "short"}]
    for model, examples, message in (
        (Broken(), _singles(3, 0), "model: .*generated image 0"),
        (Fewer(), _singles(3, 0), r"model: .*\(3, 32, 32, 1\).*Received: \(2, 32, 32, 1\)"),
        (Generator(), shorter, r"images of one shape.*Received: \(31, 32, 1\) in 'short'"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluated(model, examples, tmp_path / "e")
    assert not (tmp_path / "e").exists()
