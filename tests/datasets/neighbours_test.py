"""Training without clean targets: neighbouring slices of a series, and two noisy copies."""

import shutil

import nibabel
import numpy as np
import pytest
from scipy import ndimage

import dicom_files
import zoo
from zoo import command_line, registry
from zoo.data import batches, prepare
from zoo.data.facts import fit_to_data
from zoo.imaging import files
from zoo.recipe import Recipe
from zoo_datasets.folder import neighbours
from zoo_datasets.folder.items import Item
from zoo_datasets.phantoms.noise import fbp_noise

NEIGHBOUR = Recipe(target="neighbour")


def series(count: int, size: int, noise: float, seed: int = 0) -> np.ndarray:
    """Slices of a cone in air, in HU, whose edge moves, with a scanner's noise."""
    rng = np.random.default_rng(seed)
    axis = np.arange(size) - (size - 1) / 2
    radius = np.linspace(0.25, 0.4, count)[:, None, None] * size
    clean = np.where(np.hypot(axis, axis[:, None]) < radius, 40.0, -900.0)
    return clean + noise * fbp_noise(rng, clean.shape)


def test_noise_alone_agrees_whatever_it_is():
    """The mask depends on noise so little that the mean of what it leaves has no bias."""
    rng = np.random.default_rng(0)
    first, second = 30 * fbp_noise(rng, (2, 12, 128, 128))
    kept = np.stack([neighbours.agreement(*pair) for pair in zip(first, second, strict=True)])
    assert kept.mean() > 0.97
    # What a network would be taught of a target's noise, given its source's: next to nothing.
    for smooth in (0, 1, 3):
        a, b = (ndimage.gaussian_filter(x, (0, smooth, smooth)) for x in (first, second))
        shared = np.corrcoef(a[kept], b[kept])[0, 1] - np.corrcoef(a.ravel(), b.ravel())[0, 1]
        assert abs(shared) < 0.04
    assert abs(second[kept].mean()) < 0.05 * 30


def test_what_moves_is_left_out_and_what_stays_is_kept():
    slices = series(2, 128, 30)
    axis = np.arange(128) - 63.5
    radius = np.hypot(axis, axis[:, None])
    kept = neighbours.agreement(*slices)
    between = (radius > 0.27 * 128) & (radius < 0.38 * 128)
    assert kept[between].mean() < 0.02
    assert kept[(radius < 0.2 * 128) | (radius > 0.46 * 128)].mean() > 0.95


def test_agreement_follows_noise_from_place_to_place():
    """A step of 40 HU is seen where noise is weak, beside a place where it is strong."""
    rng = np.random.default_rng(1)
    level = np.where(np.arange(256) < 128, 5.0, 80.0)
    first, second = level * fbp_noise(rng, (2, 256, 256))
    second[96:160, 40:80] += 40
    kept = neighbours.agreement(first, second)
    assert kept[100:156, 44:76].mean() < 0.05
    assert kept[:, 160:].mean() > 0.95


@pytest.mark.parametrize("correlation", [0.0, 0.3])
def test_correlation_of_noise_is_measured(correlation):
    rng = np.random.default_rng(2)
    white = 20 * fbp_noise(rng, (4, 128, 128))
    share = {0.0: 0.0, 0.3: 1 / 3}[correlation]  # of the next slice in each
    slices = list(white[:3] + share * white[1:] + series(3, 128, 0))
    measured = neighbours.noise_correlation(slices)
    assert measured == pytest.approx(share / (1 + share**2), abs=0.05)


def pairs_of(builder, split="train"):
    examples = sorted(builder.as_dataset(split=split).as_numpy_iterator(), key=lambda e: e["name"])
    return [(e["source"][..., 0], e["target"][..., 0], e["patient"]) for e in examples]


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """Three volumes whose slices are constant, each of a number of its own, so that none agree."""
    folder = tmp_path_factory.mktemp("flat")
    for patient in range(3):
        values = 100 * patient + np.arange(4.0) * 10
        volume = np.broadcast_to(values, (16, 16, 4)) + 0.01 * np.indices((16, 16, 4))[0]
        nibabel.save(
            nibabel.Nifti1Image(volume.astype("f4"), np.eye(4)), folder / f"p{patient}.nii"
        )
    return folder


