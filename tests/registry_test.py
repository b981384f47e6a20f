import json
import subprocess
import sys

import numpy as np
import pytest

import zoo
from zoo import registry, translator

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
        translator.load_network(model, tmp_path / "bad.weights.h5", "")
    with pytest.raises(FileNotFoundError, match="gone.weights.h5"):
        translator.load_network(model, tmp_path / "gone.weights.h5", "")
    model.save_network(tmp_path / "other.weights.h5")
    for fields in ({"base_filters": 8, "levels": 3}, {"base_filters": 4, "levels": 4}):
        other = zoo.load("encoder_decoder", **fields)
        with pytest.raises(ValueError, match="other.weights.h5: expected weights of"):
            translator.load_network(other, tmp_path / "other.weights.h5", "")


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
