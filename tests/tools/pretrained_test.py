"""tools/pretrained.py: the records and the entries that it writes."""

import json

import pytest
import yaml

from tools import pretrained
from zoo import run


def test_entry_is_written_in_order_and_read_back(tmp_path, monkeypatch):
    (tmp_path / "registry.yaml").write_text("models: {}\n\npretrained:\n  zebra:\n    model: a\n")
    monkeypatch.setattr(pretrained, "ROOT", tmp_path)
    pretrained.write_entry("ape", {"model": "b", "folder": "dropped", "metrics": {"x": [1, 0, 2]}})
    text = (tmp_path / "registry.yaml").read_text()
    assert text.index("ape") < text.index("zebra") and text.startswith("models: {}")
    read = yaml.safe_load(text)["pretrained"]
    assert read == {"ape": {"model": "b", "metrics": {"x": [1, 0, 2]}}, "zebra": {"model": "a"}}


def test_a_finished_runs_record_is_kept_with_its_command(tmp_path, monkeypatch):
    domain = {"modality": "CT", "unit": "HU", "window": [-1024.0, 1500.0], "channels": 1}
    record = {"model": "pix2pix", "recipe": {"steps": 3}, "source": domain, "target": domain}
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path / "weights")
    folder = tmp_path / "cyclegan_cbct_ct"
    run.write(folder, record | {"state": "interrupted", "step": 2})
    with pytest.raises(ValueError, match="expected a finished run. Received: interrupted"):
        pretrained.keep_record("cyclegan_cbct_ct", "kept.json")
    run.write(folder, record | {"state": "done", "step": 3, "metrics": {"mae": 1.0}})
    assert pretrained.keep_record("cyclegan_cbct_ct", "kept.json")["metrics"] == {"mae": 1.0}
    kept = json.loads((tmp_path / "weights" / "kept.json").read_text())
    assert kept.pop("command").endswith(" ".join(pretrained.command("cyclegan_cbct_ct")))
    assert kept == record | {"state": "done", "step": 3}
