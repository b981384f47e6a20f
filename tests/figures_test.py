import numpy as np
import pytest
from PIL import Image

from zoo import figures
from zoo.evaluation.page import document, panels, section


def test_grey_maps_the_window_and_clips():
    image = np.array([[-500.0, -160.0, 40.0, 240.0, 3000.0, np.nan, np.inf]])
    assert figures.grey(image, (-160, 240)).tolist() == [[0, 0, 128, 255, 255, 0, 255]]
    channels = np.stack([np.zeros((2, 2)), np.ones((2, 2)), np.zeros((2, 2))], -1)
    assert figures.grey(channels, (0, 1)).min() == 255  # the middle slice
    with pytest.raises(ValueError, match=r"image: expected .* Received: shape \(3,\)"):
        figures.grey(np.zeros(3), (0, 1))


def test_diverging_is_symmetric_and_saturates():
    colours = figures.diverging(np.array([[-99.0, -5.0, 0.0, 5.0, 99.0]]), 5.0)[0].astype(int)
    assert colours[0].tolist() == colours[1].tolist() and colours[3].tolist() == colours[4].tolist()
    assert colours[0][2] > colours[0][0] and colours[4][0] > colours[4][2]  # blue, red
    assert colours[2].min() > 240 and np.ptp(colours[2]) < 5


def test_overlay_colours_classes_and_leaves_the_background():
    colours = figures.label_colours(7)
    assert colours.dtype == np.uint8 and colours[0].tolist() == [0, 0, 0]
    assert len(np.unique(figures.label_colours(21), axis=0)) == 21
    assert figures.label_colours(50).shape == (50, 3)
    image = np.full((2, 2, 1), 1.0)
    labels = np.array([[0, 1], [2, 6]], np.float32)[..., None]
    assert figures.overlay(image, labels, (0, 1), 7, opacity=1.0)[0, 0].tolist() == [255] * 3
    opaque = figures.overlay(image, labels, (0, 1), 7, opacity=1.0)
    np.testing.assert_array_equal(opaque[[0, 1, 1], [1, 0, 1]], colours[[1, 2, 6]])
    half = figures.overlay(image, labels, (0, 1), 7, opacity=0.5)
    np.testing.assert_allclose(half[1, 1], (255 + colours[6].astype(float)) / 2, atol=0.5)
    with pytest.raises(ValueError, match=r"one size. Received: \(2, 2\) and \(3, 3\)"):
        figures.overlay(image, np.zeros((3, 3)), (0, 1), 7)


@pytest.mark.parametrize(
    ("value", "limit"), [(210, 300), (1, 1), (0.011, 0.02), (7.5, 8), (99, 100), (0, 1)]
)
def test_round_limit(value, limit):
    assert figures.round_limit(value) == pytest.approx(limit)


def test_shrink_averages_blocks():
    image = np.arange(16.0).reshape(4, 4)
    np.testing.assert_array_equal(figures.shrink(image, 2), [[2.5, 4.5], [10.5, 12.5]])
    assert figures.shrink(image, 4) is image
    assert figures.shrink(np.zeros((1000, 700, 2)), 300).shape == (250, 175, 2)


def test_grid_places_panels_and_errors():
    low, high = np.full((32, 32, 1), -160.0), np.full((32, 32, 1), 240.0)
    rows = [
        {"source": low, "output": high, "target": low},
        {"source": high, "output": low, "target": low},
    ]
    picture = figures.grid(rows, (-160, 240), error=("output", "target"), unit="HU", panel=64)
    assert picture.dtype == np.uint8 and picture.shape[1] == 4 * 64 + 3 * 4
    centres = [[picture[18 + 32 + 68 * r, 32 + 68 * c].tolist() for c in range(4)] for r in (0, 1)]
    black, white = [0, 0, 0], [255, 255, 255]
    assert centres[0][:3] == [black, white, black]
    assert centres[1][:3] == [white, black, black]
    assert centres[0][3][0] > centres[0][3][2] + 50  # positive error: red
    assert min(centres[1][3]) > 240  # none: near white
    assert len(np.unique(picture[:18])) > 2  # there is text in the top line


def test_grid_takes_a_window_for_each_column_and_rows_of_any_size():
    rows = [{"low": np.full((8, 8), 5.0), "high": np.full((16, 16), 5.0)}, {"high": np.eye(4)}]
    picture = figures.grid(rows, {"low": (5, 6), "high": (4, 5)}, panel=32)
    assert picture[18 + 10, 10].tolist() == [0, 0, 0]
    assert picture[18 + 10, 46].tolist() == [255, 255, 255]
    # Sizes that differ have no error map, and nothing fails.
    figures.grid(rows, {"low": (5, 6), "high": (4, 5)}, error=("low", "high"))
    with pytest.raises(ValueError, match="windows: expected a window for 'high'"):
        figures.grid(rows, {"low": (0, 1)})
    with pytest.raises(ValueError, match="rows: expected at least one row"):
        figures.grid([], (0, 1))


def _chest(lung=0.3):
    """A trunk in noisy air with two lungs of this half-width, foam beside it, and no bone."""
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    image = np.where((x / 0.9) ** 2 + (y / 0.7) ** 2 < 1, 40.0, -1000.0)
    image[((abs(x) - 0.42) / lung) ** 2 + (y / 0.45) ** 2 < 1] = -850.0
    image[-8:, 10:-10] = -800.0
    return image[..., None] + np.random.default_rng(0).normal(0, 15, (96, 96, 1))


