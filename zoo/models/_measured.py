"""What the models of measurements share: a recipe that takes k-space and sinograms as they are."""

import dataclasses

from zoo.recipe import Recipe

_MOVED = ("crop", "flip", "flip_up_down", "flip_slices", "turn", "shift", "rotation", "zoom")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredRecipe(Recipe):
    """A recipe without augmentation of images.

    Raises:
        ValueError: for a field of it that is not left as it is.
    """

    def __post_init__(self):
        super().__post_init__()
        for name in (*_MOVED, "gamma", "bias_field"):
            if getattr(self, name):
                raise ValueError(
                    f"{name}: measurements are taken as they are: each sample has its place. "
                    f"Received: {getattr(self, name)}"
                )
