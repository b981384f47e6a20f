"""zoo.imaging.inputs, several and grids: which volumes are a case, read together on one grid."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from inputs_files import HUNG
from zoo.imaging import inputs, several
from zoo.imaging.volume import Volume


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Counted(Volume):
    """A volume of a constant that counts how often it is read."""

    value: float = 0.0
    side: float = 1.0
    reads: list = dataclasses.field(default_factory=list)

    @property
    def affine(self):
        return HUNG @ np.diag([self.side, self.side, 1.0, 1.0])

    def read(self, index):
        self.reads.append(index)
        return np.full(self.shape, self.value, np.float32)


def volume(name: str, **fields) -> Counted:
    whole = {"length": 4, "shape": (6, 6)} | fields
    return Counted(name=name, paths=(Path(name),), **whole)


def test_numbers_of_names_make_cases():
    names = ["a/p_0000.nii.gz", "a/p_0001.mha", "b/p_0000.npy", "b/p_0001.npy", "p_0002.npy"]
    found = inputs.by_number([volume(name) for name in [*names, "notes.png"]], ("T1", "T2"))
    assert list(found.found) == ["a/p", "b/p"]
    assert [part.name for part in found.found["a/p"].parts] == names[:2]
    assert found.found["a/p"].names == ("T1", "T2")
    assert [case.name for case in found.found.values()] == ["a/p.nii.gz", "b/p.npy"]
    wanted = "expected a name that ends in the number of its input, _0000 to _0001. Received: "
    assert [p.reason for p in found.problems] == [wanted + "0002", wanted + "none"]
    # One number twice is no case.
    found = inputs.by_number([volume(n) for n in ("p_0000.nii", "p_0000.mha", "p_0001.mha")], "ab")
    assert not found.found and "a (_0000): 2" in found.problems[0].reason
    assert inputs.numbers([volume(name) for name in names]) == [0, 1, 2]


@pytest.mark.parametrize("text", ["", "T1=", "T1=a,T1=b", "a,b", "T1=a,"])
def test_what_patterns_cannot_be(text):
    with pytest.raises(ValueError, match="field: expected NAME=PATTERN, each name once"):
        inputs.patterns("field", text)


def test_patterns():
    assert inputs.patterns("field", "T1=*T1*, T2=t2?") == {"T1": "*T1*", "T2": "t2?"}
    assert inputs.patterns("field", "*T1*") == {"": "*T1*"}


def test_several_are_read_together_and_each_once():
    parts = [volume("a"), volume("b", value=1.0, side=2.0, shape=(4, 4)), volume("c", value=2.0)]
    parts[2] = dataclasses.replace(parts[2], side=3.0)
    whole, shares = several.on_one_grid(several.together(parts, ("A", "B", "C")))
    assert set(shares) == {"B", "C"} and (whole.channels, whole.shape) == (3, (6, 6))
    for index in range(whole.length):
        image = whole.read(index)
        np.testing.assert_array_equal(image, np.broadcast_to([0.0, 1.0, 2.0], (6, 6, 3)))
    # What is resampled is kept while its case is read, though the images take turns.
    assert [sorted(part.reads) for part in parts] == [[0, 1, 2, 3]] * 3


def test_one_volume_is_itself():
    alone = volume("a")
    assert several.together([alone], ()) is alone
    assert several.on_one_grid(alone) == (alone, {})
    assert alone.parts == (alone,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patient": "B"}, "inputs: expected those of one patient. Received: several"),
        ({"channels": 3}, "B: expected a grey image. Received: 3 channels"),
        ({"frame_of_reference": "other", "side": 2.0}, "A and B lie on different grids"),
        ({"shape": (2, 2)}, "A and B lie apart: B covers .* of A"),
    ],
)
def test_what_does_not_go_together(fields, message):
    parts = [volume("a", patient="A", frame_of_reference="one"), volume("b", **fields)]
    with pytest.raises(ValueError, match=message):
        several.on_one_grid(several.together(parts, ("A", "B")))


def test_what_cannot_be_read_is_named_by_its_input():
    class Broken(Counted):
        def read(self, index):
            raise ValueError("cannot decode pixels")

    broken = Broken(name="b", paths=(Path("b"),), length=4, shape=(6, 6))
    with pytest.raises(ValueError, match="^B: cannot decode pixels"):
        several.together([volume("a"), broken], ("A", "B")).read(0)
