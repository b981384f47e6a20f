"""zoo_datasets.ct_recon: sinograms and images that belong together, the builder, who may train."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from source_harness import check_repeatable, check_simulated
from zoo.physics import radon
from zoo_datasets.cases import SPLITS
from zoo_datasets.ct_recon import phantom

SMALL = phantom.Protocol(size=64, views=32, photons=1.2e4, electronic=5.0, slices=2)
# As many views as the image needs, and photons without end.
PLENTY = dataclasses.replace(SMALL, views=128, photons=1e9, electronic=0.0)


@pytest.fixture(scope="module")
def plenty():
    return [phantom.patient(PLENTY, 0, number) for number in range(3)]


def builder_of(config, folder):
    from zoo_datasets.ct_recon.ct_recon_dataset_builder import Builder

    return Builder(config=config, data_dir=folder)


@pytest.fixture(scope="module")
def builders(tmp_path_factory):
    """Both tiny configs, prepared."""
    folder = tmp_path_factory.mktemp("tfds")
    found = {name: builder_of(name, folder) for name in ("phantom_tiny", "phantom_fbp_tiny")}
    image, sinogram = ((64, 64, 1), np.int16), ((32, 92, 1), np.float32)
    for builder, source in zip(found.values(), (sinogram, image), strict=True):
        check_simulated(builder, (4, 1, 2), {"source": source, "target": image}, each=4)
    return found


def test_patient_follows_from_seed_and_number():
    check_repeatable(
        lambda seed, number: phantom.patient(SMALL, seed, number),
        lambda one, other: np.abs(one["image"].astype(int) - other["image"]).max(),
        300,
    )


def test_image_is_in_hu():
    image = phantom.patient(phantom.Protocol(size=128), 0, 1)["image"]
    assert image.dtype == np.int16
    assert (image[:, :8, :8] == -1000).all()  # air
    soft = image[(image > 0) & (image < 120)]
    assert 30 < np.median(soft) < 80 and image.max() > 400


def test_fbp_of_the_sinogram_is_the_image(plenty):
    beam = radon.ParallelBeam(64, PLENTY.spacing, PLENTY.views)
    for images in plenty:
        assert images["sinogram"].dtype == np.float32
        hu = radon.attenuation_to_hu(beam.fbp(images["sinogram"]))
        error = hu - images["image"]
        smooth = ndimage.gaussian_filter(error, (0, 1.5, 1.5))
        assert abs(smooth.mean()) < 1 and smooth.std() < 4
        # Any other place fits worse, and no side better than its opposite.
        for axis in (1, 2):
            one, other = ((np.roll(hu, s, axis) - images["image"]).std() for s in (-1, 1))
            assert min(one, other) > 2 * error.std()
            assert one == pytest.approx(other, rel=0.03)


def test_sinogram_is_the_line_integral_of_the_image(plenty):
    """Each view sums up to the whole attenuation, whatever its angle."""
    for images in plenty:
        mass = radon.hu_to_attenuation(images["image"]).sum((1, 2)) * PLENTY.spacing
        views = images["sinogram"].sum(-1)
        np.testing.assert_allclose(views, np.repeat(mass[:, None], 128, 1), rtol=0.01)


def test_few_views_and_photons_cost_quality(plenty):
    few = phantom.patient(SMALL, 0, 0)

    def error(protocol, images):
        hu = phantom.scanner(protocol).reconstruct(images["sinogram"]).astype(float)
        return (hu - images["image"])[:, 16:48, 16:48]

    bad, good = error(SMALL, few), error(PLENTY, plenty[0])
    # Beyond the blur of the window, which both have.
    assert bad.std() > 40 and bad.var() > good.var() + 20**2


def test_configs_share_their_patients(builders):
    examples = {
        name: {
            e["name"]: e
            for split in ("train", "validation", "test")
            for e in builder.as_dataset(split=split).as_numpy_iterator()
        }
        for name, builder in builders.items()
    }
    sinograms, images = examples["phantom_tiny"], examples["phantom_fbp_tiny"]
    assert set(sinograms) == set(images) and len(images) == 28
    metadata = dict(builders["phantom_tiny"].info.metadata)
    beam = radon.ParallelBeam(**metadata["parallel_beam"])
    for name, e in sinograms.items():
        np.testing.assert_array_equal(e["target"], images[name]["target"])
        assert e["source"].shape == (beam.views, beam.detectors, 1)
        hu = radon.attenuation_to_hu(beam.fbp(e["source"][..., 0], "hann"))
        np.testing.assert_allclose(images[name]["source"][..., 0], np.clip(hu, -1024, None), atol=1)


def test_metadata_say_what_the_numbers_are(builders):
    from zoo.domain import Domain

    metadata = dict(builders["phantom_tiny"].info.metadata)
    assert metadata["attenuation"] == f"mu = (HU / 1000 + 1) * {radon.MU_WATER} per mm"
    assert metadata["images"] == "ct_recon/phantom_fbp_tiny"
    assert Domain.from_dict(metadata["source"]).unit == "line integral"
    assert Domain.from_dict(metadata["target"]).unit == "HU"
    metadata = dict(builders["phantom_fbp_tiny"].info.metadata)
    assert metadata["source"] == metadata["target"] and "images" not in metadata
    assert builder_of(None, "unused").builder_config.name == "phantom"


def test_every_model_of_images_is_told_where_the_images_are(builders):
    from zoo import registry
    from zoo.data.facts import fit_to_data

    builder = builders["phantom_tiny"]
    entry = registry.lookup("automap", "ct_recon/phantom_tiny", "small")
    recipe = fit_to_data(entry, builder).recipe
    assert (recipe.n, recipe.sensors) == (64, (32, 92))
    for name, row in registry.index()["models"].items():
        if row["owner"] != "zoo" or name in ("automap", "learned_primal_dual"):
            continue
        entry = registry.lookup(name, dataset="ct_recon/phantom_tiny")
        with pytest.raises(ValueError) as caught:
            fit_to_data(entry, builder)
        message = str(caught.value)
        assert message.endswith(f"Received: {name} on ct_recon/phantom_tiny")
        if row["data"] == "single":
            assert f"{name} trains on single images, and these are paired" in message
        elif name == "varnet":
            assert "varnet takes k-space, and the sources are sinograms" in message
        else:
            assert (
                f"{name} takes images, and the sources are sinograms; "
                "ct_recon/phantom_fbp_tiny has them as images" in message
            )


@pytest.mark.parametrize("name", ["encoder_decoder", "pix2pix"])
def test_models_of_images_train_on_the_back_projection(name, builders, tmp_path):
    from zoo import registry, training

    sizes = {
        "encoder_decoder": {"levels": 2, "base_filters": 4},
        "pix2pix": {"levels": 4, "base_filters": 4, "discriminator_filters": 4},
    }
    overrides = {"steps": 1, "batch_size": 2, "crop": 32} | sizes[name]
    entry = registry.lookup(name, "ct_recon/phantom_fbp_tiny", overrides=overrides)
    folder = builders["phantom_fbp_tiny"].data_dir_root
    record = training.train(entry, tmp_path / "run", data_dir=folder)
    assert record["state"] == "done" and record["source"]["unit"] == "HU"


def test_split_views_are_pairs_of_independent_noise_without_a_clean_image(tmp_path):
    """Training sees noisy parts alone; validation and test have the truth beside all views."""
    builder = builder_of("phantom_split_tiny", tmp_path)
    builder.download_and_prepare()
    read = {split: list(builder.as_dataset(split=split).as_numpy_iterator()) for split in SPLITS}
    train, test = ([example["target"][..., 0] for example in read[s]] for s in ("train", "test"))
    assert len(train) == 8 * 4 * 4 and len(test) == 4 * 4
    config = builder.builder_config
    truths = [phantom.patient(config.protocol, config.seed, number) for number in range(14)]
    truth = np.concatenate([each["image"] for each in truths])
    clean = {int(image.astype(int).sum()) for image in truth}
    assert not any(int(target.astype(int).sum()) in clean for target in train)
    assert all(int(target.astype(int).sum()) in clean for target in test)
    # A pair is one set of views and the mean of the three others.
    beam = radon.ParallelBeam(64, config.protocol.spacing, config.protocol.views)
    whole = radon.attenuation_to_hu(beam.fbp(truths[0]["sinogram"], "hann"))
    names = {example["name"].decode(): example for example in read["train"]}
    parts = [names[f"P000-{i}"] for i in range(16)]
    source, target = (
        np.stack([part[key][..., 0] for part in parts]).astype(float)
        for key in ("source", "target")
    )
    np.testing.assert_allclose(3 * source + target, 4 * whole.repeat(4, 0), atol=3)
    assert len({part["target"].tobytes() for part in parts}) == 16
    # Air keeps its mean, which clipping at -1024 HU would raise.
    assert abs(np.median(target[:, :4]) + 1000) < 60 and target[:, :4].min() < -1030
