"""Random gamma curves and bias fields of MR images; flips along slices."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import zoo
from zoo.data import augment, facts, prepare
from zoo.data.batches import train_dataset
from zoo.domain import Domain
from zoo.recipe import DataFacts, Recipe

MR = Domain(modality="MR", unit="signal", window=(100.0, 1100.0))
CT = Domain(modality="CT", unit="HU", window=(-1000.0, 1000.0))
SEEDS = [[3, number] for number in range(40)]


def varied(image, seed, domain=MR, **fields):
    return augment.vary_signal(tf.constant(image), domain, Recipe(**fields), seed).numpy()


def test_gamma_is_a_power_in_the_window_and_keeps_its_ends():
    image = np.linspace(-400, 1600, 2001, dtype="float32").reshape(1, -1, 1)
    inside = (image > 100) & (image < 1100)
    exponents = []
    for seed in SEEDS:
        changed = varied(image, seed, gamma=0.5)
        np.testing.assert_array_equal(changed[~inside], image[~inside])
        place = (image[inside] - 100) / 1000
        exponent = np.log((changed[inside] - 100) / 1000)[300] / np.log(place)[300]
        np.testing.assert_allclose(changed[inside], 100 + 1000 * place**exponent, atol=0.05)
        exponents.append(np.log(exponent))
    exponents = np.array(exponents) / np.log(1.5)
    assert np.abs(exponents).max() <= 1 + 1e-3
    assert exponents.min() < -0.7 and exponents.max() > 0.7 and abs(exponents.mean()) < 0.3


@pytest.mark.parametrize("shape", [(20, 30, 1), (6, 16, 20, 1)])
def test_a_bias_field_is_smooth_and_bounded_and_alike_at_two_resolutions(shape):
    ones = np.full(shape, 500.0, "float32")
    axes = [np.linspace(-1, 1, side * 2 + 1)[1::2] for side in shape[:-1]]
    grid = np.meshgrid(*axes, indexing="ij")
    columns = [np.ones_like(grid[0]), *grid]
    columns += [a * b for i, a in enumerate(grid) for b in grid[i:]]
    design = np.stack([column.ravel() for column in columns], 1)
    largest = []
    for seed in SEEDS[:10]:
        field = np.log(varied(ones, seed, bias_field=0.4) / 500).ravel() / np.log(1.4)
        fit = design @ np.linalg.lstsq(design, field, rcond=None)[0]
        np.testing.assert_allclose(field, fit, atol=1e-4)
        largest.append(np.abs(field).max())
        fine = varied(np.repeat(ones, 2, 0), seed, bias_field=0.4)
        means = fine.reshape(shape[0], 2, *shape[1:]).mean(1)
        np.testing.assert_allclose(means, varied(ones, seed, bias_field=0.4), rtol=1e-2)
    assert max(largest) <= 1 + 1e-4 and max(largest) > 0.3
    assert len(set(largest)) == len(largest)
    zero = np.zeros(shape, "float32")
    np.testing.assert_array_equal(varied(zero, SEEDS[0], bias_field=0.4), zero)


def test_of_several_inputs_each_mr_image_has_its_own_change():
    other = dataclasses.replace(MR, name="T2", window=(0.0, 1000.0))
    pet = Domain(modality="PT", unit="SUV", window=(0.0, 20.0), name="PET")
    inputs = Domain(inputs=(dataclasses.replace(MR, name="T1"), pet, other))
    image = np.full((8, 8, 3), 600.0, "float32")
    changed = varied(image, SEEDS[1], inputs, gamma=0.5, bias_field=0.5)
    np.testing.assert_array_equal(changed[..., 1], image[..., 1])
    first, second = (changed[..., channel] for channel in (0, 2))
    assert np.abs(first - 600).max() > 1 and np.abs(second - 600).max() > 1
    assert np.abs(first - second).max() > 1


@pytest.mark.parametrize(
    ("dataset", "both"), [("sr/phantom_tiny", True), ("mri_contrast/phantom_tiny", False)]
)
def test_a_pair_of_one_kind_is_changed_alike_and_of_two_the_source_alone(dataset, both, data_dir):
    recipe = Recipe(gamma=0.4, bias_field=0.4) if not both else zoo.lookup("srcnn").recipe
    builder = prepare.load_builder(dataset, data_dir, recipe)
    there = facts.data_facts(builder, recipe)
    window = dict(modality="MR", unit="signal")
    there = dataclasses.replace(
        there,
        source=dataclasses.replace(there.source, **window),
        target=dataclasses.replace(there.target, **window),
    )
    given = {}
    for strength in (0.0, 0.4):
        changed = dataclasses.replace(recipe, crop=0, gamma=0.0, bias_field=strength)
        data = train_dataset(builder, changed, batch_size=1, facts=there)
        given[strength] = next(data.as_numpy_iterator())
    again = next(train_dataset(builder, changed, batch_size=1, facts=there).as_numpy_iterator())
    np.testing.assert_array_equal(again["source"], given[0.4]["source"])
    fields = {}
    for key in ("source", "target"):
        plain, other = given[0.0][key], given[0.4][key]
        fields[key] = np.divide(other, plain, out=np.ones_like(plain), where=np.abs(plain) > 1)
    assert np.abs(fields["source"] - 1).max() > 0.01
    if both:
        coarse, fine = fields["source"], fields["target"][:, ::2, ::2]
        there = (np.abs(coarse - 1) > 0) & (np.abs(fine - 1) > 0)
        assert there.mean() > 0.5
        np.testing.assert_allclose(coarse[there], fine[there], rtol=2e-2)
    else:
        np.testing.assert_array_equal(fields["target"], np.ones_like(fields["target"]))


@pytest.mark.parametrize(
    ("model", "dataset", "fields", "message"),
    [
        ("pix2pix", "ldct/phantom_tiny", {"gamma": 0.3}, "gamma: expected MR .*HU are calib.*0.3"),
        ("dcgan", "lung_nodule/phantom_tiny", {"bias_field": 0.3}, "bias_field: expected MR"),
        ("automap", "mri_recon/phantom_tiny", {"gamma": 0.3}, "measurements are taken as they are"),
    ],
)
def test_what_is_no_mr_signal_is_refused(model, dataset, fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        entry = zoo.lookup(model, dataset, "small", fields)
        builder = prepare.load_builder(dataset, tmp_path, entry.recipe, prepare=False)
        facts.fit_to_data(entry, builder)
    assert not list(tmp_path.iterdir())


def test_single_images_of_mr_vary_and_label_maps_stay():
    augment.check_signal(Recipe(gamma=0.2), MR)
    augment.check_signal(Recipe(), CT)
    unnamed = dataclasses.replace(MR, modality="OT")  # as in NIfTI
    augment.check_signal(Recipe(gamma=0.2), unnamed)
    image = np.full((8, 8, 1), 0.3 * unnamed.window[1], "float32")
    changed = augment.vary_signal(tf.constant(image), unnamed, Recipe(gamma=0.2), SEEDS[0])
    assert np.abs(changed - image).max() > 0.001 * unnamed.window[1]
    labels = DataFacts(source=MR, target=Domain(modality="SEG", unit="class", window=(0, 3)))
    assert facts.varied("brain_seg", labels).keys() == {"source"}
    assert facts.varied("brain_mri", DataFacts(kind="single", source=MR)).keys() == {"image"}
    assert facts.varied("mr_ct", DataFacts(source=MR, target=CT)).keys() == {"source"}
    assert facts.varied("folder", DataFacts(source=MR, target=MR)).keys() == {"source", "target"}


def test_volumes_are_mirrored_along_their_slices():
    volume = np.arange(4 * 2 * 3, dtype="float32").reshape(4, 2, 3, 1)
    found = {
        augment.augment([tf.constant(volume)], Recipe(flip_slices=True), seed)[0].numpy().tobytes()
        for seed in SEEDS[:20]
    }
    assert found == {volume.tobytes(), volume[::-1].tobytes()}


def test_images_have_no_slices_to_mirror(tmp_path, data_dir):
    builder = prepare.load_builder("ldct/phantom_tiny", data_dir, Recipe())
    with pytest.raises(ValueError, match="flip_slices: expected volumes"):
        train_dataset(builder, Recipe(flip_slices=True), batch_size=1)
