"""zoo.guards: what is warned of, and above all what is not."""

import concurrent.futures
import types
import warnings

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
import yaml

import zoo
from dicom_files import bundled, series
from stand_in import Model
from zoo import command_line, guards, registry
from zoo.domain import Domain
from zoo.guards import noise_level, reasons
from zoo.imaging.files import open_volume
from zoo.inference import predict
from zoo.physics.noise import simulate_low_dose
from zoo_datasets.mr_ct import phantom as heads
from zoo_datasets.phantoms import ct_scan

CT = Domain(modality="CT", unit="HU", window=(-1024, 1500))
MR = Domain(modality="MR", unit="signal", window=(0, 3000))
TINY = {"base_filters": 4, "levels": 3}


def model(source=CT, **trained_on):
    return types.SimpleNamespace(source=source, trained_on=trained_on)


def random(*shape, mean=0.0, sd=1.0, seed=0):
    return np.random.default_rng(seed).normal(mean, sd, shape).astype(np.float32)


@pytest.fixture(scope="module")
def patient():
    """Chest and abdomen, HU [2, 256, 256, 1]: without noise, of normal and of quarter dose."""
    scanner = ct_scan.Scanner(ct_scan.Protocol(slices=2))
    images = scanner.patient(0, 0, clean=True)
    return {name: image[..., None].astype(np.float32) for name, image in images.items()}


@pytest.fixture(scope="module")
def head():
    """MR and CT of one head, [3, 256, 256, 1]."""
    images = heads.patient(heads.Protocol(slices=3), 0, 2)
    return {name: image[..., None].astype(np.float32) for name, image in images.items()}


def noisy(clean, kind, strength):
    if kind == "white":
        return clean + random(*clean.shape, sd=strength)
    return simulate_low_dose(clean[..., 0], 1.4, strength, filter=kind, views=256)[..., None]


@pytest.mark.parametrize(
    "kind, strength",
    [(kind, dose) for kind in ("hann", "ramp") for dose in (0.5, 0.1, 0.02)]
    + [("white", sd) for sd in (10, 20, 60, 140, 300)],
)
def test_noise_level_is_that_of_soft_tissue(patient, kind, strength):
    clean = patient["clean"]
    images = noisy(clean, kind, strength)
    tissue = (clean > -200) & (clean < 200)
    # the middle of the distribution: where rays starve the noise is several times stronger
    truth = np.median(np.abs(images - clean)[tissue]) / 0.6745
    assert 1 / 1.6 < noise_level(images[..., 0]) / truth < 1.6


def test_noise_level_of_plain_noise_and_of_too_little():
    assert noise_level(random(128, 128, mean=40, sd=25)) == pytest.approx(25, rel=0.15)
    ramp = 3 * np.arange(128.0)[:, None] + 2 * np.arange(128.0) - 300
    assert noise_level(ramp / 3 + random(128, 128, sd=10)) == pytest.approx(10, rel=0.15)
    signal = 500 + random(128, 128, sd=25)
    signal[:70] = random(70, 128, sd=2)  # the background counts for nothing
    assert noise_level(signal, "signal") == pytest.approx(25, rel=0.2)
    assert noise_level(random(128, 128, mean=-900, sd=25)) is None
    assert noise_level(random(36, 36, sd=25)) is None
    padded = np.zeros((200, 200))
    padded[100:] = random(100, 200, sd=25)
    assert noise_level(padded) == pytest.approx(25, rel=0.15)


@pytest.mark.parametrize("kind, strength", [("hann", 0.25), ("ramp", 0.5), ("white", 20)])
def test_ct_at_many_doses_gives_no_reason(patient, kind, strength):
    images = noisy(patient["clean"], kind, strength)
    trained = model(noise=[8, 140], spacing=[0.3, 1.5], air=True)
    assert reasons(trained, images, (1.4, 1.4)) == []
    for name in ("source", "target"):
        assert reasons(trained, patient[name], (1.4, 1.4)) == []


def test_parts_of_ct_give_no_reason(patient, head):
    trained = model(noise=[2, 140])
    rng = np.random.default_rng(0)
    for images in (patient["source"], patient["target"], head["ct"]):
        for _ in range(200):
            side = int(rng.choice([48, 64, 128]))
            y, x = rng.integers(0, 257 - side, 2)
            crop = images[rng.integers(len(images)), y : y + side, x : x + side]
            assert reasons(trained, crop) == [], (crop.min(), crop.max())


