"""`plan`: what it measures, warns of and chooses, on folders whose properties are known."""

import json
import os
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import scipy.ndimage

import dicom_files
from inputs_files import whole_body
from zoo import command_line, devices, registry, run
from zoo.data import prepare
from zoo.models.encoder_decoder import EncoderDecoderRecipe
from zoo.plan import caution, device, files, pairs, planning, rules
from zoo.plan.pixels import SHARES, Pair, Side, measure
from zoo.recipe import DataFacts, Recipe


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    """Memory and time are those of float32, whatever this processor is fast at."""
    monkeypatch.setattr(devices, "_CPU", Path(os.devnull))


# Rows run to the back, columns to the left: axial slices are presented as they are stored.
HUNG = np.array([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
SIDE, SPACING, APART = 72, 1.5, 6.0
NOISE = 12.0


def anatomy(number, side=SIDE):
    """A head-like ellipse with organs, unlike any other: float64 `[side, side, 3]`, 0 to 400."""
    rng = np.random.default_rng([3, number])
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    slices = []
    for _ in range(3):
        image = np.where((x / 0.8) ** 2 + (y / 0.9) ** 2 < 1, 200.0, 0.0)
        for tissue in (120, 160, 240, 290, 340, 390):
            cx, cy, r = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(0.15, 0.25)
            image[(x - cx) ** 2 + (y - cy) ** 2 < r**2] = tissue + rng.uniform(-10, 10)
        slices.append(scipy.ndimage.gaussian_filter(image, 0.7))
    return np.stack(slices, -1)


def noisy(image, sigma, number):
    noise = np.random.default_rng([5, number]).normal(0, sigma, image.shape)
    return image + np.where(image > 20, noise, 0)


def save(path, voxels, spacing=SPACING):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = HUNG @ np.diag([spacing, spacing, APART, 1])
    nibabel.Nifti1Image(np.asarray(voxels, np.float32), affine).to_filename(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve noisy images and their better targets, of which p03's lies 3 pixels further down."""
    root = tmp_path_factory.mktemp("known")
    for number in range(12):
        image = anatomy(number)
        target = noisy(image, NOISE / 4, 100 + number)
        if number == 3:
            target = np.roll(target, 3, axis=0)
        save(root / "trainA" / f"p{number:02d}.nii", noisy(image, NOISE, number))
        save(root / "trainB" / f"p{number:02d}.nii", target)
    for number in (12, 13):
        for letter in "AB":
            save(root / f"test{letter}" / f"p{number}.nii", anatomy(number))
    return root


@pytest.fixture(scope="module")
def plan(folder):
    return planning.plan(folder, minutes=0.02)


def warned(plan, text):
    return [warning for warning in plan.warnings if text in warning]


def test_what_is_measured_is_what_was_made(plan):
    source, target = plan.measured["source"], plan.measured["target"]
    assert source["size"] == [[SIDE, SIDE], [SIDE, SIDE]] and source["slices"] == 3
    assert source["spacing"]["median"] == pytest.approx(SPACING)
    assert source["slice_spacing"]["median"] == pytest.approx(APART)
    # within the tolerance that `noise_level` states
    assert NOISE / 1.6 < source["noise"] < 1.6 * NOISE
    assert target["noise"] < source["noise"] / 2
    assert plan.split.value == {"train": 12, "test": 2}
    pixels = plan.measured["pairs"]["shift_pixels"]
    assert pixels["worst"] == pytest.approx(3, abs=0.2) and pixels["median"] < 0.3
    assert plan.measured["pairs"]["shift_mm"]["worst"] == pytest.approx(3 * SPACING, abs=0.3)
    assert plan.measured["pairs"]["worst"] == "p03.nii"


def test_percentiles_are_those_of_the_foreground(plan, folder):
    voxels = []
    for path in sorted((folder / "trainB").iterdir()):
        image = nibabel.load(path).get_fdata()
        voxels.append(image[image > 60])
    expected = np.percentile(np.concatenate(voxels), 99.5)
    found = plan.measured["target"]["percentiles"]["99.5"]
    assert found == pytest.approx(expected, rel=0.05)


def test_a_plan_says_what_is_wrong(plan):
    assert re.search(r"1 of 12 pairs .*p03\.nii by [23]\.\d pixels", "\n".join(plan.warnings))
    assert warned(plan, "12 patients to train on are few")
    assert warned(plan, "2 for test")
    assert warned(plan, "of 14 images or pairs no file says whose they are")
    assert not warned(plan, "mixed") and not warned(plan, "one value")


def test_the_fields_are_a_recipe_and_have_reasons(plan):
    """Denoising of aligned pairs: a correction, in one window, learned from small patches."""
    recipe = EncoderDecoderRecipe.preset(plan.preset.value, **plan.values())
    assert plan.model.value == "encoder_decoder"
    assert recipe.output == "residual" and recipe.source_window == recipe.target_window
    assert recipe.crop % recipe.size_multiple == 0 and recipe.crop <= SIDE
    assert recipe.slices == 1 and recipe.spacing == 0 and recipe.turn
    written = json.loads(json.dumps(plan.to_dict()))["recipe"]
    assignments = []
    for name, choice in written.items():
        value = choice["value"]
        assert choice["because"], name
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        assignments.append(f"{name}={text}")
    parsed = EncoderDecoderRecipe.parse(assignments)
    assert recipe == EncoderDecoderRecipe.preset("small").changed(**parsed)


def test_what_is_given_wins_and_the_rest_follows(folder):
    made = planning.plan(
        folder, minutes=0.02, overrides={"steps": 7}, assignments=["levels=2", "crop=32"]
    )
    assert (made.fields["steps"].value, made.fields["crop"].value) == (7, 32)
    assert made.fields["levels"].because == made.fields["crop"].because
    with pytest.raises(ValueError, match="has a field|with a field"):
        planning.plan(folder, assignments=["depth=3"])
    with pytest.raises(ValueError, match="expected one for paired images"):
        planning.plan(folder, model="dcgan")


def test_copies_contrasts_and_single_values_are_told(tmp_path):
    """One image under two names in two splits, two contrasts mixed, and an image of one value."""
    for number in range(10):
        image = anatomy(number)
        if number % 2:  # a steeper contrast
            image = image**3 / 400**2
        save(tmp_path / "train" / f"p{number}.nii", noisy(image, 3, number))
    save(tmp_path / "train" / "empty.nii", np.full([SIDE, SIDE, 3], 5.0))
    save(tmp_path / "test" / "copy.nii", noisy(anatomy(4), 3, 4))
    found = files.find(tmp_path, Recipe())
    sides, _ = measure([(volume,) for volume in found.volumes(0)], [""])
    sides[0].note_all(found.volumes(0, "test"))
    told = "\n".join(caution.warnings(found, sides, [], registers=False))
    assert re.search("same image .*in train and test: copy.nii, p4.nii", told)
    assert re.search(r"mixed, as intensities tell apart: 5 such as p\d.nii, and 5 such", told)
    assert re.search("nothing but one value is in empty.nii", told)


def test_files_of_one_name_are_told_apart(tmp_path):
    """Splits and patients' folders hold files of the same names, which are not copies."""
    for number, place in enumerate(("train/1", "train/2", "test/1", "test/2")):
        save(tmp_path / f"{place}.nii", noisy(anatomy(number), 3, number))
    lines = ["image\tpatient"]
    for number in range(4):
        save(tmp_path / f"list/P{number}/t1.nii", noisy(anatomy(number), 3, number))
        lines.append(f"P{number}/t1.nii\tP{number}")
    save(tmp_path / "list/P4/t1.nii", noisy(anatomy(0), 3, 0))
    (tmp_path / "list/list.tsv").write_text("\n".join([*lines, "P4/t1.nii\tP4"]))
    told = []
    for path in (tmp_path, tmp_path / "list/list.tsv"):
        found = files.find(path, Recipe())
        volumes = [volume for split in files.SPLITS for volume in found.volumes(0, split)]
        assert len({volume.name for volume in volumes}) == len(volumes)
        side, _ = measure([(volume,) for volume in volumes], [""])
        told.append("\n".join(caution.warnings(found, side, [], registers=False)))
    assert "same image" not in told[0]
    assert re.search("same image is there under 2 names.*: P0/t1.nii, P4/t1.nii", told[1])


def test_images_of_one_contrast_are_not_taken_for_two(tmp_path):
    profiles = []
    for number in range(30):
        image = anatomy(number) * np.random.default_rng(number).uniform(0.5, 2)
        profiles.append(np.percentile(image[image > 20], SHARES))
    assert not caution.second_group(np.array(profiles)).any()


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.0, -2.0), (-0.5, 1.5)])
@pytest.mark.parametrize("inverted", [False, True])
def test_shifts_are_found_to_a_part_of_a_pixel(shift, inverted):
    image = anatomy(1, 96)[..., 0]
    moved = scipy.ndimage.shift(image, shift, order=1)
    target = np.where(moved > 20, 450 - moved, 0) if inverted else moved
    fit = pairs.compare(image, target, image > 20)
    assert fit.shift == pytest.approx(shift, abs=0.3)


