import json

import numpy as np
import pytest

from measured import Identity, evaluated, pairs
from zoo import loading, metrics, registry, run
from zoo.data import batches, facts, prepare
from zoo.evaluation import examples, measure


def test_errors_leave_nothing_behind(tmp_path):
    class Broken(Identity):
        def translate(self, array):
            output = array.copy()
            output[0, 3, 4] = np.nan
            return output

    class Cut(Identity):
        def translate(self, array):
            return array[:, :-1]

    bad = list(pairs(2))
    bad[1]["target"][0, 0] = np.inf
    cases = [
        (Broken(), pairs(2), r"model: .*output for 'slice 0'.*Received: NaN or infinity in 1 of"),
        (Cut(), pairs(2), r"target's shape \(32, 32, 1\) for 'slice 0'.*Received: \(31, 32, 1\)"),
        (Identity(), bad, "dataset: .*target of 'slice 1'"),
        (Identity(), [], "dataset: expected at least one example.*'test' of ldct/phantom"),
        (Identity(), [{"source": np.zeros((32, 32, 1))}], "source and target.*Received: source"),
        (Identity(), [{"source": np.zeros((32, 32)), "target": 0}], r"expected source \[H, W, C\]"),
    ]
    for model, dataset, message in cases:
        with pytest.raises(ValueError, match=message):
            evaluated(model, dataset, tmp_path / "e")
    with pytest.raises(ValueError, match="limit: expected 1 or more"):
        evaluated(Identity(), pairs(1), tmp_path / "e", limit=0)
    assert not (tmp_path / "e").exists()


def test_examples_are_read_as_a_stream(tmp_path, monkeypatch):
    """Held examples stay few while all images count, and best and worst are among them."""
    monkeypatch.setattr(examples, "KEPT", 3)
    chosen = examples.Chosen(0, "PSNR")
    for score in np.random.default_rng(0).permutation(200):
        chosen.add({"score": score}, float(score))
        assert len(chosen.sample) <= 3
    found = chosen.labelled(99.5)
    assert ("Best PSNR", {"score": 199}) in found and ("Worst PSNR", {"score": 0}) in found
    assert 3 <= len(found) <= 5

    def endless():
        i = 0
        while True:
            yield next(pairs(1)) | {"name": str(i)}
            i += 1

    assert evaluated(Identity(), endless(), tmp_path, limit=6)["images"] == 6


def test_a_run_s_figures_on_its_test_split_are_kept_with_it(tmp_path):
    fields = {"precision": "float32", "levels": 2, "base_filters": 2}
    entry = registry.lookup("encoder_decoder", "ldct/phantom_tiny", overrides=fields)
    builder = prepare.load_builder(entry.dataset, tmp_path / "data", entry.recipe)
    found = facts.data_facts(builder, entry.recipe)
    source, target = found.source, found.target
    model = loading.build(entry, source, target)
    with pytest.raises(ValueError, match="a model with weights. Received: encoder_decoder"):
        measure.evaluate(entry)
    folder = tmp_path / "run"
    sha256 = model.save_network(folder / "a.weights.h5")
    record = {
        "model": "encoder_decoder",
        "dataset": entry.dataset,
        "recipe": entry.recipe.to_dict(),
    }
    record |= {"source": source.to_dict(), "target": target.to_dict()}
    run.write(folder, record | {"weights": {"file": "a.weights.h5", "sha256": sha256}})
    trained = registry.lookup(folder)
    with pytest.raises(ValueError, match="split: .*Received: tset"):
        measure.evaluate(trained, split="tset")
    options = {"data_dir": tmp_path / "data"}
    measure.evaluate(trained, str(tmp_path / "part"), limit=1, **options)
    measure.evaluate(trained, tmp_path / "other", split="validation", limit=1, **options)
    assert "metrics" not in run.read(folder)
    results = measure.evaluate(trained, **options)
    assert json.loads((folder / "evaluation" / "metrics.json").read_text()) == results
    kept = run.read(folder)["metrics"]["test"]
    assert kept["images"] == 8 and kept["summary"] == results["summary"]
    assert results["dataset"]["name"] == "ldct/phantom_tiny"
    assert results["weights"] == model.weights_hash
    # The figures are those of the model on the split's examples.
    for example, row in zip(batches.eval_dataset(builder), results["per_image"], strict=True):
        output = model.translate(example["source"][None])[0]
        psnr = metrics.psnr(output, example["target"], target.window)
        assert row["output"]["psnr"] == pytest.approx(psnr, abs=1e-4)
