"""A Keras zoo of image-to-image translation models for medical images.

import zoo

zoo.names(task="denoising")               # what there is
model = zoo.load("pix2pix_ldct")          # a Keras model; HU in, HU out
denoised = model.translate(slices_in_hu)  # NumPy [H, W], [N, H, W] or [N, H, W, C]
"""

import os
import warnings

from zoo.domain import Domain
from zoo.recipe import Phase, Recipe
from zoo.registry import UnknownName, describe, index, lookup, names, register

__version__ = "0.1.0"
__all__ = [
    "Average",
    "Domain",
    "Phase",
    "Recipe",
    "Translator",
    "UnknownName",
    "describe",
    "index",
    "load",
    "lookup",
    "names",
    "reconstruct",
    "register",
]


def load(name: str | os.PathLike[str], *, weights: str | int = "best", **overrides):
    """A Keras model by name: fresh, or with weights for a pretrained name or a run folder.

    Args:
        name: a model ("pix2pix"), a pretrained model ("pix2pix_ldct") or the path of a run folder.
        weights: of a run folder: "best" (chosen by validation; the last ones where none was),
            "last", or the step of a checkpoint that the folder keeps.
        **overrides: recipe fields to change (`zoo.describe(name)["recipes"]`), and for a fresh
            model also `source` and `target`, each a `zoo.Domain`.

    Returns:
        A `zoo.Translator`. Its call takes and gives physical units, `[N, H, W, C]`.

    Raises:
        UnknownName: for an unknown name, with the nearest ones.
        ValueError: for an unknown field or a bad value, weights that a run folder does not have,
            or whose sha256 is wrong.
        OSError: for weights that are not there and cannot be downloaded.

    Example:
        >>> model = zoo.load("pix2pix", base_filters=8)
        >>> model.translate(np.zeros([300, 200], "float32")).shape
        (300, 200)
    """
    from zoo import loading

    domains = {k: overrides.pop(k) for k in ("source", "target") if k in overrides}
    if isinstance(domains.get("target"), str):  # a recipe has a field of that name
        overrides["target"] = domains.pop("target")
    entry = lookup(name, overrides=overrides, weights=str(weights))
    if entry.weights is None and entry.source is not None:
        warnings.warn(f"{name}: the run has no weights yet, and these are random", stacklevel=2)
    return loading.build(entry, **domains)


def __getattr__(name: str):
    # TensorFlow is imported by the first use of a model, so that `list` answers at once.
    if name == "Translator":
        from zoo.translator import Translator

        return Translator
    if name == "Average":
        from zoo.averaging import Average

        return Average
    if name == "reconstruct":
        from zoo.reconstruction.reconstruct import reconstruct

        return reconstruct
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