def test_batches_fit_the_memory_and_grow_with_it():
    entry = registry.lookup("encoder_decoder", preset="small")
    model = planning.build(entry)
    batches = [device.largest_batch(model, (64, 64), free * 2**20) for free in (1, 100, 200, 800)]
    assert batches[0] == 0 and batches == sorted(set(batches))
    fixed, each = device.network_bytes(model.network, (64, 64), 1, "float32")
    assert fixed + batches[-1] * each <= device.SHARE * 800 * 2**20
    larger = device.network_bytes(model.network, (128, 128), 1, "float32")[1]
    assert larger == pytest.approx(4 * each, rel=1e-4)
    # The first level alone has ten outputs of its size: convolutions, ReLUs, up, and concatenation.
    assert each > device.FACTOR * 4 * 64 * 64 * 10 * entry.recipe.base_filters


def test_hounsfield_units_are_known_by_their_values(tmp_path):
    for letter, sigma in (("A", 30), ("B", 5)):
        for number in range(4):
            image = np.where(anatomy(number) > 20, anatomy(number) - 200, -1000.0)
            noise = np.random.default_rng(number).normal(0, sigma, image.shape)
            save(tmp_path / f"train{letter}" / f"p{number}.nii", image + noise)
    made = planning.plan(tmp_path, minutes=0.02, overrides={"steps": 2})
    assert (made.values()["source_unit"], made.values()["target_unit"]) == ("HU", "HU")
    assert made.values()["source_window"] == made.values()["target_window"] == (-1024.0, 400.0)
    recipe = EncoderDecoderRecipe.preset("small", **made.values())
    builder = prepare.load_builder("folder", tmp_path / "data", recipe, tmp_path, prepare=False)
    assert builder.info.metadata["source"]["unit"] == "HU"
    assert warned(made, "patients to train on are too few")


