"""Every method of reconstruction on four kinds of measurement: the table and pictures of the docs.

    python -m tools.reconstruction_methods                 # what is not there yet, then the page
    python -m tools.reconstruction_methods limited sparse  # of these kinds alone

A slice of each of two simulated patients who taught no model, chest, abdomen or head, drawn on a
grid twice as fine as the one it is reconstructed on. No method is told the noise but the deep image
prior, which it stops. What a method makes of a slice is kept in `build/reconstruction_methods`. The
table goes into docs/reconstruction.md, the first slice of each kind into docs/pictures.
"""

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import zoo
from tools import pretrained
from zoo import figures, metrics, registry
from zoo.atomic import replacing, write_atomic
from zoo.physics import fourier, mri, noise, tomography
from zoo.physics.operators import Operator
from zoo.reconstruction import measured
from zoo_datasets.ct_recon import phantom as rays
from zoo_datasets.features import CT_WINDOW
from zoo_datasets.mri_recon import phantom as heads

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "reconstruction_methods"
PAGE, PICTURES = ROOT / "docs" / "reconstruction.md", ROOT / "docs" / "pictures"
SEED, PATIENTS = 64, 2  # of no data set
_TABLE = re.compile(r"^\| measurement \| method \|.*\n(?:\|.*\n)+", re.MULTILINE)
_ARC = np.deg2rad([30.0, 150.0])
_SOFT_TISSUE = (-160.0, 240.0)  # HU, of the pictures

SPARSE = rays.Protocol(slices=1)  # that of ct_recon/phantom
DOSE = rays.Protocol(size=64, views=96, photons=1500.0, electronic=2.0, slices=1)
ARC = rays.Protocol(size=64, views=96, slices=1)
LINES = heads.Protocol(size=128, acceleration=4, centre=0.08, slices=1)  # mri_recon/phantom_128's
AUTOMAP = heads.Protocol(slices=1)  # that of automap_mri


class Case(NamedTuple):
    """A measurement, what is known of its noise, and the slice `[H, W]` that it is of."""

    measured: np.ndarray
    operator: Operator
    sigma: float | np.ndarray
    target: np.ndarray


class Kind(NamedTuple):
    """A kind of measurement: in words, patient to case, and label to method and its options."""

    name: str
    case: Callable[[int], Case]
    methods: dict[str, tuple[str, dict[str, Any]]]
    unit: str
    window: tuple[float, float]
    shown: tuple[float, float]


def ct(protocol: rays.Protocol, arc: bool, number: int) -> Case:
    """A chest or an abdomen, from all angles or from an arc of 120 degrees."""
    found = rays.patient(protocol, SEED, number)
    inside = _inside(protocol, arc)
    sinogram = found["sinogram"][0, inside]
    sigma = noise.deviation(sinogram, protocol.photons, protocol.electronic)
    return Case(sinogram, _beam(protocol, arc), sigma, found["image"][0].astype(np.float32))


def mr(protocol: heads.Protocol, number: int) -> Case:
    """A head."""
    ((_, source, target),) = heads.patient(protocol, SEED, number)
    kspace = fourier.from_channels(source)
    return Case(kspace, _cartesian(protocol), protocol.noise, target[..., 0])


def _angles(protocol: rays.Protocol) -> np.ndarray:
    return (np.arange(protocol.views) + 0.5) * np.pi / protocol.views


def _inside(protocol: rays.Protocol, arc: bool) -> np.ndarray:
    angles = _angles(protocol)
    return (angles > _ARC[0]) & (angles < _ARC[1]) if arc else angles >= 0


# One operator for all measurements of a kind: its graphs are made once.


@functools.cache
def _beam(protocol: rays.Protocol, arc: bool) -> tomography.ParallelBeam:
    views = _angles(protocol)[_inside(protocol, arc)] if arc else protocol.views
    return tomography.ParallelBeam(**protocol.beam | {"views": views})


@functools.cache
def _cartesian(protocol: heads.Protocol) -> mri.CartesianMRI:
    return mri.CartesianMRI(protocol.operator.lines)


