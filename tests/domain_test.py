"""zoo.domain: what the numbers of an image mean."""

import numpy as np
import pytest

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