def test_the_network_follows_from_the_kind_of_data(tmp_path):
    for number in range(3):
        save(tmp_path / "two" / "trainA" / f"a{number}.nii", anatomy(number))
        save(tmp_path / "two" / "trainB" / f"b{number}.nii", anatomy(9 + number))
        save(tmp_path / "large" / "trainA" / f"p{number}.nii", anatomy(number)[::2, ::2], 3.0)
        save(tmp_path / "large" / "trainB" / f"p{number}.nii", anatomy(number))
    names = {}
    for name in ("two", "large"):
        found = files.find(tmp_path / name, Recipe())
        measured = rules.Measured(found=found, sides=[], pairs=[], units=["1"], accelerated=False)
        names[name] = rules.model(measured).value, found.scale
    assert names == {"two": ("cyclegan", 1), "large": ("srgan", 2)}
    # Another model takes the large targets on the grids of their sources, here of 36 pixels.
    asked = {"model": "encoder_decoder", "minutes": 0.02, "overrides": {"steps": 2}}
    made = planning.plan(tmp_path / "large", assignments=["crop=0", "levels=2"], **asked)
    assert made.measured["target"]["size"] == made.measured["source"]["size"]
    with pytest.raises(ValueError, match="crop: expected one, .* multiples of 16. .* 36 pixels"):
        planning.plan(tmp_path / "large", assignments=["crop=0", "levels=5"], **asked)