@pytest.mark.parametrize(
    "image",
    [
        np.full((64, 64), -1000.0),
        np.zeros((2, 64, 64, 1)),
        random(64, 64, mean=-995, sd=15),  # air
        random(64, 64, mean=50, sd=30),  # inside the body, with values below 0
        random(64, 64, mean=-100, sd=8),  # fat
        np.rint(random(64, 64, mean=110, sd=12)),  # liver with contrast medium, none below 0
        np.hstack([random(64, 48, mean=36, sd=4), random(64, 16, mean=1100, sd=250)]),  # at a skull
        np.where(np.arange(64) < 9, -3024.0, random(64, 64, mean=-100, sd=300)),  # padding
        np.where(np.arange(64) < 9, 3071.0, random(64, 64, mean=-100, sd=300)),  # metal
    ],
)
def test_plausible_hu_give_no_reason(image):
    assert reasons(model(), image) == []


def eight_bit(images, low, high):
    return np.clip(np.rint((images - low) / (high - low) * 255), 0, 255)


def test_what_is_no_hu_is_named(patient, head):
    def reason(images):
        (text,) = reasons(model(noise=[8, 140]), images)
        assert text.startswith("values: trained on HU, air near -1000 and water at 0. Received: ")
        return text

    for images in (patient["target"], head["ct"]):
        text = reason(eight_bit(images, -160, 240))
        assert "Received: 0 to 255, whole numbers as in an 8-bit picture" in text
        for offset in (1000, 1024):
            assert "stored values without their rescale" in reason(images + offset)
        assert "normalised" in reason(images / 1000)
    assert "another modality such as MR" in reason(head["mr"])
    assert "another modality such as MR" in reason(head["mr"] * 0.2)
    assert "8-bit" in reason(eight_bit(head["mr"], 0, 3000))
    assert "-32768 to" in reason(np.where(head["ct"] < -900, -32768, head["ct"]))


def test_air_false_expects_no_air(head):
    image = 400 + np.abs(random(64, 64, sd=100))
    assert reasons(model(), image)
    assert reasons(model(air=False), image) == []


def test_bits_of_the_file_tell_a_picture():
    image = np.rint(random(64, 64, mean=120, sd=15))
    assert reasons(model(), image, stored_bits=16) == []
    assert "8-bit" in reasons(model(), image, stored_bits=8)[0]


def test_noise_and_spacing_out_of_range_are_named_with_numbers(patient):
    images = patient["clean"] + random(*patient["clean"].shape, sd=320)
    received = round(noise_level(images[..., 0]), -1)
    (text,) = reasons(model(noise=[8, 140]), images)
    assert text == f"noise: trained on 8 to 140 HU. Received: about {received:g} HU"
    (text,) = reasons(model(noise=[80, 140]), random(128, 128, mean=40, sd=5))
    assert text.startswith("noise: trained on 80 to 140 HU. Received: about 4.")
    trained = model(spacing=[0.3, 1.0])
    expected = "spacing: trained on 0.3 to 1 mm. Received: "
    assert reasons(trained, patient["clean"], (3.0, 3.0)) == [f"{expected}3 mm"]
    assert reasons(trained, patient["clean"], (0.5, 1.25)) == [f"{expected}0.5 x 1.25 mm"]
    assert reasons(trained, patient["clean"], (0.2, 0.2)) == [f"{expected}0.2 mm"]
    for spacing in ((0.28, 1.09), None):
        assert reasons(trained, patient["clean"], spacing) == []


def test_signal_models(patient, head):
    trained = model(MR, level=[250, 3800], noise=[5, 80])
    assert reasons(trained, head["mr"]) == []
    ringing = head["mr"] - 8  # as an interpolation leaves
    assert reasons(trained, ringing) == []
    for ct in (head["ct"], patient["source"], patient["source"][:, 100:160, 60:180]):
        assert reasons(trained, ct)[0].startswith("values: trained on images of 0 or more. ")
    level = "level: trained on 250 to 3800 at the 99.5th percentile. Received: "
    (text,) = reasons(trained, eight_bit(head["mr"], 0, head["mr"].max()))
    assert text == f"{level}whole numbers from 0 to 255, as in an 8-bit picture"
    for factor in (0.001, 10):
        value = np.percentile(head["mr"] * factor, 99.5)
        (text,) = reasons(trained, head["mr"] * factor)
        assert text.startswith(level)
        assert float(text.rsplit(" ", 1)[1]) == pytest.approx(value, rel=0.01)
    (text,) = reasons(trained, np.abs(head["mr"] + random(*head["mr"].shape, sd=400)))
    assert text.startswith("noise: trained on 5 to 80. Received: about ")
    assert reasons(model(MR), head["mr"] * 10) == []