def test_neighbours_are_of_one_series_and_next_to_each_other(flat, tmp_path, monkeypatch):
    monkeypatch.setattr(neighbours, "agreement", lambda a, b: np.ones(a.shape, bool))
    builder = prepare.load_builder("folder", tmp_path, NEIGHBOUR, flat)
    seen = []
    for split in builder.info.splits:
        for source, target, _ in pairs_of(builder, split):
            one, other = (round(float(np.median(image)) / 10) for image in (source, target))
            assert abs(one - other) == 1 and one // 10 == other // 10
            seen.append((one, other))
    assert len(seen) == 3 * 2 * 3 == len(set(seen))
    assert set(seen) == {(b, a) for a, b in seen}
    metadata = dict(builder.info.metadata)
    assert metadata["source"] == metadata["target"] and metadata["kind"] == "paired"
    assert "neighbouring slices" in metadata["note"]


def test_a_slice_is_its_own_target_where_the_next_disagrees(flat, tmp_path):
    builder = prepare.load_builder("folder", tmp_path, NEIGHBOUR, flat)
    for source, target, _ in pairs_of(builder):
        np.testing.assert_array_equal(source, target)


def test_where_the_next_disagrees_the_one_before_may_agree(tmp_path):
    """Slices 0 and 1 show one thing, slice 2 another in its left half."""
    volume = 20 * fbp_noise(np.random.default_rng(0), (3, 64, 64))
    volume[2, :, :24] += 500
    np.save(tmp_path / "a.npy", volume.astype("f4"))
    (found,) = files.find(tmp_path).volumes
    source, target = neighbours._neighbours(Item((found,), "P", True)).volumes
    example = next(i for i in range(4) if source.indices[i] == 1 and target.partners[i][0] == 2)
    left, right = np.s_[8:-8, :16], np.s_[8:-8, 40:-8]
    assert (target.read(example)[left] == volume[0].astype("f4")[left]).mean() > 0.9
    assert (target.read(example)[right] == volume[2].astype("f4")[right]).mean() > 0.9


def test_clean_images_are_for_evaluation_alone(tmp_path):
    """Of pairs the training targets are never read: they may be anything."""
    rng = np.random.default_rng(0)
    noisy = rng.normal(0, 10, (2, 16, 16, 3))
    for split, volume, target in (("train", noisy[0], np.full((16, 16, 3), 5e4)),
                                  ("test", noisy[1], np.zeros((16, 16, 3)))):  # fmt: skip
        for letter, values in (("A", volume), ("B", target)):
            (tmp_path / "in" / f"{split}{letter}").mkdir(parents=True)
            image = nibabel.Nifti1Image(values.astype("f4"), np.eye(4))
            nibabel.save(image, tmp_path / "in" / f"{split}{letter}" / f"{split}.nii")
    builder = prepare.load_builder("folder", tmp_path / "data", NEIGHBOUR, tmp_path / "in")
    train, test = pairs_of(builder), pairs_of(builder, "test")
    assert len(train) == 4 and max(np.abs(t).max() for _, t, _ in train) < 100
    assert len(test) == 3 and all((target == 0).all() for _, target, _ in test)


def test_missing_slices_part_neighbours(tmp_path):
    for index in (0, 1, 2, 4, 5):
        dicom_files.single(
            tmp_path,
            f"{index}.dcm",
            np.zeros((8, 8), np.int16),
            ImagePositionPatient=[0, 0, 5.0 * index],
            SOPInstanceUID=f"1.2.{index + 1}",
            InstanceNumber=index,
        )
    (found,) = files.find(tmp_path).volumes
    item = neighbours._neighbours(Item((found,), "P", True))
    source, target = item.volumes
    assert dict(zip(source.indices[:3], target.partners[:3], strict=True)) == {
        0: (1,), 1: (2, 0), 3: (4,)
    }  # fmt: skip
    assert dict(zip(source.indices[3:], target.partners[3:], strict=True)) == {
        1: (0, 2), 2: (1,), 4: (3,)
    }  # fmt: skip
    assert source.kind == "dicom" and source.unit == found.unit == "HU"


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"target": "neighbour", "slices": 3}, "slices: expected 1 with target=neighbour"),
        ({"target": "noise"}, "target: expected one of image, neighbour, copy"),
    ],
)
def test_bad_recipes_are_refused(fields, wanted):
    with pytest.raises(ValueError, match=wanted):
        Recipe(**fields)


def test_other_data_sets_have_no_neighbours(tmp_path):
    with pytest.raises(ValueError, match="target: only the data set `folder`.*target=neighbour"):
        prepare.load_builder("ldct/phantom_tiny", tmp_path, NEIGHBOUR, prepare=False)


@pytest.mark.parametrize(
    ("model", "fields"), [("encoder_decoder", {"classes": 3}), ("srgan", {"dimensions": 3})]
)
def test_labels_and_volumes_have_no_neighbours(model, fields, flat, tmp_path):
    recipe = registry.lookup(model, overrides=fields | {"target": "neighbour"}).recipe
    with pytest.raises(ValueError, match="target: expected slices of intensities"):
        prepare.load_builder("folder", tmp_path, recipe, flat, prepare=False)


