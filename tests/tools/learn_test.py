"""That each model learns, on its default data set: minutes each, `make learn`."""

import pytest

import zoo
from tools import learn


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
