"""Every method of reconstruction on each kind of measurement: table and pictures of the docs.

    python -m tools.reconstruction_methods                   # what is not there yet, and the page
    python -m tools.reconstruction_methods limited sparse/tv # of these kinds and methods alone

A slice of each of two simulated patients who taught no model, chest, abdomen or head, drawn on a
grid twice as fine as the one it is reconstructed on; and of two patients whose scans are in public
packages (`tools.scans`, extra `verify`), measured anew in the same way. No method is told the noise
but the deep image prior, which it stops, and the critic's, which it weighs. What a method makes of
a slice is kept in `build/reconstruction_methods`. The table goes into docs/reconstruction.md, the
first slice of each kind into docs/pictures.
"""

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

import zoo
from tools import pretrained, scans
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
# Slices of `tools.scans`: a chest and an abdomen; two heads.
REAL_CT = ("chest_ge_rhapsode_1ct1", "abdomen_nih_pancreas_0001")
REAL_MR = ("mr_t1_3d_brainbrowser-axial_085", "mr_t1ce_pyradiomics_brain2-axial_013")
_BRIGHTEST = 0.8  # of a real head, where fluid has proton density 1


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
    return _rays(protocol, arc, rays.patient(protocol, SEED, number))


def real_ct(protocol: rays.Protocol, number: int) -> Case:
    """A patient's scan, its own noise and all, measured anew."""
    image = _fine(REAL_CT[number], 2 * protocol.size, protocol.spacing / 2)
    fine = np.maximum(image, -1000.0)[None]
    rng = np.random.default_rng([SEED, number])
    return _rays(protocol, False, rays.measured(protocol, fine, rng))


def _rays(protocol: rays.Protocol, arc: bool, found: dict[str, np.ndarray]) -> Case:
    inside = _inside(protocol, arc)
    sinogram = found["sinogram"][0, inside]
    sigma = noise.deviation(sinogram, protocol.photons, protocol.electronic)
    return Case(sinogram, _beam(protocol, arc), sigma, found["image"][0].astype(np.float32))


def mr(protocol: heads.Protocol, number: int) -> Case:
    """A head."""
    return _lines(protocol, heads.patient(protocol, SEED, number))


def real_mr(protocol: heads.Protocol, number: int) -> Case:
    """A patient's head as it is stored, a magnitude without phase, measured anew."""
    image = _fine(REAL_MR[number], 2 * protocol.size, protocol.spacing / 2)
    painted = image[None] * (_BRIGHTEST / np.quantile(image, 0.999))
    rng = np.random.default_rng([SEED, number])
    return _lines(protocol, heads.measured(protocol, painted, [""], rng))


def _lines(protocol: heads.Protocol, slices: list[tuple[str, np.ndarray, np.ndarray]]) -> Case:
    ((_, source, target),) = slices
    kspace = fourier.from_channels(source)
    return Case(kspace, _cartesian(protocol), protocol.noise, target[..., 0])


