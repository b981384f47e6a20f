"""From a spread to intervals: the command, what it keeps, and what `predict` writes of it."""

import json
import re

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest

import dicom_files
import harness
from harness import HU
from zoo import command_line, registry, run
from zoo.averaging import Average
from zoo.imaging.dicom.deidentify import Deidentifier
from zoo.imaging.files import open_volume
from zoo.inference import half_widths
from zoo.trust import calibration
from zoo.trust.calibrate import fitted
from zoo.trust.calibration import Calibration
from zoo.trust.conformal import largest_risk
from zoo.trust.half_width import HalfWidth
from zoo.trust.spread import Spread

FIELDS = {"levels": 2, "base_filters": 4, "tile": 64, "flip": True, "output": "auto"}


def shaken():
    """A model whose answers to an image and its mirror image differ."""
    model = harness.build("encoder_decoder", FIELDS)
    rng = np.random.default_rng(5)
    for variable in model.network.trainable_variables[-2:]:
        variable.assign(rng.normal(0, 0.05, variable.shape))
    return model


@pytest.fixture(scope="module")
def model():
    return shaken()


def examples(patients, seed=0, images=2):
    """Pairs of patients who differ, in a body that a mask says; around it all is easy."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((24, 32, 1), bool)
    mask[:, 8:32] = True
    for patient in range(patients):
        noise = rng.uniform(10, 60)
        for number in range(images):
            target = rng.uniform(-100, 100, (24, 32, 1)) * mask
            source = target + rng.normal(0, noise, target.shape) * mask
            pair = {"source": source.astype("float32"), "target": target.astype("float32")}
            yield pair | {"mask": mask, "patient": f"p{patient}", "name": f"p{patient}-{number}"}


def test_the_record_is_what_the_images_say(model):
    found = fitted(Spread(model), examples(40), "own", "validation")
    assert (found.patients, found.images, found.pixels, found.unit) == (40, 80, "body", "HU")
    assert found.spread == "views" and found.weights == model.weights_hash
    # Computed anew, image by image, at its factor.
    missed, widths = [], []
    for patient in range(40):
        own = [e for e in examples(40) if e["patient"] == f"p{patient}"]
        images = np.stack([e["source"] for e in own])
        inside = np.stack([e["mask"] for e in own])
        width = HalfWidth(model, found).translate(images)
        error = np.abs(model.translate(images) - np.stack([e["target"] for e in own]))
        missed.append(np.mean(error[inside] > width[inside] * (1 + 1e-6)))
        widths.append(width[inside].mean())
    assert np.mean(missed) == pytest.approx(found.risk, abs=2e-4)
    assert found.risk <= largest_risk(40, 0.1, 0.1)
    assert np.mean(widths) == pytest.approx(found.half_width, rel=1e-4)
    assert -1 <= found.correlation <= 1


def test_wider_where_the_error_is_larger_has_a_correlation(model):
    """Of a spread that is the error itself it is 1, and a factor of about 1 is found."""

    class Known(Spread):
        def __call__(self, images, batch_size=1):
            answer, _ = super().__call__(images, batch_size)
            return answer, np.abs(answer - self.target) + 0.01

    spread, made = Known(model), list(examples(30))
    stream = iter(made)

    def told():
        for example in stream:
            spread.target = example["target"][None]
            yield example

    found = fitted(spread, told(), "own", "validation")
    assert found.correlation == pytest.approx(1) and found.factor == pytest.approx(1, rel=0.01)
    with pytest.raises(ValueError, match="expected 22 or more.*Received: 3"):
        fitted(Spread(model), examples(3), "own", "validation")
    nobody = [example | {"patient": ""} for example in examples(1)]
    with pytest.raises(ValueError, match="examples that say whose they are"):
        fitted(Spread(model), nobody, "own", "validation")


def test_a_record_that_is_damaged_is_refused(model, tmp_path):
    good = fitted(Spread(model), examples(30), "own", "validation").to_dict()
    assert Calibration.from_dict(json.loads(json.dumps(good))).to_dict() == good
    for change, text in (
        ({"factor": 0.0}, "factor: expected above 0"),
        ({"spread": 3}, "spread: expected another kind. Received: 3"),
        ({"more": 1}, "expected spread, average, factor"),
    ):
        with pytest.raises(ValueError, match=text):
            Calibration.from_dict(good | change)
    entry = registry.lookup("encoder_decoder", overrides=FIELDS)
    file = tmp_path / "a.json"
    for text, message in (
        ("{", r"a\.json: expected JSON"),
        (json.dumps(good | {"weights": "0" * 64}), "calibration of these weights; calibrate"),
        (json.dumps(good | {"average": "mean of 2 models"}), "expected the mean of 2 models that"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            calibration.of(entry, model, file)
    with pytest.raises(ValueError, match="expected a model that was calibrated"):
        calibration.of(entry, model)


@pytest.fixture(scope="module")
def trained(model, tmp_path_factory, data_dir):
    """The folder of a run, and of data sets."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    sha256 = model.save_network(folder / "a.weights.h5")
    record = {"model": "encoder_decoder", "dataset": "ldct/phantom_tiny", "state": "done"}
    record |= {"recipe": model.recipe.to_dict(), "source": HU.to_dict(), "target": HU.to_dict()}
    run.write(folder, record | {"weights": {"file": "a.weights.h5", "sha256": sha256}})
    return folder, data_dir


