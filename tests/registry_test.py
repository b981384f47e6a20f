import contextlib
import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

import zoo
from zoo import loading, registry, run

TINY = {"base_filters": 4, "levels": 3}


def test_names_by_task_and_modality():
    assert {"encoder_decoder", "pggan", "pix2pix"} <= set(zoo.names())
    assert zoo.names(modality="MG") == ["dcgan", "pggan", "srcnn", "srgan"]
    assert "automap" in zoo.names(modality="MR") and "automap" not in zoo.names(modality="PT")
    assert "pggan" not in zoo.names(task="denoising")
    assert zoo.names("datasets", task="denoising", modality="CT") == [
        "cbct_ct",
        "ct_recon",
        "ldct",
    ]
    with pytest.raises(zoo.UnknownName, match="Did you mean models"):
        zoo.names("model")


@pytest.mark.parametrize("ask", [zoo.describe, zoo.load, zoo.lookup])
def test_an_unknown_name_offers_the_nearest(ask):
    with pytest.raises(zoo.UnknownName, match="Did you mean pix2pix"):
        ask("pix2pxi")
    with pytest.raises(zoo.UnknownName, match="There are: .*pggan"):
        ask("zzzzzz")


def test_what_fits_has_the_kind_of_data_and_a_task_in_common():
    assert registry.fitting("srcnn") == ["folder", "sr"]
    assert registry.fitting("automap") == ["ct_recon", "mri_recon"]
    assert {"cbct_ct", "ct_recon", "folder", "mr_ct"} <= set(registry.fitting("cyclegan"))
    assert "automap" in registry.fitting("ct_recon")
    assert registry.fitting("mammo") == ["dcgan", "pggan"]
    assert registry.fitting("brain_seg") == ["encoder_decoder", "pix2pix"]


def test_a_data_set_is_no_model():
    with pytest.raises(zoo.UnknownName, match="no model is called 'ldct'"):
        zoo.load("ldct")


def test_a_name_is_a_text_or_a_path(tmp_path):
    with pytest.raises(ValueError, match=r"name: expected a name.* Received: None"):
        zoo.load(None)
    with pytest.raises(FileNotFoundError, match="run.json. Received: .*nothing"):
        zoo.load(tmp_path / "nothing")
    assert zoo.load("srcnn", target="image").recipe.target == "image"  # a field of the recipe
    with pytest.raises(ValueError, match=r"source: expected a zoo.Domain. Received: 'CT'"):
        zoo.load("srcnn", source="CT")


def test_unknown_config_offers_the_nearest():
    with pytest.raises(zoo.UnknownName, match="Did you mean phantom"):
        zoo.lookup("pix2pix", dataset="ldct/fantom")
    assert zoo.lookup("pix2pix", dataset="ldct").dataset == "ldct/phantom"


def test_describe_gives_recipes_and_documentation():
    described = zoo.describe("pix2pix")
    assert described["section"] == "models"
    assert "1611.07004" in described["documentation"]
    assert described["recipes"]["paper"]["lambda_l1"] == 100
    assert described["recipes"]["small"]["steps"] < described["recipes"]["paper"]["steps"]
    json.dumps(described)


def test_every_name_registers_its_class():
    for name in zoo.names():
        assert registry.model_class(name).registered_name == name


def test_a_name_has_one_owner():
    with pytest.raises(ValueError, match="registered by zoo.models.pix2pix.Pix2Pix"):

        @zoo.register("pix2pix")
        class Other(zoo.Translator):
            pass


def test_a_pretrained_name_checks_its_weights(tmp_path, monkeypatch):
    model = zoo.load("encoder_decoder", **TINY)
    digest = model.save_network(tmp_path / "net.weights.h5")
    fields = {
        "name": "net_ldct",
        "owner": "test",
        "folder": tmp_path,
        "model": "encoder_decoder",
        "dataset": "ldct/phantom",
        "overrides": TINY,
        "source": {"modality": "CT", "unit": "HU", "window": [-1000, 1000], "channels": 1},
        "target": {"modality": "CT", "unit": "HU", "window": [-1000, 1000], "channels": 1},
        "weights": "net.weights.h5",
        "sha256": digest,
    }
    monkeypatch.setitem(registry.index()["pretrained"], "net_ldct", fields)
    loaded = zoo.load("net_ldct")
    assert loaded.weights_hash == model.weights_hash
    assert loaded.source.unit == "HU"
    assert "net_ldct" in zoo.names("pretrained", modality="CT", task="denoising")
    monkeypatch.setitem(fields, "sha256", "0" * 64)
    with pytest.raises(ValueError, match="net.weights.h5: expected sha256 0000"):
        zoo.load("net_ldct")
    monkeypatch.setitem(fields, "weights", "../secret.weights.h5")
    with pytest.raises(ValueError, match="expected a path inside"):
        zoo.load("net_ldct")


