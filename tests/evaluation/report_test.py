import numpy as np

from measured import Blur, Identity, Page, evaluated, pairs
from zoo import figures
from zoo.domain import Domain


def test_ct_is_shown_in_clinical_windows_and_its_errors_within_them(tmp_path):
    model = Blur()
    model.source = model.target = Domain(modality="CT", unit="HU", window=(-1024.0, 1500.0))
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    target = np.where(x**2 + y**2 < 0.8, 40.0, -1000.0)
    target[((abs(x) - 0.4) / 0.3) ** 2 + (y / 0.5) ** 2 < 1] = -850.0
    target = target[..., None].astype("float32")
    example = {"source": target + 5, "target": target, "name": "chest"}
    evaluated(model, [example], tmp_path)
    page = Page(tmp_path / "report.html")
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


def test_report_escapes_what_data_say(tmp_path):
    nasty = '<script>alert("x")</script>&'
    examples = list(pairs(4, patient=nasty))
    examples[0]["name"] = nasty
    evaluated(Identity(), examples, tmp_path, description=nasty)
    page = Page(tmp_path / "report.html")  # fails on a script tag
    assert nasty + "1" in page.text and "script" not in page.tags
