"""Generated images."""

import json

import numpy as np
import pytest
import skimage.io

from stand_in import Model
from zoo.domain import Domain
from zoo.inference import generate


def test_generated_images(tmp_path):
    model = Model(target=Domain(modality="CT", unit="HU", window=(-1000, 400)))
    paths = generate.generate(model, 5, tmp_path / "png", seed=3, batch_size=2)
    assert [path.name for path in paths[:2]] == ["image_00001.png", "image_00002.png"]
    assert len(list((tmp_path / "png").iterdir())) == len(paths) == 7
    arrays = generate.generate(model, 5, tmp_path / "npy", seed=3, batch_size=2, format="npy")
    note = json.loads((tmp_path / "png/images.json").read_text())
    assert (note["unit"], note["window"], note["seed"]) == ("HU", [-1000, 400], 3)
    assert (note["weights_sha256"], note["precision"]) == (model.weights_hash, "float32")
    images = []
    for png, npy in zip(paths[:5], arrays[:5], strict=True):
        levels = skimage.io.imread(png)
        assert levels.dtype == np.uint16
        images.append(np.load(npy)[..., 0])
        np.testing.assert_allclose(-1000 + levels / 65535 * 1400, images[-1], atol=0.011)
    assert len({image.tobytes() for image in images}) == 5
    assert skimage.io.imread(tmp_path / "png/contact_sheet.png").shape == (12, 15)
    with pytest.raises(FileExistsError):
        generate.generate(model, 1, tmp_path / "png")
    again = generate.generate(model, 5, tmp_path / "png", seed=3, batch_size=3, overwrite=True)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in paths]


@pytest.mark.parametrize("change", [{"n": 0}, {"format": "jpg"}, {"batch_size": 0}])
def test_generate_refuses_bad_arguments(tmp_path, change):
    arguments = {"n": 1, "output": tmp_path / "out"} | change
    with pytest.raises(ValueError, match="Received"):
        generate.generate(Model(), **arguments)
    assert not (tmp_path / "out").exists()
