import dataclasses
import math
import typing
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zoo
from zoo import ranges
from zoo.models.encoder_decoder import EncoderDecoderRecipe
from zoo.recipe import Recipe

RECIPES = {"": Recipe} | {
    name: zoo.registry.model_class(name).recipe_class for name in zoo.index()["models"]
}
# What another field has to be where one is at an end of its range, or has another choice.
BESIDE = {
    ("pggan", "steps"): {"resolution": 4},
    ("pix2pix", "adversarial"): {"discriminator_norm": "none"},
    ("srgan", "adversarial"): {"spectral_norm": True},
    ("unit", "discriminator_layers"): {"crop": 0},
    ("unit", "discriminator_scales"): {"crop": 0},
}
# What a recipe's own rule, which the fields' types do not say, allows less of.
OWN_RULES = {
    ("srgan", "crop"): "expected a multiple of 16",
} | {
    (name, field): "measurements are taken as they are"
    for name in ("automap", "learned_primal_dual", "varnet")
    for field in ("crop", "shift", "rotation", "zoom", "gamma", "bias_field")
}


def test_set_is_typed_by_the_fields():
    assert Recipe.parse(["steps=20", "flip=true", "source_window=-1000,400", "spacing=0.5"]) == {
        "steps": 20,
        "flip": True,
        "source_window": (-1000.0, 400.0),
        "spacing": 0.5,
    }
    assert Recipe.parse(["target_window=none"]) == {"target_window": None}
    assert Recipe.parse(["learning_rate=1e-3"]) == {"learning_rate": 0.001}
    assert RECIPES["srgan"].parse(["scale=4"]) == {"scale": 4}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stepz=20", "--set: expected field=value.*stepz=20"),
        ("steps", "--set: expected field=value.*Received: steps"),
        ("steps=many", "steps: expected int. Received: 'many'"),
        ("steps=1.5", "steps: expected int. Received: '1.5'"),
        ("steps=0", "steps: expected 1 or more and below 1000000000000. Received: 0"),
        ("flip=perhaps", "flip: expected bool"),
        ("learning_rate=nan", "learning_rate: expected float"),
        ("source_window=1", r"source_window: expected tuple\[float, float\] or none"),
        (
            "precision=float8",
            "precision: expected one of auto, float32, bfloat16, float16. Rec.*'float8'",
        ),
    ],
)
def test_bad_assignments_name_the_field(assignment, message):
    with pytest.raises(ValueError, match=message):
        Recipe.parse([assignment])


@pytest.mark.parametrize(
    "bad",
    [
        {"slices": 2},
        {"source_unit": None},
        {"source_window": (9.0, 9.0)},
        {"target_window": (1.0, -1.0)},
    ],
)
def test_values_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Recipe(**bad)


@pytest.mark.parametrize(
    "bad", [{"levels": 0}, {"levels": 99}, {"residual_blocks": -1}, {"residual_blocks": 1e308}]
)
def test_networks_that_cannot_be_built_are_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))}: expected [01] to"):
        EncoderDecoderRecipe(**bad)


def test_one_class_is_none():
    with pytest.raises(ValueError, match="classes: expected 0 .* or 2 or more"):
        EncoderDecoderRecipe(classes=1)


def _parts(kind: Any) -> list[Any]:
    """The types of a field's numbers: its own, or those of a tuple or an optional field."""
    if ranges.PAIRS in typing.get_args(kind):
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) in (Annotated, Literal) or not typing.get_args(kind):
        return [kind]
    parts = [_parts(part) for part in typing.get_args(kind) if part is not Ellipsis]
    return sum(parts, [])


def _ends(kind: Any) -> tuple[list[float], list[float]]:
    """The first and last number that an annotated type takes, and those next to them outside."""
    number, limits = typing.get_args(kind)
    top = min(limits.high, limits.below)
    if number is int:
        last = top if top == limits.high else top - 1
        return [limits.low, last], [limits.low - 1, last + 1, 10**18]
    last = top if top == limits.high else math.nextafter(top, 0)
    outside = [math.nextafter(limits.low, -math.inf), math.nextafter(last, math.inf), 1e300]
    return [float(limits.low), float(last)], outside