def test_nothing_is_checked_where_nothing_is_known(head):
    for unknown in (Model(source=CT), types.SimpleNamespace(source=CT, trained_on=None)):
        assert reasons(unknown, head["mr"], (9.0, 9.0), 8) == []
    sinograms = model(Domain(unit="line integral", window=(0, 8)), noise=[1, 2])
    assert reasons(sinograms, random(64, 64)) == []
    assert reasons(model(), np.full((8, 8), np.nan)) == []


def test_real_files():
    trained = model(spacing=[0.3, 1.0], noise=[4, 140])
    for name in ("CT_small", "J2K_pixelrep_mismatch"):
        volume = open_volume(bundled(name))
        bits = volume.frames[0].encoding.bits
        assert reasons(trained, volume.read(0), volume.spacing, bits) == [], name
    # a head whose lossy compression left a brain without any grain
    smooth = open_volume(bundled("693_J2KI")).read(0)
    assert reasons(trained, smooth) == ["noise: trained on 4 to 140 HU. Received: about 0.4 HU"]
    mr = open_volume(bundled("MR_small"))
    assert "another modality such as MR" in reasons(trained, mr.read(0), mr.spacing)[0]
    assert reasons(model(MR, level=[250, 3800], spacing=[0.3, 1]), mr.read(0), mr.spacing) == []
    ct = open_volume(bundled("CT_small"))
    assert "as of CT" in reasons(model(MR), ct.read(0))[0]
    assert "without their rescale" in reasons(model(), ct.stored(0).astype(np.float32))[0]


# In use.


@pytest.fixture
def pretrained(tmp_path, monkeypatch):
    """The name of a small pretrained model of CT."""
    fresh = zoo.load("encoder_decoder", source=CT, target=CT, **TINY)
    fields = {
        "name": "net_ct",
        "owner": "test",
        "folder": tmp_path,
        "model": "encoder_decoder",
        "dataset": "ldct/phantom",
        "overrides": TINY,
        "source": CT.to_dict(),
        "target": CT.to_dict(),
        "weights": "net.weights.h5",
        "sha256": fresh.save_network(tmp_path / "net.weights.h5"),
        "trained_on": {"spacing": [0.3, 1.0], "noise": [8, 140]},
    }
    monkeypatch.setitem(registry.index()["pretrained"], "net_ct", fields)
    return "net_ct"


def test_translate_warns_once_for_a_reason_and_translates(pretrained, head):
    loaded = zoo.load(pretrained)
    mr, ct = head["mr"][:, :64, 96:160], head["ct"][:, :64, 96:160]
    with pytest.warns(guards.UntrainedInput) as caught:
        result = loaded.translate(mr)
    assert [w.filename for w in caught] == [__file__]
    assert "such as MR" in str(caught[0].message)
    assert result.shape == mr.shape and np.isfinite(result).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded.translate(ct + random(*ct.shape, sd=20))
        with guards.silent():
            np.testing.assert_array_equal(loaded.translate(mr), result)
            with concurrent.futures.ThreadPoolExecutor(1) as others:
                elsewhere = others.submit(loaded.translate, mr)
                with pytest.raises(guards.UntrainedInput):  # another thread is not silenced
                    elsewhere.result()
        loaded(mr)
        zoo.load("encoder_decoder", source=CT, target=CT, **TINY).translate(mr)


def run_predict(name, source, target, capsys, *more):
    """Exit code and the lines on stderr that warn."""
    arguments = [f"--model={name}", f"--input={source}", f"--output={target}", *more]
    with warnings.catch_warnings():
        warnings.simplefilter("error", guards.UntrainedInput)  # none besides the report's
        code = command_line.main(["zoo", "predict", *arguments])
    lines = capsys.readouterr().err.splitlines()
    return code, [line for line in lines if line.startswith(("warning: ", "skipped: "))]