def test_weights_that_are_none_are_refused(tmp_path):
    model = zoo.load("encoder_decoder", **TINY)
    (tmp_path / "bad.weights.h5").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"bad.weights.h5: expected weights of encoder_decoder"):
        loading.load_network(model, tmp_path / "bad.weights.h5", "")
    with pytest.raises(FileNotFoundError, match="gone.weights.h5"):
        loading.load_network(model, tmp_path / "gone.weights.h5", "")
    model.save_network(tmp_path / "other.weights.h5")
    for fields in ({"base_filters": 8, "levels": 3}, {"base_filters": 4, "levels": 4}):
        other = zoo.load("encoder_decoder", **fields)
        with pytest.raises(ValueError, match="other.weights.h5: expected weights of"):
            loading.load_network(other, tmp_path / "other.weights.h5", "")


def test_damaged_and_hostile_weights_are_one_line(tmp_path):
    model = zoo.load("encoder_decoder", **TINY)
    good = tmp_path / "good.weights.h5"
    model.save_network(good)
    name = "layers/conv2d/vars/0"

    def refused(change, message: str) -> None:
        path = tmp_path / "bad.weights.h5"
        path.unlink(missing_ok=True)
        shutil.copy(good, path)
        with h5py.File(path, "a") as file:
            shape = file[name].shape
            if change is not None:
                del file[name]
                change(file, shape)
        with pytest.raises(ValueError, match=message) as caught:
            loading.load_network(model, path, "")
        text = str(caught.value)
        assert text.startswith(f"{path}: expected weights of encoder_decoder.")
        assert "\n" not in text

    def external(file, shape):
        file[name] = h5py.ExternalLink(str(good), "/" + name)

    def soft(file, shape):
        file[name] = h5py.SoftLink("/layers/conv2d/vars/1")

    def virtual(file, shape):
        layout = h5py.VirtualLayout(shape, "float32")
        layout[...] = h5py.VirtualSource(str(good), name, shape=shape)
        file.create_virtual_dataset(name, layout)

    def stored_elsewhere(file, shape):
        parts = [("/dev/zero", 0, h5py.h5f.UNLIMITED)]
        file.create_dataset(name, shape=shape, dtype="float32", external=parts)

    def huge(file, shape):  # a terabyte that takes no room in the file
        file.create_dataset(name, (10**6, 10**6), "float32", chunks=(1000, 1000))

    refused(external, f"a link at {name}")
    refused(soft, f"a link at {name}")
    refused(virtual, f"data of another file at {name}")
    refused(stored_elsewhere, f"data of another file at {name}")
    refused(huge, r"float32 of shape \(1000000, 1000000\)")
    refused(lambda file, _: file.create_dataset(name, data=["a"]), "object of shape")
    refused(lambda file, _: None, "objects could not be loaded")
    # Bits that are flipped make HDF5 raise nearly anything.
    data, rng = good.read_bytes(), np.random.default_rng(0)
    for _ in range(12):
        damaged = bytearray(data)
        for place in rng.integers(0, 6000, 12):
            damaged[place] ^= 1 << int(rng.integers(8))
        path = tmp_path / "flipped.weights.h5"
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):
            loading.load_network(model, path, "")
    loading.load_network(model, good, "")


RUN = {
    "model": "encoder_decoder",
    "recipe": {"base_filters": 2, "levels": 2},
    "weights": None,
    "source": {"window": [0, 1]},
    "target": {"window": [0, 1]},
    "dataset": "",
    "preset": "small",
}