@pytest.mark.parametrize(("sources", "unit"), [("PET=pet*", "SUV"), ("PET=pet*,MR=mr*", "SUV,")])
def test_finer_pixels_of_another_modality_are_no_super_resolution(sources, unit, tmp_path):
    for number, patient in enumerate("ABC"):
        whole_body(tmp_path / patient, patient, number)
    recipe = Recipe(source_series=sources, target_series="CT=ct*", source_unit=unit)
    found = files.find(tmp_path, recipe)
    assert found.scale == 1 and found.units == ["SUV", "HU"]
    assert found.volumes(0)[0].shape == found.volumes(1)[0].shape == (16, 16)


def test_label_maps_have_no_contrasts(folder):
    found = files.find(folder, Recipe())
    ramp = np.linspace(0, 1, len(SHARES))
    profiles = {f"p{number}": ramp ** (1 + number % 2) for number in range(8)}
    sides = [Side(), Side(profiles=profiles, saturated=["p03.nii"])]
    told = []
    for labels in (False, True):
        texts = caution.warnings(found, sides, [], registers=True, labels=labels)
        told.append([text for text in texts if re.search("target: .*(mixed|cut off)", text)])
    assert [len(texts) for texts in told] == [2, 0]


def test_many_pairs_that_are_apart_are_registered_and_hopeless_ones_unpaired(folder):
    found = files.find(folder, Recipe())
    sides = [Side(values=[np.arange(9.0)], whole=[np.arange(9.0)])] * 2

    def measured(*shifts):
        made = [
            Pair(name=f"p{n}", shift=(far, 0.0), correlation=0.5) for n, far in enumerate(shifts)
        ]
        return rules.Measured(
            found=found, sides=sides, pairs=made, units=["signal"] * 2, accelerated=False
        )

    base = EncoderDecoderRecipe.preset("small")
    for shifts, expected in (((0, 0, 0, 0, 3), False), ((0, 3, -2, 0, 3), True)):
        fields = rules.of_network(EncoderDecoderRecipe, measured(*shifts), base, SIDE)
        assert ("registration" in fields) == expected
    assert rules.model(measured(0, 3, -2)).value == "encoder_decoder"
    assert rules.model(measured(20, -15, 30)).value == "cyclegan"
    told = caution.warnings(found, sides, measured(3, 0).pairs, registers=True)
    assert any("1 of 2 pairs" in text and "`registration=true`" in text for text in told)


def test_plans_of_noisy_targets(tmp_path):
    """Copies have one slice on either side; neighbours are not planned, which is said."""
    for letter in "AB":
        for number in range(3):
            stack = np.concatenate([anatomy(number + k) for k in range(4)], -1)
            save(tmp_path / f"train{letter}" / f"p{number}.nii", noisy(stack, 9, number), APART)
    found = files.find(tmp_path, Recipe())
    both = list(zip(found.volumes(0), found.volumes(1), strict=True))
    sides, fits = measure(both, ["signal"] * 2)
    measured = rules.Measured(
        found=found, sides=sides, pairs=fits, units=["signal"] * 2, accelerated=False
    )
    slices = []
    for given in ({}, {"target": "copy"}):
        slices.append(rules.of_data(EncoderDecoderRecipe, measured, given)["slices"].value)
    assert slices == [3, 1]
    with pytest.raises(ValueError, match="target: expected .* not planned. Received: neighbour"):
        planning.plan(tmp_path / "trainA", assignments=["target=neighbour"])


def test_a_patch_is_large_enough_for_the_discriminator(folder):
    """Training mirrors an image that is smaller, and refuses a smaller patch."""
    found = files.find(folder, Recipe())
    side = Side(values=[np.arange(9.0)], whole=[np.arange(9.0)])
    measured = rules.Measured(
        found=found, sides=[side] * 2, pairs=[], units=["1"] * 2, accelerated=False
    )
    for name in ("pix2pix", "cyclegan"):
        cls = registry.model_class(name).recipe_class
        base = cls.preset("small")
        fields = rules.of_network(cls, measured, base, 12)
        recipe = base.changed(**{field: choice.value for field, choice in fields.items()})
        assert recipe.resolve(DataFacts()).crop % recipe.size_multiple == 0
        assert "discriminator needs 24 pixels" in fields["crop"].because
    with pytest.raises(ValueError, match="crop: expected 24 or more along each axis"):
        planning.plan(folder, model="pix2pix", assignments=["crop=16", "levels=3"])