FIELDS = [(name, field) for name, recipe in RECIPES.items() for field in recipe.hints()]


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_field_takes_its_range_and_nothing_else(name, field):
    recipe = RECIPES[name]
    kind = recipe.hints()[field]
    if kind in (ranges.Sides, ranges.Tile):  # one number for all axes
        kind = typing.get_args(kind)[0]
    default = getattr(recipe(), field)

    def refused(*values: Any) -> None:
        for value in values:
            with pytest.raises(ValueError, match=f"^{field}: ?.*Received: "):
                recipe(**{field: value})

    for part in _parts(kind):
        assert part not in (int, float), "a number without a range"
        if typing.get_origin(part) is Literal:
            choices = typing.get_args(part)
            for choice in choices:
                assert getattr(_made(recipe, name, field, choice), field) == choice
            switch = any(choice is True for choice in choices)
            refused("no such choice", 7, 2 if switch else True, None, float("nan"))
        elif typing.get_origin(part) is Annotated:
            inside, outside = _ends(part)
            bad = [*outside, float("nan"), float("inf"), -float("inf"), True, "many", None]
            if isinstance(default, tuple):  # of numbers, all of them good but the last
                refused((), *((*default[:-1], value) for value in bad))
            elif typing.get_origin(kind) is not Annotated:  # a window: two numbers, or more pairs
                refused((), (0.0,), *((-1.0, value) for value in bad))
                assert getattr(recipe(**{field: tuple(inside)}), field) == tuple(inside)
            else:
                refused(*bad)
                for value in inside:
                    assert getattr(_made(recipe, name, field, value), field) in (value, default)


def _made(recipe: type[Recipe], name: str, field: str, value: Any) -> Recipe:
    """A recipe with a good value, with what it needs beside, or refused by that recipe's rule."""
    try:
        return recipe(**{field: value} | BESIDE.get((name, field), {}))
    except ValueError as error:
        assert OWN_RULES.get((name, field), "no such rule") in str(error)
        return recipe()


def test_a_range_says_what_it_holds():
    assert str(ranges.Range(1, 16)) == "1 to 16"
    assert str(ranges.Range(0)) == "0 or more"
    assert str(ranges.Range(0, below=1)) == "0 or more and below 1"


def test_a_bad_value_is_refused_before_a_network_is_built(monkeypatch):
    def build(*_, **__):
        raise AssertionError("a network was built")

    for name in zoo.index()["models"]:
        monkeypatch.setattr(zoo.registry.model_class(name), "__init__", build)
        for field in ("learning_rate", "base_filters", "latent"):
            if field in RECIPES[name].hints():
                with pytest.raises(ValueError, match=f"^{field}: expected .* Received: -1"):
                    zoo.load(name, **{field: -1})


def test_a_recipe_of_another_package_may_leave_ranges_out():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Plain(Recipe):
        gain: float = 1.0
        taps: Annotated[int, ranges.Range(1, 7), "another library's"] = 3

    assert Plain(gain=-2).gain == -2.0
    with pytest.raises(ValueError, match="taps: expected 1 to 7. Received: 9"):
        Plain(taps=9)


def test_an_unknown_field_is_refused():
    with pytest.raises(ValueError, match="has no field 'stepz'"):
        Recipe.preset("paper", stepz=3)


@given(
    st.builds(
        Recipe,
        steps=st.integers(1, 10**9),
        learning_rate=st.floats(0, 1),
        flip=st.booleans(),
        source_window=st.none() | st.tuples(st.floats(-5000, -1), st.floats(0, 5000)),
    )
)
def test_dictionary_round_trip(recipe):
    assert Recipe.from_dict(recipe.to_dict()) == recipe
