import numpy as np
import pytest

import harness
from tools import averages
from zoo import metrics


def test_gains_are_differences_of_the_models_own_psnr():
    fields = {"levels": 2, "base_filters": 2, "flip": True}
    models = [harness.build("encoder_decoder", fields | {"seed": seed}) for seed in (0, 1)]
    rng = np.random.default_rng(0)
    examples = []
    for number in range(4):
        target = rng.uniform(-900, 900, (16, 16, 1)).astype("float32")
        source = target + rng.normal(0, 90, target.shape).astype("float32")
        examples.append({"source": source, "target": target, "patient": f"p{number // 2}"})
    rows = {row["name"]: row for row in averages.measured(averages.ways(models), examples)}
    assert list(rows) == [
        "alone",
        "test-time augmentation of 2",
        "mean of 2 models",
        "mean of 2 models, test-time augmentation of 2",
    ]
    # Written out for the mean of the models.
    gains = []
    for example in examples:
        outputs = [model.translate(example["source"][None])[0] for model in models]
        psnr = [metrics.psnr(each, example["target"], (-1000, 1000)) for each in outputs]
        both = metrics.psnr(np.mean(outputs, axis=0), example["target"], (-1000, 1000))
        gains.append(both - np.mean(psnr))
    row = rows["mean of 2 models"]
    assert row["mean"] == pytest.approx(np.mean(gains), abs=1e-4) and row["mean"] > 0
    assert (row["count"], row["of"], row["images"]) == (2, "patients", 4)
    assert rows["alone"]["mean"] == 0 and rows["alone"]["cost"] == 1