def test_ct_is_shown_in_the_windows_that_its_content_needs():
    window = (-1024.0, 1500.0)
    soft, lung, bone = figures.CT_WINDOWS.values()
    labels = {
        "soft tissue, -160 to 240 HU": soft,
        "lung, -1350 to 150 HU": lung,
        "bone, -500 to 1300 HU": bone,
    }

    def shown(image, unit="HU", window=window):
        return figures.display_windows([image], unit, window)

    chest, foam = _chest(), _chest(lung=0.01)
    names = list(labels)
    assert shown(chest) == {name: labels[name] for name in names[:2]}
    assert list(shown(foam)) == names[:1]  # foam is no lung
    skull = foam.copy()
    skull[20:80, 40:46] = 900.0
    assert list(shown(skull)) == [names[0], names[2]]
    # A patch from within a lung, and one that is lung below a rib.
    patch = np.full((32, 32), -870.0)
    patch[10:16, 10:16] = 30.0
    assert next(iter(shown(patch))) == names[1]
    patch[4:8] = -960.0  # emphysema is no air
    patch[18:] = -970.0
    assert next(iter(shown(patch))) == names[1]
    # Air all around and nothing else.
    assert list(shown(np.full((32, 32), -1000.0))) == names[:1]
    # What the network cannot see is not looked for; a narrow window stays.
    assert list(shown(chest, window=(-160.0, 1500.0))) == names[:1]
    assert list(shown(skull, window=(-1024.0, 400.0))) == names[:1]
    assert shown(chest, window=(0.0, 80.0)) == {"window, 0 to 80 HU": (0.0, 80.0)}
    assert shown(chest, unit="signal", window=(0.0, 4.0)) == {"": (0.0, 4.0)}


def test_grid_shows_ct_in_a_window_of_each_row():
    window, panel = (-1024.0, 1500.0), 96
    patch = np.full((96, 96, 1), -850.0)
    rows = [{"mr": np.ones((96, 96)), "output": each, "target": each} for each in (_chest(), patch)]
    rows[1]["output"] = patch + 75.0
    windows = {"mr": (0, 2), "output": window, "target": window}
    ct = ("output", "target")
    picture = figures.grid(rows, windows, error=ct, unit="HU", ct=ct, panel=panel)
    step = panel + 4 + 18
    # The chest for soft tissue and for its lungs, the patch for lung alone.
    assert picture.shape[0] == 18 + 3 * step + 12
    first, again, second = (picture[18 + i * step : 18 + i * step + panel] for i in range(3))
    for column, image in ((1, rows[0]["output"]), (2, rows[0]["target"])):
        left = column * (panel + 4)
        for part, name in ((first, "soft tissue"), (again, "lung")):
            shown = figures.grey(image, figures.CT_WINDOWS[name])
            np.testing.assert_array_equal(part[:, left : left + panel, 0], shown)
    lung = figures.grey(rows[1]["output"], figures.CT_WINDOWS["lung"])
    np.testing.assert_array_equal(second[:, 100 : 100 + panel, 0], lung)
    assert (second[:, :panel] == 128).all()  # MR is shown as before
    # The error is that of the two panels: 75 HU, all of it red.
    assert (second[:, -panel:, 0] > second[:, -panel:, 2]).all()
    for i in range(3):  # the window's name below each row
        line = picture[18 + panel + i * step :][:18]
        assert line.max() > 200
    plain = figures.grid(rows, windows, panel=panel)
    assert plain.shape[0] == 18 + 2 * (96 + 4)


def test_sample_grid_has_a_caption_where_one_is_given():
    images = np.zeros((4, 64, 64, 1))
    plain = figures.sample_grid(images, (0, 1))
    picture = figures.sample_grid(images, (0, 1), caption="lung, -1350 to 150 HU")
    np.testing.assert_array_equal(picture[: len(plain)], plain)
    assert len(picture) == len(plain) + 18 and picture[len(plain) :].max() > 200


def test_sample_grid():
    images = np.zeros((5, 16, 16, 1))
    images[4] = 1.0
    picture = figures.sample_grid(images, (0, 1), panel=16)
    assert picture.shape == (2 * 18 - 2, 3 * 18 - 2, 3)
    assert picture[18 + 8, 18 + 8].tolist() == [255, 255, 255]
    assert picture[8, 8].tolist() == [0, 0, 0]
    assert figures.sample_grid(images, (0, 1), columns=5, panel=16).shape == (16, 88, 3)
    with pytest.raises(ValueError, match="N at least 1"):
        figures.sample_grid(images[:0], (0, 1))


def test_save_png_round_trip_and_atomic(tmp_path, monkeypatch):
    array = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    path = tmp_path / "samples" / "grid.png"
    figures.save_png(path, array)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), array)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(figures.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        figures.save_png(path, np.zeros((2, 2), np.uint8))
    assert [p.name for p in path.parent.iterdir()] == ["grid.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(path)), array)
    with pytest.raises(ValueError, match="array: expected uint8"):
        figures.save_png(path, array.astype("float32"))


def test_html_pieces_escape_their_texts():
    page = document("<t>", section("<a>", "<b>", "<hr>"))
    assert "<title>&lt;t&gt;</title>" in page
    assert "&lt;a&gt;" in page and "&lt;b&gt;" in page and "<hr>" in page
    shown = panels([('"x"', np.zeros((2, 2), np.uint8))])
    assert 'alt="&quot;x&quot;"' in shown and "data:image/png;base64," in shown