def zoo(*arguments):
    return command_line.main(["zoo", *map(str, arguments)])


def test_calibrate_and_predict_on_the_command_line(trained, model, tmp_path, capsys):
    folder, data = trained
    options = [f"--model={folder}", f"--data_dir={data}"]
    assert zoo("calibrate", *options) == 1
    expected = r"patients: expected 22 or more for alpha=0.1 .* Received: 2, .* alpha=0.69\n"
    assert re.search(expected, capsys.readouterr().err)
    assert zoo("calibrate", *options, "--alpha=1.5") == 2
    assert "alpha: expected a number between 0 and 1" in capsys.readouterr().err
    files = [f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}"]
    ct = dicom_files.series(tmp_path / "in" / "ct", 2)
    other = pydicom.dcmread(ct / "1.dcm")
    other.PixelData = other.pixel_array.T.tobytes()
    other.save_as(ct / "1.dcm")
    rng = np.random.default_rng(0)
    values = rng.integers(-500, 500, (20, 24, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "in" / "a.nii.gz")
    np.save(tmp_path / "in" / "b.npy", values[..., 0].astype("float32"))
    grey = (values[..., 1] + 500).astype(np.uint16)
    PIL.Image.fromarray(grey).save(tmp_path / "in" / "c.png")
    # Two patients are enough for half of the pixels.
    assert zoo("calibrate", *options, "--alpha=0.5", "--delta=0.3") == 0
    printed = capsys.readouterr().out
    assert "all but 50% of a patient's pixels" in printed and "confidence 70%" in printed
    found = Calibration.from_dict(run.read(folder)["uncertainty"])
    assert (found.patients, found.split, found.spread) == (2, "validation", "views")
    # It goes where the model goes.
    assert zoo("publish", f"--model={folder}", f"--to={tmp_path / 'hub'}") == 0
    assert registry.lookup(str(tmp_path / "hub")).uncertainty == found.to_dict()
    capsys.readouterr()
    # Beside each output, in its own format.
    assert zoo("predict", f"--model={folder}", *files, "--uncertainty") == 0
    assert "Half-widths, as half_width: output" in capsys.readouterr().out
    made, widths = tmp_path / "out" / "half_width", HalfWidth(model, found)
    expected = widths.translate(np.moveaxis(values, -1, 0))
    np.testing.assert_allclose(np.load(made / "b.npy"), expected[0], rtol=1e-3)
    stored = nibabel.load(made / "a.nii.gz").get_fdata()
    np.testing.assert_allclose(np.moveaxis(stored, -1, 0), expected, atol=0.51)
    picture = np.asarray(PIL.Image.open(made / "c.png")).astype(float)
    np.testing.assert_allclose(picture, widths.translate(grey.astype("float32")), atol=0.51)
    # Of DICOM one valid map of both slices, with the unit and the places.
    (path,) = (made / "ct").iterdir()
    parametric = pydicom.dcmread(path)
    assert not dicom_files.dciodvfy(path)
    slices = np.frombuffer(parametric.FloatPixelData, np.float32).reshape(2, 128, 128)
    shared = parametric.SharedFunctionalGroupsSequence[0]
    mapping = shared.RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "[hnsf'U]"
    for frame, made in zip(parametric.PerFrameFunctionalGroupsSequence, slices, strict=True):
        place = frame.PlanePositionSequence[0].ImagePositionPatient[2]
        given = pydicom.dcmread(ct / f"{place:.0f}.dcm")
        referenced = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert referenced.ReferencedSOPInstanceUID == given.SOPInstanceUID
        expected = widths.translate(open_volume(ct / f"{place:.0f}.dcm").read(0))
        np.testing.assert_allclose(made, expected, rtol=1e-3)
    assert parametric.PatientID == given.PatientID


def test_a_node_sends_half_widths_where_its_rule_says_so(trained, tmp_path, monkeypatch, capsys):
    from zoo.serving.node import node

    folder, data = trained
    options = [f"--data_dir={data}", "--alpha=0.5", "--delta=0.3"]
    assert zoo("calibrate", f"--model={folder}", *options) == 0
    rule = f"{{modality: CT, model: {folder}, send_to: a, uncertainty: true}}"
    told = f"destinations: {{a: {{ae_title: A, host: b, port: 104}}}}\nrules:\n  - {rule}\n"
    (tmp_path / "rules.yaml").write_text(told)
    nodes = []
    monkeypatch.setattr(node, "run", lambda made, *_: nodes.append(made))
    command = ["dicom-node", f"--rules={tmp_path / 'rules.yaml'}", f"--spool={tmp_path / 'spool'}"]
    assert zoo(*command) == 0
    given = dicom_files.series(tmp_path / "in", 2)
    report = nodes[0].translate(str(folder), given, tmp_path / "out")
    kinds = [pydicom.dcmread(path).SOPClassUID.name for path in sorted(report.outputs)]
    assert kinds == ["CT Image Storage", "CT Image Storage", "Parametric Map Storage"]
    # One model, and two minds about it.
    (tmp_path / "rules.yaml").write_text(told + f"  - {rule.replace('true', 'false')}\n")
    assert zoo(*command) == 1
    assert "rules: 2: uncertainty: expected the same in all rules of" in capsys.readouterr().err


@pytest.fixture
def narrow(model):
    """Half-widths of a model, by a calibration that nobody made."""
    fields = {"factor": 2.0, "alpha": 0.1, "delta": 0.1, "risk": 0.0, "half_width": 1.0}
    counts = {"patients": 22, "images": 22, "pixels": "all", "unit": "HU"}
    origin = {"dataset": "own", "split": "test", "weights": model.weights_hash}
    return HalfWidth(model, Calibration(spread="views", **fields, **counts, **origin))


def test_half_widths_are_of_the_pseudonym_that_the_output_has(model, narrow, tmp_path):
    for name, patient in (("a", "P1"), ("b", "P2")):
        (path,) = dicom_files.series(tmp_path / "in" / name, 1).iterdir()
        header = pydicom.dcmread(path)
        header.PatientID = patient
        header.save_as(path)
    options = {"deidentify": Deidentifier(), "progress": False}
    places = tmp_path / "in", tmp_path / "out"
    report, added = half_widths.translate(model, narrow, *places, **options)
    outputs = [pydicom.dcmread(path) for path in report.outputs[:2]]
    assert len(added.outputs) == len(outputs) == 2
    for output, path in zip(outputs, added.outputs, strict=True):
        widths = pydicom.dcmread(path)
        for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
            assert widths[keyword].value == output[keyword].value, keyword
        assert widths.SeriesInstanceUID != output.SeriesInstanceUID


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_a_header_without_what_a_map_needs_is_named(model, narrow, tmp_path, keyword):
    folder = tmp_path / "in"
    folder.mkdir()
    path = dicom_files.single(folder)
    header = pydicom.dcmread(path)
    header[keyword].value = ""
    header.save_as(path)
    places = tmp_path / "in", tmp_path / "out"
    report, _ = half_widths.translate(model, narrow, *places, progress=False)
    (problem,) = report.skipped
    assert problem.reason == f"half-width: expected {keyword}. Received: none"
    assert len(report.outputs) == 1


def test_half_widths_are_of_the_input_alone(model, narrow, tmp_path):
    """Outputs that lie in the input's folder are no inputs."""
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", np.zeros((20, 24), "float32"))
    place = tmp_path / "in" / "made"
    places = tmp_path / "in", place
    report, _ = half_widths.translate(model, narrow, *places, progress=False)
    assert report.outputs == [place / "a.npy", place / "half_width" / "a.npy"]
    # Those that are there are found before any work is done.
    (place / "a.npy").unlink()
    with pytest.raises(FileExistsError, match="half_width/a.npy"):
        half_widths.translate(model, narrow, *places, progress=False)
    assert not (place / "a.npy").exists()
    half_widths.translate(model, narrow, *places, progress=False, overwrite=True)
    assert (place / "a.npy").exists()


def test_a_file_of_its_own_and_a_single_output(trained, model, tmp_path, capsys):
    folder, data = trained
    options = [f"--data_dir={data}", "--alpha=0.5", "--delta=0.5", "--split=test"]
    file = tmp_path / "views.json"
    with_views = [f"--model={folder}", "--tta"]
    assert zoo("calibrate", *with_views, *options, f"--output={file}") == 0
    found = Calibration.from_dict(json.loads(file.read_text()))
    assert found.average == "test-time augmentation of 2" and found.spread == "answers"
    np.save(tmp_path / "in.npy", np.zeros((20, 24), "float32"))
    files = [f"--input={tmp_path / 'in.npy'}", f"--output={tmp_path / 'out.npy'}"]
    given = [f"--calibration={file}", "--uncertainty"]
    assert zoo("predict", f"--model={folder}", *files, *given) == 1
    assert "expected the test-time augmentation of 2" in capsys.readouterr().err
    assert zoo("predict", *with_views, *files, *given) == 0
    assert np.load(tmp_path / "out_half_width.npy").min() > 0
    assert zoo("predict", *with_views, *files, given[0]) == 2
    assert "expected --uncertainty beside it" in capsys.readouterr().err
    # A header with its voxels is one output.
    voxels = np.random.default_rng(0).integers(-500, 500, (2, 20, 24)).astype("<i2")
    (tmp_path / "in.mhd").write_text(
        "NDims = 3\nDimSize = 24 20 2\nElementType = MET_SHORT\nElementDataFile = in.raw\n"
    )
    voxels.tofile(tmp_path / "in.raw")
    files = [f"--input={tmp_path / 'in.mhd'}", f"--output={tmp_path / 'out.mhd'}"]
    assert zoo("predict", *with_views, *files, *given) == 0
    image, made = (open_volume(tmp_path / name) for name in ("in.mhd", "out_half_width.mhd"))
    expected = HalfWidth(Average([model], tta=True), found).translate(image.read(1))
    np.testing.assert_allclose(made.read(1), expected, atol=0.51)
    # What is no run has nowhere else to keep it.
    assert zoo("calibrate", "--model=encoder_decoder_ldct", *options) == 2
    assert "output: expected a file for what is no run of yours" in capsys.readouterr().err