def test_a_file_that_cannot_be_read_is_named_and_the_others_planned_for(tmp_path):
    for number in range(4):
        save(tmp_path / "train" / f"p{number}.nii", anatomy(number))
    save(tmp_path / "test" / "t.nii", anatomy(9))
    path = tmp_path / "train" / "p0.nii"
    voxels = nibabel.load(path).get_fdata()
    voxels[...] = np.nan
    save(path, voxels)
    made = planning.plan(tmp_path, model="dcgan", minutes=0.02, overrides={"steps": 2})
    assert warned(made, "image: p0.nii cannot be read") and made.values()["source_window"]


def test_patients_in_several_splits_are_told_by_their_files(tmp_path):
    """A list names them, and no patient's name is in what is said."""
    rows = ["image\tsplit\tpatient"]
    for number, (split, patient) in enumerate([("train", "Ann"), ("train", "Bo"), ("test", "Ann")]):
        save(tmp_path / f"scan{number}.nii", anatomy(number))
        rows.append(f"scan{number}.nii\t{split}\t{patient}")
    (tmp_path / "list.tsv").write_text("\n".join(rows))
    found = files.find(tmp_path / "list.tsv", Recipe())
    told = "\n".join(caution.warnings(found, [Side()], [], registers=False))
    assert "in train scan0.nii; in test scan2.nii" in told and "training refuses" in told
    assert "Ann" not in told


def test_series_of_several_echo_times_are_told(tmp_path):
    """DICOM says what the contrast is; a description, which may hold a name, is not shown."""
    for number, echo in enumerate((10, 10, 90)):
        (tmp_path / f"p{number}").mkdir()
        dicom_files.single(
            tmp_path / f"p{number}",
            PatientID=f"id{number}",
            SeriesInstanceUID=f"1.2.{number}",
            SOPInstanceUID=f"1.2.{number}.1",
            SeriesDescription="T2 of Ann",
            EchoTime=("DS", echo),
        )
    found = files.find(tmp_path, Recipe())
    domain = found.layout.domains[0]
    domain["train"] = sum((domain.pop(split, []) for split in files.SPLITS), [])
    groups = files.protocols(found.volumes(0))
    assert sorted(map(len, groups.values())) == [1, 2]
    told = "\n".join(caution.warnings(found, [Side()], [], registers=False))
    assert "contrasts are mixed, as EchoTime tells apart" in told and "Ann" not in told


def test_spacings_that_differ_are_resampled_to_their_median(tmp_path):
    """Not where noise is to be learned, which interpolation takes away."""
    for number, spacing in enumerate((1.0, 1.0, 1.3)):
        for letter in "AB":
            save(tmp_path / f"train{letter}" / f"p{number}.nii", anatomy(number), spacing)
    save(tmp_path / "testA" / "t.nii", anatomy(9))
    save(tmp_path / "testB" / "t.nii", anatomy(9))
    found = files.find(tmp_path, Recipe())
    for noise, expected in ((0.0, 1.0), (30.0, 0.0)):
        one = {"values": [np.arange(99.0)], "whole": [np.arange(99.0)]}
        sides = [Side(noise=[noise], **one), Side(noise=[1.0], **one)]
        pair = Pair(name="p0.nii", shift=(0.0, 0.0), correlation=0.9)
        measured = rules.Measured(
            found=found, sides=sides, pairs=[pair], units=["signal"] * 2, accelerated=False
        )
        fields = rules.of_data(EncoderDecoderRecipe, measured, {})
        assert fields["spacing"].value == expected


def test_an_accelerator_takes_the_good_recipe_and_larger_batches(folder, monkeypatch):
    monkeypatch.setattr(devices, "accelerated", lambda: True)
    made = planning.plan(folder, minutes=0.02, assignments=["crop=32", "levels=2"])
    assert made.preset.value == "good" and made.fields["batch_size"].value == 16
    recipe = EncoderDecoderRecipe.preset("good", **made.values())
    assert recipe.skips == EncoderDecoderRecipe.GOOD["skips"]  # what the plan left as it was


def test_a_model_that_does_not_suit_is_refused(folder):
    for model, text in (("srgan", "1 times as large"), ("automap", "takes images")):
        with pytest.raises(ValueError, match=text):
            planning.plan(folder, model=model)
    with pytest.raises(ValueError, match="volumes are not planned"):
        planning.plan(folder, model="encoder_decoder", assignments=["dimensions=3"])


