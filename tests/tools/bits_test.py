"""tools/judges/bits.py: what fewer bits lose is measured against the same weights in float32."""

import shutil
import types

import numpy as np
import pytest

import zoo
from measured import CT, image
from tools import cards, pretrained
from tools.judges import bits
from zoo import registry


@pytest.fixture
def patients(monkeypatch):
    """Two images of each of 6 patients: noise upon smooth ones."""
    monkeypatch.setattr(bits, "PATIENTS", 6)

    def drawn(model, dataset, trained_on, count):
        assert not trained_on
        for number in range(2 * count):
            target = image(4, number)
            noise = np.random.default_rng(number).normal(0, 30, target.shape)
            source = (target + noise).astype("float32")
            yield {"patient": f"P{number // 2}", "source": source, "target": target}

    monkeypatch.setattr(bits, "drawn", drawn)


def test_what_is_lost_is_of_the_patients_that_int8_was_not_calibrated_on(patients, monkeypatch):
    """bfloat16 is off by 10 HU of 400, where float32 is off by 1; int8 is as good."""
    given = []

    def model(off):
        truth = {}
        for number in range(12):
            noise = np.random.default_rng(number).normal(0, 30, image(4, number).shape)
            truth[(image(4, number) + noise).astype("float32").tobytes()] = image(4, number)
        return types.SimpleNamespace(
            data="paired",
            registered_name="toy",
            source=CT,
            target=CT,
            translate=lambda batch: truth[batch[0].tobytes()][None] + off,
        )

    def int8(exact, images):
        given.extend(images)
        return exact.translate

    offs = {"float32": 1.0, "bfloat16": 10.0}
    monkeypatch.setattr(zoo, "load", lambda name, precision: model(offs[precision]))
    monkeypatch.setattr(bits, "_int8", int8)
    found = bits.fewer_bits("toy", model(0.0), "ldct/toy")
    assert found["judged_on"] == "6 simulated images of 3 patients apart, ldct/toy"
    assert len(given) == 6 and given[0].shape == (1, 32, 32, 1)
    assert found["bfloat16_psnr_lost_db"] == pytest.approx([20.0] * 3, abs=0.5)
    assert found["int8_psnr_lost_db"] == [0, 0, 0]
    card = cards.fewer_bits({"fewer_bits": found})
    assert f"| int8_psnr_lost_db | {cards.as_text(found['int8_psnr_lost_db'])} |" in card
    assert found["judged_on"] in card


def test_what_is_written_into_a_card_again_changes_nothing(tmp_path, monkeypatch):
    name = "encoder_decoder_ldct"
    card = pretrained.WEIGHTS / f"{name}.md"
    shutil.copy(card, tmp_path)
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    entry = registry.index()["pretrained"][name]
    cards.write_apart(name, entry)
    written = tmp_path / f"{name}.md"
    assert written.read_bytes() == card.read_bytes()
    cards.write_apart(name, entry | {"fewer_bits": {"judged_on": "three images"}})
    assert "On three images." in written.read_text()


@pytest.mark.slow
def test_a_shipped_denoiser_loses_little_in_int8(patients):
    name = "encoder_decoder_ldct_fast"
    found = bits.fewer_bits(name, zoo.load(name), "ldct/varied_scans")
    assert -0.5 < found["bfloat16_psnr_lost_db"][0] < 0.5
    assert -0.5 < found["int8_psnr_lost_db"][0] < 3


def test_what_takes_no_images_says_so():
    whys = {"pggan": "makes images from noise", "varnet": "takes measurements"}
    whys["critic"] = "answers by a network's gradient, which is a SavedModel alone"
    for model, said in whys.items():
        fields = {"data": "single" if model == "pggan" else "paired", "registered_name": model}
        source = types.SimpleNamespace(measured=model == "varnet")
        assert not bits.fewer_bits(model, types.SimpleNamespace(source=source, **fields), "d")
        assert cards.fewer_bits({"model": model}) == f"Not measured; it {said}."
