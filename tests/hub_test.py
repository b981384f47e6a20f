"""Models in Hugging Face's layout: published to a folder, loaded from it and from the cache."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import yaml

import zoo
from zoo import command_line, hub, registry
from zoo.domain import Domain

ROOT = Path(__file__).resolve().parent.parent


def publish(name: str, folder: Path) -> Path:
    assert command_line.main(["zoo", "publish", f"--model={name}", f"--to={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return publish("srcnn_mri_x2", tmp_path_factory.mktemp("hub") / "srcnn_mri_x2")


def test_all_pretrained_models_come_back_bit_equal(tmp_path):
    for name in registry.index()["pretrained"]:
        folder = publish(name, tmp_path / name)
        entry, again = registry.lookup(name), registry.lookup(folder)
        assert Path(entry.weights).read_bytes() == Path(again.weights).read_bytes()
        for field in ("model", "recipe", "sha256", "trained_on"):
            assert getattr(entry, field) == getattr(again, field), (name, field)
        for side in ("source", "target"):
            domains = [Domain.from_dict(getattr(each, side)) for each in (entry, again)]
            assert domains[0] == domains[1], (name, side)


def test_a_folder_loads_as_the_model_does(published):
    model = zoo.load(str(published))
    assert model.weights_hash == zoo.load("srcnn_mri_x2").weights_hash
    assert dict(model.trained_on) == {"spacing": [1.0, 2.4]}


def test_the_card_is_what_the_hub_reads(published):
    card = huggingface_hub.ModelCard.load(published / "README.md", ignore_metadata_errors=False)
    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "image-to-image"
    row = registry.index()["pretrained"]["srcnn_mri_x2"]
    results = {each.metric_type: each.metric_value for each in card.data.eval_results}
    assert results["psnr_over_bicubic_db"] == row["metrics"]["psnr_over_bicubic_db"][0]
    assert "Not a medical device" in card.text
    front = (published / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    assert yaml.safe_load(front)["library_name"] == "keras"
    assert "](../" not in card.text  # links that lead nowhere there


def test_the_cache_serves_it_without_a_network(published, tmp_path):
    home = tmp_path / "hub"
    revision = "0" * 40
    repository = home / "models--someone--srcnn"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    shutil.copytree(published, repository / "snapshots" / revision)
    script = (
        "import zoo; print(zoo.load('hf:someone/srcnn').weights_hash)\n"
        "try:\n    zoo.load('hf:someone/other')\nexcept OSError as error:\n    print(error)\n"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    digest, refused = done.stdout.splitlines()
    assert digest == zoo.load("srcnn_mri_x2").weights_hash
    assert refused.startswith("hf:someone/other: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [("hf:", "expected hf:owner/name"), ("hf:../../x", "expected"), ("hf:a/b/c", "expected")],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        registry.lookup(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "expected a model of zoo-medical, format 1"),
        ({"library": "keras-hub"}, "expected a model of zoo-medical"),
        ({"sha256": "abc"}, "64 hexadecimal digits"),
        ({"recipe": []}, "recipe: expected dict"),
        ({"source": {"window": [1, 0]}}, "source: "),
        ({"model": "os"}, "model: no model is called 'os'"),
        ({"recipe": {"nothing": 1}}, "nothing"),
    ],
)
def test_a_damaged_config_is_one_line(published, tmp_path, change, message):
    folder = tmp_path / "damaged"
    shutil.copytree(published, folder)
    config = json.loads((folder / hub.CONFIG).read_text())
    (folder / hub.CONFIG).write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message):
        registry.lookup(folder)


def test_other_weights_are_refused(published, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(published, folder)
    with open(folder / hub.WEIGHTS, "ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="expected sha256"):
        zoo.load(folder)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new", tmp_path / "empty"):
        there = folder.exists()
        with monkeypatch.context() as patched:
            patched.setattr(hub, "write_atomic", full)  # behind the weights
            command = ["zoo", "publish", "--model=srcnn_mri_x2", f"--to={folder}"]
            assert command_line.main(command) == 1
        assert folder.exists() == there and not (there and list(folder.iterdir()))
        assert hub.exists(publish("srcnn_mri_x2", folder))


def test_a_folder_that_holds_something_is_left_alone(published, capsys):
    before = {path.name: path.read_bytes() for path in published.iterdir()}
    code = command_line.main(["zoo", "publish", "--model=srcnn_mri_x2", f"--to={published}"])
    assert code == 1
    assert "expected a new or an empty folder" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in published.iterdir()}
