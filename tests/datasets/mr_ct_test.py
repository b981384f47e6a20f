"""zoo_datasets.mr_ct: simulated heads as MR and CT show them, and the builder."""

import numpy as np
import pytest
from scipy import ndimage

from source_harness import check_repeatable, check_simulated
from zoo.domain import Domain
from zoo_datasets.mr_ct import phantom
from zoo_datasets.phantoms import brain, displaced

SMALL = phantom.Protocol(size=64, slices=3)
LABEL = {name: i for i, name in enumerate(brain.LABELS)}


@pytest.fixture(scope="module")
def heads():
    return [phantom.patient(phantom.Protocol(size=128), 0, number) for number in range(3)]


def test_patient_follows_from_seed_and_number():
    check_repeatable(
        lambda seed, number: phantom.patient(SMALL, seed, number),
        lambda one, other: (one["labels"] != other["labels"]).mean(),
        0.05,
    )


def test_hu_are_those_of_the_tissues(heads):
    for images in heads:
        ct, labels = images["ct"].astype(float), images["labels"]
        assert ct.dtype == float and images["ct"].dtype == np.int16

        def median(label, ct=ct, labels=labels):
            # Away from edges, where a pixel holds several tissues.
            core = ndimage.binary_erosion(labels == LABEL[label], np.ones((1, 3, 3)))
            return np.median(ct[core])

        assert median("background") == pytest.approx(-1000, abs=8)
        assert median("grey") == pytest.approx(38, abs=6)
        assert median("white") == pytest.approx(29, abs=6)
        assert np.percentile(ct[labels == LABEL["skull"]], 90) > 800
        assert np.percentile(ct[labels == LABEL["skull"]], 10) > -100
    # The smallest parts: fluid over all heads.
    fluid = np.concatenate([h["ct"][h["labels"] == LABEL["csf"]] for h in heads])
    assert -10 < np.percentile(fluid, 25) < 30


def test_bone_is_dark_in_the_mr_and_bright_in_the_ct(heads):
    for images in heads:
        labels = images["labels"]
        names = ("background", "skull", "grey", "white")
        mr = {name: np.median(images["mr"][labels == LABEL[name]]) for name in names}
        ct = {name: np.median(images["ct"][labels == LABEL[name]]) for name in names}
        assert mr["skull"] < 0.6 * mr["grey"] < 0.6 * mr["white"]
        assert ct["skull"] > 400 > ct["grey"] > ct["background"]


def test_source_and_target_are_aligned(heads):
    """The head's outline is where both have it: moving one by two pixels parts them."""
    for images in heads:
        mr, ct = (
            np.stack([ndimage.binary_fill_holes(slice_) for slice_ in outside])
            for outside in (images["mr"] > 500, images["ct"] > -500)
        )

        def overlap(a, b):
            return 2 * (a & b).sum() / (a.sum() + b.sum())

        here = overlap(mr, ct)
        assert here > 0.97
        for axis in (1, 2):
            for step in (-2, 2):
                assert overlap(np.roll(mr, step, axis), ct) < here


def test_builder(tmp_path):
    from zoo import registry, training
    from zoo_datasets.mr_ct.mr_ct_dataset_builder import Builder

    builder = Builder(config="phantom_tiny", data_dir=tmp_path)
    shapes = {"source": ((64, 64, 1), np.uint16), "target": ((64, 64, 1), np.int16)}
    splits = check_simulated(builder, (6, 2, 2), shapes, each=4)
    assert Domain.from_dict(builder.info.metadata["source"]).modality == "MR"
    target = Domain.from_dict(builder.info.metadata["target"])
    assert (target.modality, target.unit, target.spacing) == ("CT", "HU", (3.5, 3.5))
    expected = phantom.patient(builder.builder_config.protocol, 41, 6)  # the first of validation
    (first,) = [e for e in splits["validation"] if e["name"] == "P006-0"]
    np.testing.assert_array_equal(first["target"][..., 0], expected["ct"][0])
    overrides = {"steps": 1, "batch_size": 2, "levels": 2, "base_filters": 4, "crop": 32}
    entry = registry.lookup("encoder_decoder", "mr_ct/phantom_tiny", overrides=overrides)
    assert training.train(entry, tmp_path / "run", data_dir=tmp_path)["state"] == "done"


def test_displacements_are_as_long_as_is_said_and_have_no_direction():
    fields = [displaced.field(np.random.default_rng(n), 128, (3, 8)) for n in range(100)]
    longest = np.array([np.hypot(*u).max() for u in fields])
    assert 3 <= longest.min() < 3.5 and 7.5 < longest.max() <= 8.001
    means = np.array([u.mean((1, 2)) for u in fields])
    assert np.abs(means.mean(0)).max() < 3 * means.std() / np.sqrt(100)
    # smooth: neighbours move alike, and no pixel overtakes another
    assert all(np.abs(np.diff(u, axis=axis)).max() < 0.9 for u in fields for axis in (1, 2))


def test_moved_pixels_come_from_their_displaced_places():
    image = np.random.default_rng(0).integers(-900, 900, (20, 20)).astype(np.int16)
    u = np.stack([np.full((20, 20), 2.0), np.full((20, 20), -3.0)])
    for labels in (False, True):
        moved = displaced.moved(image, u, labels)
        np.testing.assert_array_equal(moved[:-2, 3:], image[2:, :-3])
        assert moved.dtype == image.dtype


def test_only_training_targets_are_misaligned(tmp_path):
    """The patients are those of the aligned config; all but training targets are the same."""
    from zoo_datasets.mr_ct.mr_ct_dataset_builder import Builder

    sets = []
    for name in ("phantom_tiny", "phantom_misaligned_tiny"):
        builder = Builder(config=name, data_dir=tmp_path)
        builder.download_and_prepare()
        sets.append({s: {e["name"]: e for e in builder.as_dataset(split=s).as_numpy_iterator()}
                     for s in ("train", "validation", "test")})  # fmt: skip
    aligned, moved = sets
    for split in ("validation", "test"):
        for name, e in aligned[split].items():
            np.testing.assert_array_equal(moved[split][name]["target"], e["target"])
    for name, e in aligned["train"].items():
        other = moved["train"][name]
        np.testing.assert_array_equal(other["source"], e["source"])
        np.testing.assert_array_equal(other["source_label"], e["source_label"])
        assert (other["target"] != e["target"]).mean() > 0.2
        share = (other["target_label"] != e["target_label"]).mean()
        assert 0 < share < 0.3


def test_volumes_are_stacks_of_neighbouring_slices(tmp_path):
    from zoo_datasets.cases import Case
    from zoo_datasets.mr_ct.mr_ct_dataset_builder import Builder
    from zoo_datasets.simulated import SimulatedConfig

    config = SimulatedConfig(
        name="small",
        read=phantom.read,
        protocol=phantom.Protocol(size=32, depth=8),
        patients=(1, 0, 0),
        seed=0,
    )
    case = Case(key="P000", patient="P000", facts={"number": 0})
    ((_, example),) = phantom.read(case, config)
    volume = example["target"]
    assert volume.shape == example["source"].shape == (8, 32, 32, 1)
    # Neighbours, 7 mm apart, are more alike than slices of half a head.
    near, far = (np.abs(volume[i:].astype(float) - volume[:-i]).mean() for i in (1, 5))
    assert near < 0.7 * far
    builder = Builder(config="phantom_3d", data_dir=tmp_path)
    assert builder.info.features["source"].shape == (24, 64, 64, 1)
    assert builder.info.metadata["dimensions"] == 3
    assert builder.info.metadata["target"]["spacing"] == [3.5, 3.5, 3.5]