def _fine(name: str, size: int, spacing: float) -> np.ndarray:
    """A slice of `tools.scans` in the middle of a grid `[size, size]` of so many mm."""
    (scan,) = (scan for scan in scans.load() if name.startswith(scan["name"]))
    (one,) = (one for one in scans.read(scan) if one.name == name)
    assert one.spacing is not None
    zoom = spacing / np.array(one.spacing)
    offset = (np.array(one.image.shape) - 1) / 2 - zoom * (size - 1) / 2
    return ndimage.affine_transform(
        one.image, zoom, offset, (size, size), order=1, cval=float(one.image.min())
    )


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
_DIP = {"deep image prior": ("dip", {"sigma": True, "iterations": 2000})}
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
_CRITIC = {"a trained critic": ("adversarial", {"critic": "critic_ct_recon", "sigma": True})}
_VARNET = {"`varnet_mri_recon`": ("varnet_mri_recon", {})}
_HU = ("HU", CT_WINDOW, _SOFT_TISSUE)
_SIGNAL = ("signal", (0.0, 1.0), (0.0, 0.8))
KINDS = {
    "sparse": Kind(
        "few views: CT of 256 x 256 pixels from 64",
        functools.partial(ct, SPARSE, False),
        _FBP | _TV | _CRITIC | _UNET["ct"] | _PRIMAL_DUAL,
        *_HU,
    ),
    "real_ct": Kind(
        "few views of patients: CT of 256 x 256 pixels from 64",
        functools.partial(real_ct, SPARSE),
        _FBP | _TV | _CRITIC | _UNET["ct"] | _PRIMAL_DUAL,
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
    "real_mri": Kind(
        "few lines of patients: MRI of 128 x 128 pixels from 32",
        functools.partial(real_mr, LINES),
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


def row(key: str, label: str, each: list[dict[str, Any]]) -> list[str]:
    """Kind, method, means over its slices, and the weights."""
    psnr, ssim, seconds = (
        np.mean([one[field] for one in each]) for field in ("psnr", "ssim", "seconds")
    )
    weights = [f"{one['lam']:.3g}" for one in each if np.isfinite(one["lam"])]
    chosen = f"{', '.join(weights)} (`{each[0]['rule']}`)" if weights else ""
    return [KINDS[key].name, label, f"{psnr:.1f}", f"{ssim:.3f}", f"{seconds:.1f}", chosen]


def written(text: str) -> dict[tuple[str, str], list[str]]:
    """The rows of a page's table, by kind and method.

    Raises:
        ValueError: for a page without a table of methods, or with several.
    """
    tables = _TABLE.findall(text)
    if len(tables) != 1:
        raise ValueError(f"{PAGE.name}: expected one table of methods. Received: {len(tables)}")
    found, name = {}, ""
    for line in tables[0].splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = cells[0] or name
        found[name, cells[1]] = [name, *cells[1:]]
    return found


def table(rows: dict[tuple[str, str], list[str]]) -> str:
    """Markdown of rows, in the order of `KINDS`; those of no kind or method are dropped."""
    lines = [["measurement", "method", "PSNR, dB", "SSIM", "seconds", "`lam`"], ["---"] * 6]
    for kind in KINDS.values():
        there = [rows[kind.name, label] for label in kind.methods if (kind.name, label) in rows]
        lines += [[kind.name if k == 0 else "", *cells[1:]] for k, cells in enumerate(there)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def picture(key: str, methods: dict[str, list[dict[str, Any]]]) -> np.ndarray:
    """The first slice as each method shows it, and as it is."""
    images = {label.strip("`"): each[0]["image"] for label, each in methods.items()}
    images["the slice"] = next(iter(methods.values()))[0]["target"]
    return figures.grid([images], KINDS[key].shown, panel=200, largest=256)


def main(wanted: list[str]) -> int:
    """Makes what is not there yet; writes its rows into the page, and pictures of whole kinds."""
    every = {
        f"{key}/{method}": (key, label)
        for key, kind in KINDS.items()
        for label, (method, _) in kind.methods.items()
    }
    chosen = [name for name in every if not wanted or {name, name.split("/")[0]} & set(wanted)]
    if unknown := [name for name in wanted if name not in KINDS and name not in every]:
        known = ", ".join([*KINDS, *every])
        print(f"Expected {known}. Received: {', '.join(unknown)}", file=sys.stderr)
        return 2
    rows, found = {}, {}
    for key, label in map(every.__getitem__, chosen):
        found[key, label] = [made(key, label, number) for number in range(PATIENTS)]
        rows[KINDS[key].name, label] = row(key, label, found[key, label])
        print(f"| {' | '.join(rows[KINDS[key].name, label])} |", flush=True)
    # The page as it is now: making them takes a while.
    text = PAGE.read_text(encoding="utf-8")
    rows = written(text) | rows
    write_atomic(PAGE, _TABLE.sub(lambda _: table(rows) + "\n", text).encode())
    for key, kind in KINDS.items():
        methods = {label: found[key, label] for label in kind.methods if (key, label) in found}
        if len(methods) == len(kind.methods):
            figures.save_png(PICTURES / f"reconstruction_{key}.png", picture(key, methods))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
