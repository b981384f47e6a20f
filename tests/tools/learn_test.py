"""That each model learns, on its default data set: minutes each, `make learn`."""

import json

import pytest

import zoo
from tools import learn


def test_every_model_has_a_run():
    assert sorted(learn.RUNS) == zoo.names()


def test_a_row_stays_where_its_model_was_not_run(tmp_path, monkeypatch):
    for name in ("FOLDER", "PICTURES"):
        monkeypatch.setattr(learn, name, tmp_path)
    monkeypatch.setattr(learn, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(learn, "RUNS", dict.fromkeys(["automap", "srcnn"], ("sr", [])))
    learn.PAGE.write_text("# Page\n\n| model | b |\n|---|---|\n| `automap` | as before |\n")
    with pytest.raises(ValueError, match="none of {'srcnn'}"):
        learn.write_page()
    (tmp_path / "sample.png").write_bytes(b"picture")
    text = dict.fromkeys(["dataset", "measure", "baseline", "result", "gain"], "x")
    row = text | {
        "model": "srcnn",
        "precision": "float32",
        "steps": 7,
        "minutes": 2.4,
        "images": 3,
        "patients": 1,
    }
    (tmp_path / "srcnn.json").write_text(json.dumps(row | {"picture": "sample.png"}))
    learn.write_page()
    page = learn.PAGE.read_text()
    srcnn = "| `srcnn` | `x` | 7 in 3 min, float32 | 3 images of 1 patients | x | x | x | x |"
    assert f"|---|---|---|---|---|---|---|---|\n| `automap` | as before |\n{srcnn}\n" in page
    assert (tmp_path / "learn_srcnn.png").read_bytes() == b"picture"


@pytest.mark.learn
@pytest.mark.parametrize("name", list(learn.RUNS))
def test_beats_its_baseline(name):
    row = learn.learn(name)
    assert row["beats"], row


@pytest.mark.learn
def test_the_table_is_written_last():
    learn.write_page()
    page = learn.PAGE.read_text()
    assert all(f"| `{name}` |" in page for name in learn.RUNS)