_TV = {"total variation": ("tv", {"tolerance": 1e-3, "iterations": 600})}
_DIP = {"deep image prior": ("dip", {"sigma": True, "iterations": 600})}
_FBP = {"filtered back-projection": ("fbp", {"filter": "hann"})}
_DENOISER = {
    "a denoiser after it": ("encoder_decoder_ldct", {}),
    "plug and play": ("pnp", {"denoiser": "encoder_decoder_ldct", "lam": "holdout"}),
}
_ZEROS = {"zero filling": ("zero_filled", {})}
# Runs that learned from the same patients as the models of measurements, and are not shipped.
_UNET = {
    kind: {"a U-Net after it": (f"encoder_decoder_{kind}_recon", {})} for kind in ("ct", "mri")
}
_PRIMAL_DUAL = {"`learned_primal_dual_ct_recon`": ("learned_primal_dual_ct_recon", {})}
_VARNET = {"`varnet_mri_recon`": ("varnet_mri_recon", {})}
_HU = ("HU", CT_WINDOW, _SOFT_TISSUE)
_SIGNAL = ("signal", (0.0, 1.0), (0.0, 0.8))
KINDS = {
    "sparse": Kind(
        "few views: CT of 256 x 256 pixels from 64",
        functools.partial(ct, SPARSE, False),
        _FBP | _TV | _UNET["ct"] | _PRIMAL_DUAL,
        *_HU,
    ),
    "dose": Kind(
        "low dose: CT of 64 x 64 pixels from 96 views of 1500 photons",
        functools.partial(ct, DOSE, False),
        _FBP | _TV | _DENOISER | _DIP,
        *_HU,
    ),
    "limited": Kind(
        "limited angle: CT of 64 x 64 pixels from 64 views of 120 degrees",
        functools.partial(ct, ARC, True),
        _FBP | _TV | _DENOISER | _DIP,
        *_HU,
    ),
    "mri": Kind(
        "few lines: MRI of 128 x 128 pixels from 32",
        functools.partial(mr, LINES),
        _ZEROS | _TV | _UNET["mri"] | _VARNET,
        *_SIGNAL,
    ),
    "automap": Kind(
        "few lines: MRI of 64 x 64 pixels from 26",
        functools.partial(mr, AUTOMAP),
        _ZEROS | _TV | _DIP | _VARNET | {"`automap_mri`": ("automap_mri", {})},
        *_SIGNAL,
    ),
}


def made(key: str, label: str, number: int) -> dict[str, Any]:
    """What a method made of a slice, from the folder where it is there.

    Returns:
        "image" `[H, W]`, "target", "psnr", "ssim", "seconds", "lam" (NaN without) and "rule".
    """
    kind = KINDS[key]
    method, options = kind.methods[label]
    path = FOLDER / f"{key}-{number}-{method}.npz"
    if not path.exists():
        case = kind.case(number)
        if "sigma" in options:
            options = options | {"sigma": case.sigma}
        if method in pretrained.RUNS and method not in registry.index()["pretrained"]:
            method = str(pretrained.FOLDER / method)
        image, record = zoo.reconstruct(case.measured, case.operator, method, **options)
        values = measured.in_unit(image, kind.unit)
        pair = values[..., None], case.target[..., None]
        found = {
            "image": values,
            "target": case.target,
            "psnr": metrics.psnr(*pair, kind.window),
            "ssim": metrics.ssim(*pair, kind.window),
            "seconds": record.seconds,
            "lam": np.nan if record.lam is None else record.lam,
            "rule": record.why.partition(":")[0],
        }
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **found)
    with np.load(path) as file:
        return dict(file)


def table(found: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Markdown: a row for each kind and method, means over its slices, and the weights."""
    rows = [["measurement", "method", "PSNR, dB", "SSIM", "seconds", "`lam`"], ["---"] * 6]
    for key, methods in found.items():
        name = KINDS[key].name
        for label, each in methods.items():
            psnr, ssim, seconds = (
                np.mean([one[field] for one in each]) for field in ("psnr", "ssim", "seconds")
            )
            weights = [f"{one['lam']:.3g}" for one in each if np.isfinite(one["lam"])]
            chosen = f"{', '.join(weights)} (`{each[0]['rule']}`)" if weights else ""
            rows.append([name, label, f"{psnr:.1f}", f"{ssim:.3f}", f"{seconds:.1f}", chosen])
            name = ""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def picture(key: str, methods: dict[str, list[dict[str, Any]]]) -> np.ndarray:
    """The first slice as each method shows it, and as it is."""
    images = {label.strip("`"): each[0]["image"] for label, each in methods.items()}
    images["the slice"] = next(iter(methods.values()))[0]["target"]
    return figures.grid([images], KINDS[key].shown, panel=200, largest=256)


def main(wanted: list[str]) -> int:
    """Makes what is not there yet; when all of it is, writes the page and its pictures."""
    if unknown := set(wanted) - set(KINDS):
        print(f"Expected {', '.join(KINDS)}. Received: {', '.join(unknown)}", file=sys.stderr)
        return 2
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for key in wanted or KINDS:
        found[key] = {}
        for label in KINDS[key].methods:
            found[key][label] = [made(key, label, number) for number in range(PATIENTS)]
            print(table({key: {label: found[key][label]}}).splitlines()[-1], flush=True)
    if wanted:
        return 0
    text, count = _TABLE.subn(lambda _: table(found) + "\n", PAGE.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{PAGE.name}: expected one table of methods. Received: {count}")
    write_atomic(PAGE, text.encode())
    for key, methods in found.items():
        figures.save_png(PICTURES / f"reconstruction_{key}.png", picture(key, methods))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
