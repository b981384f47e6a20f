import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.models.encoder_decoder import EncoderDecoderRecipe
from zoo.recipe import Recipe


def test_set_is_typed_by_the_fields():
    assert Recipe.parse(["steps=20", "flip=true", "source_window=-1000,400", "spacing=0.5"]) == {
        "steps": 20,
        "flip": True,
        "source_window": (-1000.0, 400.0),
        "spacing": 0.5,
    }
    assert Recipe.parse(["target_window=none"]) == {"target_window": None}
    assert Recipe.parse(["learning_rate=1e-3"]) == {"learning_rate": 0.001}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stepz=20", "--set: expected field=value.*stepz=20"),
        ("steps", "--set: expected field=value.*Received: steps"),
        ("steps=many", "steps: expected int. Received: 'many'"),
        ("steps=1.5", "steps: expected int. Received: '1.5'"),
        ("flip=perhaps", "flip: expected bool"),
        ("learning_rate=nan", "learning_rate: expected float"),
        ("source_window=1", "source_window: expected"),
        ("precision=float8", "precision: expected .*float32"),
    ],
)
def test_bad_assignments_name_the_field(assignment, message):
    with pytest.raises(ValueError, match=message):
        Recipe.parse([assignment])


@pytest.mark.parametrize(
    "bad",
    [
        *({"steps": 0}, {"batch_size": -1}, {"slices": 2}, {"tile": 0}),
        *({"source_window": (9.0, 9.0)}, {"target_window": (1.0, -1.0)}),
        *({"learning_rate": -1.0}, {"noise": -1.0}, {"spacing": -0.5}, {"zoom": 1.0}),
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