def test_patches_shrink_until_they_fit_and_a_given_one_is_refused(folder, monkeypatch):
    entry = registry.lookup("encoder_decoder", overrides={"base_filters": 16, "levels": 3})
    fixed, each = device.network_bytes(planning.build(entry).network, (64, 64), 1, "float32")
    free = int((fixed + 0.9 * each) / device.SHARE)  # not for one patch of 64 pixels
    monkeypatch.setattr(device, "memory", lambda: (free, "memory"))
    made = planning.plan(folder, minutes=0.02)
    assert made.fields["crop"].value == 32 and made.fields["batch_size"].value >= 1
    monkeypatch.setattr(device, "memory", lambda: (2**20, "memory"))
    with pytest.raises(ValueError, match="expected room for a patch of 64 pixels"):
        planning.plan(folder, minutes=0.02, assignments=["crop=64"])


def zoo(*arguments):
    return command_line.main(["zoo", *map(str, arguments)])


def test_the_command_writes_a_plan(folder, tmp_path, capsys):
    output = tmp_path / "new" / "plan.json"
    options = [f"--input={folder}", f"--output={output}", "--set=levels=2", "--steps=3"]
    assert zoo("plan", *options) == 0
    out, err = capsys.readouterr()
    assert re.search("^levels +2 +it was asked for$", out, re.MULTILINE) and "p03.nii" in err
    written = json.loads(output.read_text())
    assert written["recipe"]["steps"] == {"value": 3, "because": "it was asked for"}
    assert written["model"]["value"] == "encoder_decoder" and written["warnings"]


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ([], 2, "needs --input"),
        (["--input=gone"], 1, "expected a folder or a .tsv list"),
        (["--input=.", "--model=pixpix"], 2, "no model is called 'pixpix'"),
        (["--input=.", "--output=plan.txt"], 2, "ends in .json"),
        (["--input=.", "--model=pix2pix", "--set=leves=2"], 2, "Did you mean levels"),
        (["--input=."], 1, "no readable image is left"),
    ],
)
def test_what_cannot_be_planned_is_said(options, code, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert zoo("plan", *options) == code
    assert text in capsys.readouterr().err
    assert not (tmp_path / "plan.json").exists()


def test_training_follows_a_plan_and_a_resumed_run_keeps_it(folder, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "run"
    options = ["--model=encoder_decoder", "--dataset=folder", f"--input={folder}",
               f"--data_dir={tmp_path / 'data'}", f"--workdir={workdir}", "--steps=2",
               "--set=crop=16", "--set=levels=2"]  # fmt: skip
    assert zoo("train", *options) == 0
    record = run.read(workdir)
    kept = json.loads((workdir / "plan.json").read_text())
    assert record["preset"] == "plan"
    for name, choice in kept["recipe"].items():
        assert record["recipe"][name] == choice["value"], name
    assert record["recipe"]["steps"] == 2 and record["recipe"]["crop"] == 16
    assert record["recipe"]["output"] == "residual"
    # Again: nothing is planned, whatever the machine's speed is now.
    monkeypatch.setattr(planning, "plan", None)
    assert zoo("train", *options) == 0
    assert "nothing left to do" in capsys.readouterr().out
    assert run.read(workdir)["recipe"] == record["recipe"]
    assert zoo("train", *options, "--set=loss=charbonnier") == 1
    assert "holds another run" in capsys.readouterr().err


def test_training_without_a_plan_says_so(folder, tmp_path, monkeypatch, capsys):
    def fails(*args, **kwargs):
        raise ValueError("odd data")

    monkeypatch.setattr(planning, "plan", fails)
    options = ["--model=encoder_decoder", "--dataset=folder", f"--input={folder}",
               f"--data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}", "--steps=1",
               "--set=crop=16", "--set=levels=2"]  # fmt: skip
    assert zoo("train", *options) == 0
    assert "No plan can be made, and the small recipe is used: odd data" in capsys.readouterr().out
    assert run.read(tmp_path / "run")["preset"] == "small"
    assert not (tmp_path / "run" / "plan.json").exists()
