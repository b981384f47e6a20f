import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from zoo import figures, metrics
from zoo.domain import Domain
from zoo.evaluation import measure
from zoo.physics import fourier
from zoo.translator import Translator

CT = Domain(modality="CT", unit="HU", window=(-160.0, 240.0))


class Double:
    """What `evaluate` needs of a model, without a network."""

    source = target = CT
    dimensions, scale, classes = 2, 1, 0
    baseline = Translator.baseline


class Blur(Double):
    """A translator that smooths."""

    def translate(self, array):
        assert array.ndim == 4
        return scipy.ndimage.gaussian_filter(array, (0, 1, 1, 0))


class Identity(Double):
    def translate(self, array):
        return array


def _image(seed, size=32):
    image = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), 3)
    return (40 + 100 * image / image.std())[..., None].astype("float32")


def _pairs(n, per_patient=3, name="p"):
    for i in range(n):
        target = _image([1, i])
        noise = np.random.default_rng([2, i]).normal(0, 30 + i, target.shape)
        yield {
            "source": (target + noise).astype("float32"),
            "target": target,
            "patient": f"{name}{i // per_patient}".encode(),  # TFDS gives text as bytes
            "name": f"slice {i}".encode(),
        }


def _evaluate(model, dataset, folder, **options):
    return measure.evaluate(
        model, dataset, folder, name="toy", dataset_name="ldct/phantom", **options
    )


