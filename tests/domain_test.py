"""zoo.domain: what the numbers of an image mean."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from zoo import run
from zoo.domain import Domain


def test_a_domain_says_what_it_is_of():
    assert Domain(modality="CT", unit="HU", window=(-1000, 1000)).classes == 0
    assert Domain(modality="SEG", unit="class", window=(0, 4)).classes == 5
    named = {"HU": "images", "1": "images", "k-space": "k-space", "line integral": "sinograms"}
    for unit, words in named.items():
        domain = Domain(unit=unit)
        assert (domain.words, domain.measured) == (words, words != "images")


def test_the_window_is_what_a_network_sees_from_minus_one_to_one():
    domain = Domain(unit="HU", window=(-1000, 600), spacing=(0.5, 0.7), plane="axial")
    values = np.array([-1500.0, -1000, -200, 600, 900])
    assert domain.encode(values).tolist() == [-1, -1, 0, 1, 1]
    assert domain.decode(domain.scale(values)).tolist() == values.tolist()
    assert domain.span == 1600
    assert Domain.from_dict(domain.to_dict()) == domain


@pytest.mark.parametrize(
    "fields",
    [{"window": (1, 1)}, {"window": (0, np.inf)}, {"unit": 5}, {"modality": None}, {"channels": 0}],
)
def test_what_a_domain_cannot_be(fields):
    with pytest.raises(ValueError, match=f"{next(iter(fields))}: expected .*Received: "):
        Domain(**fields)


PET = Domain(modality="PT", unit="SUV", window=(0, 20), name="PET", spacing=(2.0, 2.0))
MR = Domain(modality="MR", unit="signal", window=(-100, 300), channels=3, name="MR")


def test_several_inputs_are_encoded_channel_by_channel():
    both = Domain(inputs=(PET, MR))
    assert (both.channels, both.modality, both.unit, both.spacing) == (4, "OT", "mixed", (2.0, 2.0))
    assert both.names == "PET, MR"
    images = np.random.default_rng(0).uniform(-300, 500, (2, 5, 6, 4)).astype("float32")
    # Each channel by NumPy alone, by the window of its own.
    expected = np.empty_like(images)
    for channel, (low, high) in enumerate([(0, 20), *[(-100, 300)] * 3]):
        clipped = np.minimum(np.maximum(images[..., channel], low), high)
        expected[..., channel] = 2 * (clipped - low) / (high - low) - 1
    np.testing.assert_allclose(both.encode(images), expected, atol=1e-5)
    np.testing.assert_allclose(both.encode(tf.constant(images)).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(both.decode(both.scale(images)), images, atol=1e-3)
    parts = {name: images[..., at].shape[-1] for name, (_, at) in both.parts.items()}
    assert parts == {"PET": 1, "MR": 3}
    assert both.encode(images).dtype == np.float32


def test_inputs_are_stored_and_read_again():
    both = Domain(inputs=(PET, MR))
    assert Domain.from_dict(json.loads(json.dumps(both.to_dict()))) == both
    # What has no inputs is stored as it always was.
    keys = ["modality", "unit", "window", "channels", "spacing", "plane"]
    assert list(Domain(unit="HU").to_dict()) == keys


def test_how_an_image_was_made_is_stored_and_does_not_part_domains():
    plain = Domain(modality="CT", unit="HU", window=(-1000, 1000))
    quick = dataclasses.replace(plain, quick="hann")
    assert quick == plain and Domain.from_dict(quick.to_dict()).quick == "hann"
    assert "quick" not in plain.to_dict()


def test_a_run_from_before_images_said_how_they_were_made_goes_on(tmp_path):
    domain = Domain(modality="CT", unit="HU", window=(-1000, 1000))
    old = {"model": "a", "recipe": {}, "source": domain.to_dict(), "target": domain.to_dict()}
    (tmp_path / "run.json").write_text(json.dumps(old))
    new = old | {"source": dataclasses.replace(domain, quick="hann").to_dict()}
    assert run.begin(tmp_path, new, {}, "auto", True)["source"]["unit"] == "HU"
    # But not one that says that they were made otherwise.
    new = old | {"source": dataclasses.replace(domain, quick="ramp").to_dict()}
    (tmp_path / "run.json").write_text(json.dumps(new))
    new = old | {"source": dataclasses.replace(domain, quick="hann").to_dict()}
    with pytest.raises(ValueError, match="holds another run"):
        run.begin(tmp_path, new, {}, "auto", True)


def test_the_input_that_is_like_the_target():
    both = Domain(inputs=(PET, MR))
    target = Domain(modality="MR", unit="signal", window=(0, 1))
    assert both.like(target) == (MR, slice(1, 4))
    assert both.like(Domain(modality="CT", unit="HU")) is None
    assert MR.like(target) == (MR, slice(None))


def test_windows_of_several_inputs():
    both = Domain(inputs=(PET, MR)).within((1, 2, 3, 4))
    assert [part.window for part, _ in both.parts.values()] == [(1, 2), (3, 4)]
    assert MR.within((1, 2)).window == (1, 2)
    with pytest.raises(ValueError, match="window: expected LOW,HIGH of each of PET, MR in turn. R"):
        both.within((1, 2))
    with pytest.raises(ValueError, match="window: expected LOW,HIGH. Received: 1,2,3,4"):
        MR.within((1, 2, 3, 4))


@pytest.mark.parametrize(
    "inputs",
    [(PET,), (PET, PET), (PET, Domain()), (PET, Domain(name="a,b")), (PET, Domain(name="a=b")),
     (PET, Domain(name="target")),
     (PET, Domain(name="k", unit="k-space"))],
)  # fmt: skip
def test_what_inputs_cannot_be(inputs):
    with pytest.raises(ValueError, match="inputs: expected .*Received: "):
        Domain(inputs=inputs)