def write_run(folder, content) -> str:
    folder.mkdir(exist_ok=True)
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / "run.json").write_bytes(text)
    return str(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "expected JSON"),
        (b"\xff\xfe", "expected JSON"),
        (b"[" * 100_000, "run.json: expected JSON"),
        ([], "expected fields"),
        (None, "expected fields"),
        ({k: v for k, v in RUN.items() if k != "model"}, "model: .*no such field"),
        ({k: v for k, v in RUN.items() if k != "target"}, "target: .*no such field"),
        (RUN | {"model": "pix2pxi"}, "Did you mean pix2pix"),
        (RUN | {"recipe": "x"}, "recipe: expected fields"),
        (RUN | {"recipe": {"gone": 1}}, "no field 'gone'"),
        (RUN | {"recipe": {"learning_rate": float("nan")}}, "learning_rate: expected float"),
        (RUN | {"recipe": {"steps": float("inf")}}, "steps: expected int"),
        (RUN | {"recipe": {"steps": "1" * 5000}}, "steps: expected int"),
        (RUN | {"weights": {"file": "x"}}, "weights: sha256: expected a text"),
        (RUN | {"weights": "x"}, "weights: expected fields"),
        (RUN | {"best": {"file": "x", "sha256": "0"}}, "best: sha256: expected 64 hex"),
        (RUN | {"validation": {"every": "2"}}, "validation: every: expected a whole number"),
        (RUN | {"losses": {"steps": []}}, "losses: values: expected fields.*no such field"),
        (RUN | {"source": {"window": [1, 0]}}, "source: window: expected two"),
        (RUN | {"source": {"window": [float("nan"), 1]}}, "source: window: expected two"),
        (RUN | {"source": {"channels": 1.5}}, "source: channels: expected 1 to"),
        (RUN | {"source": {"channels": 10**9}}, "source: channels: expected 1 to"),
        (RUN | {"weights": {"file": "x", "sha256": ""}}, "weights: sha256: expected 64 hex"),
        (RUN | {"source": {"colour": 1}}, "source: .*colour"),
        (RUN | {"dataset": 7}, "dataset: expected a text"),
        (RUN | {"step": True}, "step: expected a whole number"),
    ],
)
def test_a_damaged_run_is_one_line_that_names_it(content, message, tmp_path):
    folder = write_run(tmp_path / "run", content)
    with pytest.raises(ValueError, match=message) as caught:
        zoo.load(folder)
    assert folder in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_reads_with_a_byte_order_mark_and_without_its_data_set(tmp_path, monkeypatch):
    content = json.dumps(RUN | {"dataset": "gone/config"}).encode()
    folder = write_run(tmp_path / "run", b"\xef\xbb\xbf" + content)
    with pytest.warns(UserWarning, match="the run has no weights yet, and these are random"):
        assert zoo.load(folder).recipe.base_filters == 2
    monkeypatch.setenv("HOME", str(tmp_path))
    assert zoo.load("~/run").recipe.base_filters == 2


@pytest.mark.parametrize("which", ["weights", "best"])
@pytest.mark.parametrize("file", ["../out.weights.h5", "{}/out.weights.h5", "link", "loop"])
def test_a_run_names_no_weights_outside_its_folder(file, which, tmp_path):
    (tmp_path / "out.weights.h5").write_bytes(b"x")
    weights = {"file": file.format(tmp_path), "sha256": "0" * 64}
    folder = write_run(tmp_path / "run", RUN | {which: weights})
    (tmp_path / "run" / "link").symlink_to(tmp_path / "out.weights.h5")
    (tmp_path / "run" / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match="weights: expected a path inside"):
        zoo.lookup(folder)


def test_translate_refuses_what_it_cannot_take():
    model = zoo.load("encoder_decoder", **TINY)
    with pytest.raises(ValueError, match=r"array: expected \[H, W\].*Received: shape \(4,\)"):
        model.translate(np.zeros(4))
    with pytest.raises(ValueError, match=r"\[N, H, W, 1\].*\(1, 8, 8, 3\)"):
        model.translate(np.zeros([1, 8, 8, 3]))
    with pytest.raises(ValueError, match="finite"):
        model.translate(np.full([8, 8], np.nan))
    with pytest.raises(TypeError, match="does not generate"):
        model.generate(1)


def test_importing_the_zoo_imports_no_tensorflow():
    code = "import sys, zoo; zoo.names(); assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_pipe_in_place_of_run_json_is_refused_and_not_read(tmp_path):
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(ValueError, match="run.json: expected a file"):
        run.read(tmp_path)


def test_a_path_of_weights_with_a_zero_byte_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"weights: expected a path inside .*a\\x00b"):
        run.inside(tmp_path, "a\0b")