def test_the_command_line_names_file_and_reason(tmp_path, pretrained, head, capsys):
    folder = tmp_path / "in"
    series(folder / "ct", 5)
    wide = pydicom.dcmread(bundled("CT_small"))
    wide.PixelSpacing, wide.SeriesInstanceUID = [3, 3], "1.2.3"
    wide.save_as(folder / "wide.dcm")
    PIL.Image.fromarray(eight_bit(head["ct"][0, ..., 0], -160, 240).astype(np.uint8)).save(
        folder / "picture.png"
    )
    mr = np.moveaxis(head["mr"][..., 0], 0, -1)[64:128, 64:128].astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(mr, np.diag([0.9, 0.9, 5, 1])), folder / "mr.nii.gz")
    code, lines = run_predict(pretrained, folder, tmp_path / "out", capsys)
    assert code == 0
    assert len(lines) == 3
    by_name = {line.split(": ")[1]: line for line in lines}
    assert by_name[str(folder / "wide.dcm")].endswith(
        ": spacing: trained on 0.3 to 1 mm. Received: 3 mm"
    )
    assert "8-bit picture" in by_name[str(folder / "picture.png")]
    assert "such as MR" in by_name[str(folder / "mr.nii.gz")]
    assert len([p for p in (tmp_path / "out").rglob("*") if p.is_file()]) == 8
    text = pydicom.dcmread(tmp_path / "out" / "wide.dcm").DerivationDescription
    assert "Warning: spacing: trained on 0.3 to 1 mm. Received: 3 mm." in text
    text = pydicom.dcmread(tmp_path / "out" / "ct" / "0.dcm").DerivationDescription
    assert "Warning" not in text


def test_another_modality_in_the_header_is_refused_as_ever(tmp_path, pretrained, capsys):
    code, lines = run_predict(pretrained, bundled("MR_small"), tmp_path / "out", capsys)
    assert code == 1
    assert len(lines) == 1
    assert lines[0].endswith("modality: the model takes CT images. Received: MR")


def test_a_few_slices_are_read_for_it(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(guards, "reasons", lambda _, images, *rest: seen.append(images.shape) or [])
    for length in (1, 2, 40):
        np.save(tmp_path / "in.npy", random(length, 16, 16))
        trained = Model(source=CT)
        trained.trained_on = {}
        out = tmp_path / f"{length}.npy"
        report = predict.translate(trained, tmp_path / "in.npy", out, progress=False)
        assert report.warnings == []
    assert seen == [(1, 16, 16, 1), (2, 16, 16, 1), (3, 16, 16, 1)]


def test_a_slice_that_cannot_be_read_is_left_to_the_translation(tmp_path):
    folder = series(tmp_path / "in", 3)
    content = (folder / "0.dcm").read_bytes()
    (folder / "0.dcm").write_bytes(content[:-9000])
    trained = Model(source=CT, target=CT)
    trained.trained_on = {"spacing": [1.0, 2.0]}
    report = predict.translate(trained, folder, tmp_path / "out", progress=False)
    assert [problem.path.name for problem in report.skipped] == ["0.dcm"]
    (warning,) = report.warnings
    assert warning.path.parent == folder
    assert warning.reason == "spacing: trained on 1 to 2 mm. Received: 0.661 mm"


@pytest.mark.parametrize(
    "trained_on, message",
    [
        ({"spacings": [1, 2]}, "expected a mapping with air, level, noise, spacing"),
        ([1, 2], "expected a mapping"),
        ({"noise": 8}, "noise: expected .*Received: 8"),
        ({"noise": [140, 8]}, "noise: expected .*lowest, highest"),
        ({"level": [1, float("inf")]}, "level: expected"),
        ({"spacing": ["a", 1]}, "spacing: expected"),
        ({"air": 1}, "air: expected true or false"),
    ],
)
def test_a_malformed_entry_is_named_as_the_index_is_read(tmp_path, trained_on, message):
    fields = {"model": "pix2pix", "dataset": "ldct", "weights": "w", "sha256": "", "metrics": {}}
    fields |= {"licence": "none", "summary": "", "trained_on": trained_on}
    path = tmp_path / "registry.yaml"
    path.write_text(yaml.safe_dump({"pretrained": {"net": fields}}))
    with pytest.raises(ValueError, match=f"registry.yaml: pretrained: net: trained_on: {message}"):
        registry._read("test", path, tmp_path)


def test_the_shipped_models_state_what_they_were_trained_on(patient):
    for name in zoo.names("pretrained"):
        entry = zoo.lookup(name)
        takes_images = zoo.index()["models"][entry.model]["data"] != "single"
        assert bool(entry.trained_on) == takes_images, name
    shipped = zoo.load("pix2pix_ldct")
    assert reasons(shipped, patient["source"], (0.9, 0.9)) == []
    (reason,) = reasons(shipped, patient["source"], (1.4, 1.4))
    assert reason == "spacing: trained on 0.3 to 1 mm. Received: 1.4 mm"
    assert zoo.lookup("pix2pix").trained_on is None