def test_single_slices_are_refused(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros((8, 8), "f4"))
    with pytest.raises(ValueError, match="target: expected series or volumes of two slices"):
        prepare.load_builder("folder", tmp_path / "data", NEIGHBOUR, tmp_path)


@pytest.mark.parametrize("model", ["cyclegan", "encoder_decoder"])
def test_copies_are_of_one_domain_and_for_models_of_pairs(model, data_dir):
    dataset = {"cyclegan": "ldct/phantom_tiny", "encoder_decoder": "mr_ct/phantom_tiny"}[model]
    entry = registry.lookup(model, dataset, overrides={"target": "copy"})
    builder = prepare.load_builder(dataset, data_dir, entry.recipe, prepare=False)
    with pytest.raises(ValueError, match="target: expected a model of pairs, and two images"):
        fit_to_data(entry, builder)


def test_copies_in_files_without_a_unit_share_a_window(tmp_path):
    """Each side's own window ends in its noise, so that no two are the same."""
    draw = np.random.default_rng(0)
    for side, level in (("A", 1.0), ("B", 1.0), ("other", 3.0)):
        (tmp_path / f"train{side}").mkdir()
        for number in range(2):
            np.save(tmp_path / f"train{side}/{number}.npy", level * draw.normal(50, 10, (16, 16)))

    def windows(**fields):
        fields = {"target": "copy", "crop": 16, "levels": 2} | fields
        entry = registry.lookup("encoder_decoder", "folder", "small", fields)
        builder = prepare.load_builder("folder", tmp_path / "data", entry.recipe, tmp_path)
        fitted = fit_to_data(entry, builder)
        return [tuple(domain["window"]) for domain in (fitted.source, fitted.target)]

    own = windows(target="image")
    assert own[0] != own[1]
    around = min(own[0][0], own[1][0]), max(own[0][1], own[1][1])
    assert windows() == [around, around]
    assert windows(source_window=(0, 90)) == [(0, 90), (0, 90)]
    with pytest.raises(ValueError, match="two images that mean the same"):
        windows(source_window=(0, 90), target_window=(0, 80))
    with pytest.raises(ValueError, match="slices: expected 1 with target=copy"):
        windows(slices=3)
    shutil.rmtree(tmp_path / "trainB")
    (tmp_path / "trainother").rename(tmp_path / "trainB")
    with pytest.raises(ValueError, match="two images that mean the same"):
        windows()


def test_copies_are_swapped_at_random_and_alike_again(data_dir):
    builder = prepare.load_builder("ldct/phantom_tiny", data_dir, Recipe())
    plain, copies, again = (
        next(iter(batches.train_dataset(builder, Recipe(target=target), batch_size=16)))
        for target in ("image", "copy", "copy")
    )
    np.testing.assert_array_equal(copies["source"], again["source"])
    swapped = 0
    for i in range(16):
        pair, order = [plain[k][i].numpy() for k in ("source", "target")], [0, 1]
        if not np.array_equal(copies["source"][i], pair[0]):
            order, swapped = [1, 0], swapped + 1
        for key, place in zip(("source", "target"), order, strict=True):
            np.testing.assert_array_equal(copies[key][i], pair[place])
    assert 3 <= swapped <= 13


def test_a_noisy_series_trains_by_the_command_line(tmp_path):
    """From noise alone towards the clean image, which no file holds."""
    volume = np.concatenate([series(6, 48, 60, seed)[2:3] for seed in range(16)]).astype("f4")
    image = nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.diag([-1, -1, 1, 1]))
    nibabel.save(image, tmp_path / "noisy.nii")
    fields = [
        *("target=neighbour", "source_unit=HU", "target_unit=HU", "levels=3", "base_filters=8"),
        *("crop=32", "learning_rate=2e-3", "precision=float32", "image_every=1000"),
    ]
    arguments = [
        *("zoo", "train", "--model=encoder_decoder", "--dataset=folder", "--preset=small"),
        *(f"--input={tmp_path / 'noisy.nii'}", f"--data_dir={tmp_path / 'data'}", "--steps=120"),
        *(f"--workdir={tmp_path / 'run'}", *(f"--set={field}" for field in fields)),
    ]
    assert command_line.main(arguments) == 0
    clean = series(6, 48, 0)[2]
    output = zoo.load(str(tmp_path / "run")).translate(volume)
    assert np.std(output - clean) < 0.6 * np.std(volume - clean)
