import harness
import numpy as np
import pytest

from zoo.models.encoder_decoder import EncoderDecoderRecipe, encoder_decoder

TINY = {"base_filters": 4, "levels": 3, "crop": 32}


@pytest.mark.parametrize(("filters", "count"), [(64, 31_030_593), (32, 7_759_521)])
def test_has_the_published_number_of_parameters(filters, count):
    network = encoder_decoder(1, 1, EncoderDecoderRecipe(base_filters=filters))
    assert network.count_params() == count


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"skips": "add", "upsampling": "pixel_shuffle", "norm": "instance", "output": "residual"},
        {"skips": "conv", "upsampling": "resize", "norm": "batch", "loss": "l1"},
        {"skips": "none", "downsampling": "stride", "residual_blocks": 2, "output": "auto"},
    ],
)
def test_contract(options, tmp_path, monkeypatch, two_replicas):
    harness.run_translator_test(
        "encoder_decoder", TINY | options, 32, tmp_path, monkeypatch, two_replicas
    )


@pytest.mark.parametrize("upsampling", ["deconv", "pixel_shuffle", "resize"])
@pytest.mark.parametrize("downsampling", ["pool", "stride"])
def test_tiled_equals_untiled_away_from_the_border(upsampling, downsampling):
    options = {"upsampling": upsampling, "downsampling": downsampling, "residual_blocks": 1}
    model = harness.build("encoder_decoder", TINY | options | {"tile": 64})
    image = np.random.default_rng(0).uniform(-500, 500, (600, 520)).astype("float32")
    whole = model(image[None, ..., None]).numpy()[0, ..., 0]
    tiled = model.translate(image)
    border = model.tile_margin
    inner = (slice(border, -border),) * 2
    np.testing.assert_allclose(tiled[inner], whole[inner], atol=2e-3)


def test_neighbouring_slices_correct_the_middle_one():
    source = harness.Domain(modality="CT", unit="HU", window=(-1000, 1000), channels=3)
    model = harness.build("encoder_decoder", TINY | {"output": "residual"}, source=source)
    image = np.random.default_rng(0).uniform(-500, 500, (1, 32, 32, 3)).astype("float32")
    model.network.set_weights([np.zeros_like(w) for w in model.network.get_weights()])
    np.testing.assert_allclose(model.translate(image)[..., 0], image[..., 1], atol=1e-3)
