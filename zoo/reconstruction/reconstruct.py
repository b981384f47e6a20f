"""From a measurement to an image: `reconstruct`, and its methods by name."""

from collections.abc import Callable
from pathlib import Path

from zoo.physics.operators import Operator
from zoo.reconstruction import adversarial, dip, direct, learned, pnp, tv
from zoo.reconstruction.record import Result
from zoo.registry import UnknownName, index
from zoo.translator import Translator

METHODS: dict[str, Callable[..., Result]] = {
    "fbp": direct.fbp,
    "zero_filled": direct.zero_filled,
    "tv": tv.reconstruct,
    "pnp": pnp.reconstruct,
    "dip": dip.reconstruct,
    "adversarial": adversarial.reconstruct,
}


def reconstruct(measured, operator: Operator, method: str | Translator = "tv", **options) -> Result:
    """The image that a measurement shows.

    Args:
        measured: y, of the shape `operator.range_shape`.
        operator: A of `zoo.physics`: `tomography.ParallelBeam`, `mri.CartesianMRI` and so on.
        method: "fbp" or "zero_filled", without a prior (`zoo.reconstruction.direct`); "tv", total
            variation (`zoo.reconstruction.tv`); "pnp", a denoiser (`zoo.reconstruction.pnp`);
            "dip", a network fitted to the measurement alone (`zoo.reconstruction.dip`);
            "adversarial", a trained critic (`zoo.reconstruction.adversarial`); or a pretrained
            model, a run folder or a loaded model (`zoo.reconstruction.learned`).
        **options: of the method: see the function `fbp`, `zero_filled`, or `reconstruct` there.

    Returns:
        The image, NumPy of the shape `operator.domain_shape`, attenuation in 1/mm or complex
        signal; and a `Record`: objective, gap, weight and why, iterations and seconds.

    Raises:
        UnknownName: for an unknown method.
        ValueError: for another shape, or bad options.

    Example:
        >>> beam = tomography.ParallelBeam(256, 1.4, views=60)
        >>> image, record = zoo.reconstruct(sinogram, beam, photons=1e4)
        >>> hu = radon.attenuation_to_hu(image)
    """
    if isinstance(method, str) and not is_known(method):
        raise UnknownName(method, [*METHODS, *index()["pretrained"]], "method")
    shape = tuple(getattr(measured, "shape", ()))
    if shape != operator.range_shape:
        raise ValueError(f"measured: expected shape {operator.range_shape}. Received: {shape}")
    if isinstance(method, str) and method in METHODS:
        return METHODS[method](measured, operator, **options)
    return learned.reconstruct(measured, operator, method, **options)


def is_known(method: str) -> bool:
    """Whether there is a method, a pretrained model or a run folder of this name."""
    there = method in METHODS or method in index()["pretrained"]
    return there or (Path(method).expanduser() / "run.json").is_file()