class _Page(html.parser.HTMLParser):
    """Tags, addresses, embedded images and texts of a page; fails on what it would fetch."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.images, self.texts = [], [], []
        content = path.read_text()
        assert not re.search(r"https?://|@import|url\(", content)
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert tag not in ("script", "link", "iframe")
        for key, value in attributes:
            if key in ("src", "href", "srcset"):
                assert value.startswith("data:image/png;base64,")
                data = base64.b64decode(value.split(",")[1])
                self.images.append(np.asarray(Image.open(io.BytesIO(data))))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)


def test_translation_numbers(tmp_path):
    results = _evaluate(
        Blur(), _pairs(10), tmp_path / "e", dataset_version="1.0.0", description="Simulated <x>."
    )
    assert json.loads((tmp_path / "e" / "metrics.json").read_text()) == results
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == [
        "metrics.json",
        "report.html",
    ]
    assert (results["images"], results["patients"]) == (10, 4)
    assert (results["unit"], results["window"]) == ("HU", [-160.0, 240.0])
    assert results["dataset"]["version"] == "1.0.0" and results["ms_ssim_scales"] == [2]
    rows = results["per_image"]
    for row, example in zip(rows, _pairs(10), strict=True):
        output = Blur().translate(example["source"][None])[0]
        body = metrics.body_mask(example["target"])
        expected = metrics.compare(output, example["target"], CT.window, mask=body, zero=-1000.0)
        assert row["output"] == pytest.approx(expected)
        assert row["input"]["rmse"] == pytest.approx(
            metrics.rmse(example["source"], example["target"])
        )
        assert row["gain"]["psnr"] == pytest.approx(row["output"]["psnr"] - row["input"]["psnr"])
    gains = [row["gain"]["psnr"] for row in rows]
    summary = results["summary"]["gain"]["psnr"]
    assert summary["mean"] == pytest.approx(np.mean(gains)) and summary["mean"] > 1
    assert summary["ci95"][0] < summary["mean"] < summary["ci95"][1]
    # The last patient has one image and the others three: each patient counts once.
    by_patient = [np.mean(gains[i : i + 3]) for i in (0, 3, 6, 9)]
    assert [p["images"] for p in results["per_patient"]] == [3, 3, 3, 1]
    assert [p["gain"]["psnr"] for p in results["per_patient"]] == pytest.approx(by_patient)
    assert summary["patients"]["mean"] == pytest.approx(np.mean(by_patient))
    page = _Page(tmp_path / "e" / "report.html")
    assert len(page.images) == 5 * 4  # source, output, target, error
    for text in ("ldct/phantom", "1.0.0", "10 images of 4 patients", "Simulated <x>.", "p3"):
        assert text in page.text
    assert f"{results['summary']['output']['psnr']['mean']:.2f}" in page.text


def test_a_mask_of_the_data_set_is_the_body(tmp_path):
    mask = np.zeros((32, 32, 1), bool)
    mask[4:20, 6:30] = True
    examples = [example | {"mask": mask} for example in _pairs(4)]
    results = _evaluate(Identity(), examples, tmp_path)
    assert results["body"] == "mask of the data set"
    for row, example in zip(results["per_image"], examples, strict=True):
        error = np.abs(example["source"] - example["target"])[4:20, 6:30]
        assert row["output"]["mae_body"] == pytest.approx(error.mean(), rel=1e-5)
    text = _Page(tmp_path / "report.html").text
    assert "MAE in the body" in text and "The body is the data set's mask." in text
    empty = [example | {"mask": np.zeros_like(mask)} for example in examples]
    results = _evaluate(Identity(), empty, tmp_path)
    assert results["summary"]["output"]["mae_body"]["mean"] is None
    for bad, message in (
        ([examples[0], next(_pairs(1))], "expected a mask with every example.*Received: none with"),
        ([next(_pairs(1)), examples[1]], "Received: one with 'slice 1'"),
        ([examples[0] | {"mask": mask[1:]}], r"with 'slice 0'. Received: \(31, 32, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            _evaluate(Identity(), bad, tmp_path)


def test_the_body_of_a_ct_is_found_and_of_other_images_is_not(tmp_path):
    image = np.full((32, 32, 1), -1000.0, np.float32)
    image[8:24, 8:24] = 30.0
    noisy = image + np.random.default_rng(0).normal(0, 20, image.shape).astype("float32")
    examples = [{"source": noisy, "target": image, "name": "a"}]
    results = _evaluate(Identity(), examples, tmp_path)
    assert results["body"] == "threshold"
    expected = np.abs(noisy - image)[8:24, 8:24].mean()
    assert results["per_image"][0]["output"]["mae_body"] == pytest.approx(expected, rel=1e-5)

    class MR(Identity):
        source = target = Domain(modality="MR", unit="signal", window=(0.0, 200.0))

    results = _evaluate(MR(), examples, tmp_path)
    assert results["body"] is None and "mae_body" not in results["summary"]["output"]


def test_slices_in_any_order_are_measured_as_the_volume_that_they_are(tmp_path):
    class MR(Blur):
        source = target = Domain(modality="MR", unit="signal", window=(0.0, 400.0))

    examples = []
    for patient, numbers in (("p", range(8, 14)), ("q", range(3)), ("r", (0, 2, 3))):
        for number, example in zip(numbers, _pairs(len(numbers)), strict=True):
            texts = {"patient": patient, "name": f"file{patient}-{number:03d}"}
            target = np.abs(example["target"]) * (1 + number)
            examples.append(example | texts | {"target": target})
    shuffled = [examples[i] for i in np.random.default_rng(0).permutation(len(examples))]
    results = _evaluate(MR(), shuffled, tmp_path)
    volumes = results["volumes"]
    assert (volumes["definition"], volumes["volumes"], volumes["left_out"]) == ("fastMRI", 2, 1)
    for row in volumes["per_volume"]:
        mine = [e for e in examples if e["patient"] == row["patient"]]
        assert row["name"] == f"file{row['patient']}" and row["slices"] == len(mine)
        target = np.stack([e["target"] for e in mine])
        source = np.stack([e["source"] for e in mine])
        expected = metrics.fastmri(MR().translate(source), target)
        assert row["output"] == pytest.approx(expected, rel=1e-5)
        assert row["input"] == pytest.approx(metrics.fastmri(source, target), rel=1e-5)
    summary = volumes["summary"]["output"]["ssim_fastmri"]
    assert summary["patients"]["count"] == 2
    text = _Page(tmp_path / "report.html").text
    assert "SSIM, fastMRI" in text and "1 with a gap" in text
    # Numbered images of nobody in particular are no volume.
    assert _evaluate(MR(), [e | {"patient": ""} for e in examples], tmp_path)["volumes"] is None


def test_volumes_of_ct_are_measured_as_synthrad_does(tmp_path):
    wide = Domain(modality="CT", unit="HU", window=(-1024.0, 1500.0))
    model = VolumeBlur()
    model.source = model.target = wide
    volumes = list(_volumes(2, depth=9))
    results = _evaluate(model, volumes, tmp_path)
    assert results["volumes"]["definition"] == "SynthRAD2023"
    for row, example in zip(results["volumes"]["per_volume"], volumes, strict=True):
        output, target = model.translate(example["source"][None])[0], example["target"]
        expected = metrics.synthrad(output, target, metrics.body_mask(target))
        assert row["output"] == pytest.approx(expected, rel=1e-5)
    assert "SSIM, SynthRAD2023" in _Page(tmp_path / "report.html").text
    assert _evaluate(model, _volumes(1, depth=6), tmp_path)["volumes"] is None  # none of 7 slices


def test_the_command_prints_intervals_over_patients(tmp_path):
    results = _evaluate(Blur(), _pairs(10), tmp_path)
    lines = measure.summary_lines(results)
    found = results["summary"]["output"]["psnr"]["patients"]
    low, high = found["ci95"]
    line = next(line for line in lines if line.startswith("  PSNR "))
    assert line.startswith(f"  PSNR {found['mean']:.4g} dB ({low:.4g} to {high:.4g}, 4 patients)")
    gain = results["summary"]["gain"]["psnr"]["patients"]
    assert line.endswith(
        f"against the input {gain['mean']:+.4g} dB ({gain['ci95'][0]:+.4g} to "
        f"{gain['ci95'][1]:+.4g})"
    )
    assert any(line.startswith("  MAE in the body ") and " HU (" in line for line in lines)
    unknown = [{k: v for k, v in e.items() if k != "patient"} for e in _pairs(10)]
    lines = measure.summary_lines(_evaluate(Blur(), unknown, tmp_path))
    assert any(line.startswith("  PSNR ") and ", 10 images)" in line for line in lines)


def test_ct_is_shown_in_clinical_windows_and_its_errors_within_them(tmp_path):
    model = Blur()
    model.source = model.target = Domain(modality="CT", unit="HU", window=(-1024.0, 1500.0))
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    target = np.where(x**2 + y**2 < 0.8, 40.0, -1000.0)
    target[((abs(x) - 0.4) / 0.3) ** 2 + (y / 0.5) ** 2 < 1] = -850.0
    target = target[..., None].astype("float32")
    example = {"source": target + 5, "target": target, "name": "chest"}
    _evaluate(model, [example], tmp_path)
    page = _Page(tmp_path / "report.html")
    assert "Soft tissue, -160 to 240 HU" in page.text and "Lung, -1350 to 150 HU" in page.text
    assert "Bone" not in page.text and len(page.images) == 2 * 4
    for window, (source, output, shown, error) in zip(
        [(-160, 240), (-1350, 150)], [page.images[:4], page.images[4:]], strict=True
    ):
        made = model.translate(example["source"][None])[0]
        np.testing.assert_array_equal(shown, figures.grey(target, window))
        np.testing.assert_array_equal(source, figures.grey(example["source"], window))
        np.testing.assert_array_equal(output, figures.grey(made, window))
        difference = np.clip(made, *window) - np.clip(target, *window)
        limit = figures.round_limit(np.percentile(abs(difference), 99.5))
        np.testing.assert_array_equal(error, figures.diverging(difference, limit))


def test_results_do_not_depend_on_batching_and_repeat(tmp_path):
    runs = [
        _evaluate(Blur(), _pairs(7), tmp_path / str(size), batch_size=size) for size in (1, 3, 3)
    ]
    for run in runs:
        run.pop("created")
    assert runs[0] == runs[1] == runs[2]
    limited = _evaluate(Blur(), _pairs(7), tmp_path / "l", limit=4)
    assert limited["per_image"] == runs[0]["per_image"][:4]


def test_report_escapes_what_data_say(tmp_path):
    nasty = '<script>alert("x")</script>&'
    examples = list(_pairs(4, name=nasty))
    examples[0]["name"] = nasty
    _evaluate(Identity(), examples, tmp_path, description=nasty)
    page = _Page(tmp_path / "report.html")  # fails on a script tag
    assert nasty + "1" in page.text and "script" not in page.tags


def test_identity_has_no_gain_and_perfect_output_is_finite(tmp_path):
    results = _evaluate(Identity(), _pairs(3), tmp_path)
    assert results["summary"]["gain"]["psnr"]["mean"] == 0
    same = [example | {"source": example["target"]} for example in _pairs(3)]
    results = _evaluate(Identity(), same, tmp_path)
    assert results["summary"]["output"]["psnr"]["mean"] == 100.0
    assert results["summary"]["output"]["rmse"]["mean"] == 0.0


def test_single_image_without_patient_has_no_interval(tmp_path):
    example = next(_pairs(1))
    del example["patient"]
    results = _evaluate(Identity(), [example], tmp_path)
    assert results["patients"] is None and results["per_patient"] == []
    assert results["summary"]["output"]["psnr"]["ci95"] == [None, None]
    assert "no interval" in _Page(tmp_path / "report.html").text


def test_super_resolution_is_compared_with_bicubic(tmp_path):
    class Enlarge(Identity):
        scale = 2

        def translate(self, array):
            return array.repeat(2, axis=1).repeat(2, axis=2)

    examples = [example | {"source": example["target"][::2, ::2]} for example in _pairs(3)]
    results = _evaluate(Enlarge(), examples, tmp_path)
    assert results["baseline"] == "input, bicubic"
    assert results["summary"]["gain"]["psnr"]["mean"] < 0  # bicubic beats repetition
    page = _Page(tmp_path / "report.html")
    assert "Input, bicubic" in page.text
    assert {image.shape[:2] for image in page.images} == {(32, 32)}  # the input too, enlarged


def test_k_space_is_compared_with_and_shown_as_zero_filling(tmp_path):
    class Reconstruction(Identity):
        source = Domain(modality="MR", unit="k-space", window=(-1e4, 1e4), channels=2)
        target = Domain(modality="MR", unit="signal", window=(0.0, 200.0))

        def translate(self, array):
            return np.stack([fourier.zero_filled(image) for image in array]) + 5.0

    examples = []
    for example in _pairs(3):
        target = abs(example["target"])
        kspace = fourier.to_kspace(target[..., 0])
        kspace[::2] = 0
        source = fourier.to_channels(kspace)
        examples.append(example | {"source": source, "target": target})
    results = _evaluate(Reconstruction(), examples, tmp_path)
    assert results["baseline"] == "zero-filled"
    expected = [metrics.mae(fourier.zero_filled(e["source"]), e["target"]) for e in examples]
    assert results["summary"]["input"]["mae"]["mean"] == pytest.approx(np.mean(expected))
    page = _Page(tmp_path / "report.html")
    assert "against zero filling" in page.text and "Zero-filled" in page.text
    shown = [figures.grey(fourier.zero_filled(e["source"]), (0, 200)) for e in examples]
    for image in page.images[::4]:
        assert any(np.array_equal(image, each) for each in shown)


class VolumeBlur(Blur):
    dimensions = 3

    def translate(self, array):
        assert array.ndim == 5
        return scipy.ndimage.gaussian_filter(array, (0, 1, 1, 1, 0))


def _volumes(n, depth=16, sides=(32, 32)):
    for i in range(n):
        target = np.stack([_image([i, k], 32) for k in range(depth)])[:, : sides[0], : sides[1]]
        noise = np.random.default_rng([3, i]).normal(0, 30, target.shape)
        yield {"source": (target + noise).astype("float32"), "target": target, "name": f"v{i}"}


def test_volumes_are_measured_whole_and_shown_in_the_middle(tmp_path):
    results = _evaluate(VolumeBlur(), _volumes(3), tmp_path)
    assert (results["dimensions"], results["ms_ssim_scales"]) == (3, [2])
    for row, example in zip(results["per_image"], _volumes(3), strict=True):
        output = VolumeBlur().translate(example["source"][None])[0]
        clipped = [np.clip(x, *CT.window) for x in (output, example["target"])]
        error = np.subtract(*clipped, dtype=float)
        assert row["output"]["psnr"] == pytest.approx(10 * np.log10(400**2 / np.mean(error**2)))
        pairs = zip(output, example["target"], strict=True)
        slices = [metrics.ssim(*pair, CT.window) for pair in pairs]
        assert row["output"]["ssim"] == pytest.approx(np.mean(slices))
    page = _Page(tmp_path / "report.html")
    assert "3 volumes" in page.text and "the middle slice" in page.text
    assert len(page.images) == 3 * 4
    middle = [figures.grey(example["target"][8], CT.window) for example in _volumes(3)]
    for image in page.images[2::4]:
        assert any(np.array_equal(image, each) for each in middle)
    with pytest.raises(ValueError, match=r"at least 11 x 11.*Received: shape \(32, 8, 1\)"):
        _evaluate(VolumeBlur(), _volumes(1, sides=(32, 8)), tmp_path / "e")
    with pytest.raises(ValueError, match=r"source \[D, H, W, C\]"):
        _evaluate(VolumeBlur(), _pairs(1), tmp_path / "e")
    assert not (tmp_path / "e").exists()
    unaligned = _evaluate(VolumeBlur(), _volumes(6), tmp_path, aligned=False)
    assert unaligned["sliced_wasserstein"]["images"] == 3
    assert _Page(tmp_path / "report.html").images[0].shape == (32, 32)


class Threshold(Double):
    """A classifier: 0 below 0, 1 up to 100, 2 above; it has no 3."""

    target = Domain(modality="SEG", unit="class", window=(0.0, 3.0))
    classes = 4

    def translate(self, array):
        return np.digitize(array, (0.0, 100.0)).astype("float32")


def _label_maps(n):
    for example in _pairs(n):
        target = np.digitize(example["target"], (0.0, 100.0)).astype(np.uint8)
        yield example | {"target": target}


def test_segmentation_numbers(tmp_path):
    names = ("air & <nothing>", "soft", "hard", "rare")
    examples = list(_label_maps(7))
    examples[4]["target"][0, :2] = 3
    results = _evaluate(Threshold(), examples, tmp_path, label_names=names)
    assert results["kind"] == "segmentation" and results["label_names"] == list(names)
    assert json.loads((tmp_path / "metrics.json").read_text()) == results
    rows = results["per_image"]
    for i, (row, example) in enumerate(zip(rows, examples, strict=True)):
        output = Threshold().translate(example["source"])
        both = [output == k for k in range(4)], [example["target"] == k for k in range(4)]
        overlap = [
            2 * np.sum(a & b) / (a.sum() + b.sum()) if a.any() or b.any() else None
            for a, b in zip(*both, strict=True)
        ]
        assert list(row["classes"].values()) == pytest.approx(overlap)
        assert row["output"]["accuracy"] == pytest.approx(np.mean(output == example["target"]))
        # The class that is missed counts as 0 where it is, and not at all elsewhere.
        assert overlap[3] == (0.0 if i == 4 else None)
        expected = sum(overlap[1:3]) / (3 if i == 4 else 2)
        assert row["output"]["dice"] == pytest.approx(expected)
    summary = results["summary"]
    scores = [row["output"]["dice"] for row in rows]
    assert summary["output"]["dice"]["mean"] == pytest.approx(np.mean(scores))
    assert summary["output"]["dice"]["median"] == pytest.approx(np.median(scores))
    low, high = summary["output"]["dice"]["patients"]["ci95"]
    assert low < np.mean(scores) < high
    assert (summary["classes"]["rare"]["images"], summary["classes"]["soft"]["images"]) == (1, 7)
    assert summary["classes"]["rare"]["ci95"] == [None, None]
    assert [p["classes"]["rare"] for p in results["per_patient"]] == [None, 0.0, None]
    pixels = np.stack([example["target"] for example in examples])
    commonest = np.bincount(pixels.ravel()).argmax()
    majority = results["majority"]
    assert majority["class"] == names[commonest]
    assert majority["accuracy"] == pytest.approx(np.mean(pixels == commonest))
    assert sum(results["share"].values()) == pytest.approx(1)
    page = _Page(tmp_path / "report.html")
    assert len(page.images) == 5 * 3  # source, output, target
    for text in ("air & <nothing>", "Worst mean Dice", "Near the median mean Dice", "7 images"):
        assert text in page.text
    worst = examples[int(np.argmin(scores))]
    shown = figures.overlay(worst["source"], worst["target"], CT.window, 4)
    assert any(np.array_equal(image, shown) for image in page.images)


def test_segmentation_of_volumes_and_of_images_without_a_class(tmp_path):
    class Volumes(Threshold):
        dimensions = 3

    examples = [e | {"target": Threshold().translate(e["target"])} for e in _volumes(2, 4)]
    results = _evaluate(Volumes(), examples, tmp_path)
    assert results["label_names"] == ["0", "1", "2", "3"] and results["images"] == 2
    empty = np.full((16, 16, 1), -50.0, np.float32)
    examples = [{"source": empty, "target": 0 * empty, "patient": "p"}] * 2
    results = _evaluate(Threshold(), examples, tmp_path)
    assert results["summary"]["output"]["dice"]["mean"] is None
    assert results["summary"]["classes"]["0"]["mean"] == 1.0
    assert "No image has a foreground class" in _Page(tmp_path / "report.html").text


def test_segmentation_errors(tmp_path):
    bad = list(_label_maps(2))
    bad[1]["target"][0, 0] = 7
    for examples, options, message in (
        (bad, {}, r"'slice 1': target: expected labels from 0 to 3. Received: 7 in 1 of 1024"),
        (_label_maps(1), {"label_names": ("a", "b")}, "label_names: expected 4 different names"),
        (_label_maps(1), {"aligned": False}, "aligned: .*Received: False"),
    ):
        with pytest.raises(ValueError, match=message):
            _evaluate(Threshold(), examples, tmp_path / "e", **options)
    assert not (tmp_path / "e").exists()


def test_other_units_have_no_gain_and_slices_take_the_middle(tmp_path):
    class Synthesis(Identity):
        source = Domain(modality="MR", unit="signal", window=(0.0, 1000.0))

    results = _evaluate(Synthesis(), _pairs(3), tmp_path)
    assert results["baseline"] is None and list(results["summary"]) == ["output"]

    class Middle(Identity):
        def translate(self, array):
            return array[..., 1:2]

    stacks = [
        example | {"source": np.concatenate([0 * example["source"], example["source"]] * 2, -1)}
        for example in _pairs(3)
    ]
    stacks = [example | {"source": example["source"][..., :3]} for example in stacks]
    results = _evaluate(Middle(), stacks, tmp_path)
    assert results["summary"]["gain"]["mae"]["mean"] == 0


def test_unaligned_translation_is_compared_as_sets(tmp_path):
    perfect = [example | {"source": example["target"]} for example in _pairs(16)]
    results = _evaluate(Identity(), perfect, tmp_path / "same", aligned=False)
    distances = results["sliced_wasserstein"]
    assert distances["images"] == 8
    assert distances["output"] == distances["real target"] == distances["input"]
    assert "per_image" not in results
    results = _evaluate(Blur(), _pairs(16), tmp_path / "blur", aligned=False)
    distances = results["sliced_wasserstein"]
    assert distances["real target"]["32"] < distances["output"]["32"] < distances["input"]["32"]
    page = _Page(tmp_path / "blur" / "report.html")
    assert len(page.images) == 5 * 3 and "Real targets (reference)" in page.text


class Generator(Double):
    source = Domain()

    def __init__(self, copies=()):
        self.copies = list(copies)

    def generate(self, n, seed=0):
        fresh = [_image([9, seed, i]) for i in range(n - len(self.copies))]
        return np.stack(self.copies + fresh)


def _singles(n, seed):
    return [
        {"image": _image([seed, i]), "patient": f"p{i}", "name": f"image {i}"} for i in range(n)
    ]


def test_generation_finds_copies(tmp_path):
    training = _singles(60, seed=5)
    model = Generator(copies=[training[11]["image"], training[40]["image"] + 1])
    results = _evaluate(model, iter(_singles(24, seed=6)), tmp_path, training_images=training)
    assert results["kind"] == "generation" and results["images"] == 24
    found = results["memorisation"]
    assert found["flagged"] == 2 and found["training_images"] == 60
    assert [image["copy"] for image in found["per_image"]] == [True, True] + [False] * 22
    assert set(results["sliced_wasserstein"]) == {"images", "generated", "training"}
    page = _Page(tmp_path / "report.html")
    assert len(page.images) == 3 + 6 * 2
    assert "2 of 24 generated images are suspiciously close" in page.text
    assert json.loads((tmp_path / "metrics.json").read_text()) == results


def test_generation_without_training_images(tmp_path):
    results = _evaluate(Generator(), _singles(8, seed=6), tmp_path, limit=5)
    assert results["memorisation"] is None and results["images"] == 5
    text = _Page(tmp_path / "report.html").text
    assert "Not checked" in text and "at most 5 asked for" in text


def test_errors_leave_nothing_behind(tmp_path):
    class Broken(Identity):
        def translate(self, array):
            output = array.copy()
            output[0, 3, 4] = np.nan
            return output

    class Cut(Identity):
        def translate(self, array):
            return array[:, :-1]

    class BrokenGenerator(Generator):
        def generate(self, n, seed=0):
            return super().generate(n, seed) * np.inf

    bad = list(_pairs(2))
    bad[1]["target"][0, 0] = np.inf
    cases = [
        (Broken(), _pairs(2), r"model: .*output for 'slice 0'.*Received: NaN or infinity in 1 of"),
        (Cut(), _pairs(2), r"target's shape \(32, 32, 1\) for 'slice 0'.*Received: \(31, 32, 1\)"),
        (BrokenGenerator(), _singles(3, 0), "model: .*generated image 0"),
        (Identity(), bad, "dataset: .*target of 'slice 1'"),
        (Identity(), [], "dataset: expected at least one example.*'test' of ldct/phantom"),
        (Identity(), [{"source": np.zeros((32, 32, 1))}], "source and target.*Received: source"),
        (Identity(), [{"source": np.zeros((32, 32)), "target": 0}], r"expected source \[H, W, C\]"),
    ]
    for model, dataset, message in cases:
        with pytest.raises(ValueError, match=message):
            _evaluate(model, dataset, tmp_path / "e")
    with pytest.raises(ValueError, match="limit: expected 1 or more"):
        _evaluate(Identity(), _pairs(1), tmp_path / "e", limit=0)
    assert not (tmp_path / "e").exists()


def test_examples_are_read_as_a_stream(tmp_path, monkeypatch):
    """Held examples stay few while all images count, and best and worst are among them."""
    monkeypatch.setattr(measure, "_KEPT", 3)
    kept = measure._Kept(0, "PSNR")
    for score in np.random.default_rng(0).permutation(200):
        kept.add({"score": score}, float(score))
        assert len(kept.sample) <= 3
    chosen = kept.chosen(99.5)
    assert ("Best PSNR", {"score": 199}) in chosen and ("Worst PSNR", {"score": 0}) in chosen
    assert 3 <= len(chosen) <= 5

    def endless():
        i = 0
        while True:
            yield next(_pairs(1)) | {"name": str(i)}
            i += 1

    assert _evaluate(Identity(), endless(), tmp_path, limit=6)["images"] == 6
