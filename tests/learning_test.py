"""That each model learns, on its default data set: minutes each, `make learn`."""

import importlib.util
from pathlib import Path

import pytest

import zoo

PATH = Path(__file__).parent.parent / "tools" / "learn.py"
SPEC = importlib.util.spec_from_file_location("learn", PATH)
learn = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(learn)


def test_every_model_has_a_run():
    assert sorted(learn.RUNS) == zoo.names()


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
