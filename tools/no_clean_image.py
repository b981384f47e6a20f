"""How well a CT series is denoised by what its own noise teaches, beside BM3D.

    python -m tools.no_clean_image --input=ct_series [--steps=1500] [--init=encoder_decoder_ldct]

Takes any CT series or volume, inserts the noise of a quarter of its dose, and trains on the noisy
series alone, with its neighbouring slices as each other's targets (`target=neighbour`). The slices
as they were scanned only judge: PSNR and SSIM of the noisy input, BM3D and the network, on slices
that are evenly spread. BM3D is told the standard deviation of the inserted noise in the body, as
the judges of the pretrained models tell it, or so many times that (`--told 1 1.2`). With `--init` a
second network starts from weights that are there. What is in `--folder` already is not made again.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import zoo
from tools import runs
from tools.judges import low_dose
from zoo import guards, metrics
from zoo.atomic import replacing
from zoo.imaging import files
from zoo.physics import noise

ROOT = Path(__file__).resolve().parent.parent
FIELDS = (
    *("target=neighbour", "source_unit=HU", "target_unit=HU", "output=residual", "loss=l1"),
    *("relative=true", "equivariant=true", "skips=add", "base_filters=16", "levels=3", "crop=96"),
    *("batch_size=4", "learning_rate=2e-3", "image_every=100000", "checkpoint_every=100"),
)
TUNED = ("target=neighbour", "source_unit=HU", "target_unit=HU", "learning_rate=1e-4")
BODY = -500  # HU: what exceeds it is no air
CHUNK = 4  # slices simulated at a time


def scan(path: Path) -> tuple[np.ndarray, float]:
    """The slices of the first volume of a folder in HU, float32 `[N, H, W]`, and its spacing."""
    volumes = files.find(path).volumes
    if not volumes or volumes[0].length < 2 or volumes[0].spacing is None:
        raise ValueError(f"input: expected a CT series with its pixel spacing. Received: {path}")
    volume = volumes[0]
    slices = np.stack([volume.read(i) for i in range(volume.length)]).astype(np.float32)
    return np.maximum(slices, low_dose.HU[0]), float(np.mean(volume.spacing))


def at_low_dose(slices: np.ndarray, spacing: float, dose: float, folder: Path) -> np.ndarray:
    """The series as a scan at that dose shows it, in whole HU from -1024."""
    parts = []
    for first in range(0, len(slices), CHUNK):
        part = slices[first : first + CHUNK]
        simulate = functools.partial(noise.simulate_low_dose, part, spacing, dose, rng=first)
        parts.append(once(folder / f"dose-{dose:g}-{first}.npy", simulate))
    return np.clip(np.rint(np.concatenate(parts)), low_dose.HU[0], 3071).astype(np.float32)


def once(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in a file, made where it is not there yet: a run that was stopped goes on."""
    if not path.exists():
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, np.asarray(make(), np.float32))
    return np.load(path)


def trained(series: Path, run: Path, *arguments: str) -> zoo.Translator:
    """A network trained on the noisy series alone, by the command that a user would type."""
    data = f"--data_dir={run.parent / 'data'}"
    runs.train(run, ["--dataset=folder", f"--input={series}", data, *arguments])
    return zoo.load(str(run))


def row(name: str, images: np.ndarray, clean: np.ndarray) -> None:
    """Prints a line of the table: means and standard deviations over the slices."""
    pairs = [(a[..., None], b[..., None]) for a, b in zip(images, clean, strict=True)]
    psnr = [metrics.psnr(*pair, low_dose.HU) for pair in pairs]
    ssim = [metrics.ssim(*pair, low_dose.HU) for pair in pairs]
    print(f"| {name} | {np.mean(psnr):.2f} ± {np.std(psnr):.2f} "
          f"| {np.mean(ssim):.4f} ± {np.std(ssim):.4f} |", flush=True)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="tools.no_clean_image")
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--dose", type=float, default=0.25)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--judged", type=int, default=8, help="slices that are judged")
    parser.add_argument("--told", type=float, nargs="*", default=[1.0], help="times the noise")
    parser.add_argument("--init", default="", help="weights that a second network starts from")
    parser.add_argument("--init_steps", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "no_clean_image")
    given = parser.parse_args(arguments)
    # The noisy series, which is all that training sees.
    clean, spacing = scan(given.input)
    noisy = at_low_dose(clean, spacing, given.dose, given.folder)
    series = given.folder / "noisy.npy"
    once(series, lambda: noisy)
    # The networks.
    networks = {}
    fields = [f"--set={field}" for field in FIELDS]
    small = "--model=encoder_decoder", "--preset=small", f"--steps={given.steps}"
    networks["`target=neighbour`, from nothing"] = trained(
        series, given.folder / "nothing", *small, *fields
    )
    if given.init:
        fields = [f"--set={field}" for field in TUNED]
        steps = f"--init={given.init}", f"--steps={given.init_steps}"
        tuned = trained(series, given.folder / "tuned", *steps, *fields)
        networks |= {
            f"`{given.init}` as it is": zoo.load(given.init),
            f"`target=neighbour`, from `{given.init}`": tuned,
        }
    # The table.
    chosen = np.unique(np.linspace(0, len(clean) - 1, given.judged).astype(int))
    clean, noisy = clean[chosen], noisy[chosen]
    level = float((noisy - clean)[clean > BODY].std())
    print(f"\n{len(chosen)} of the slices, {given.dose:g} of the dose, {level:.1f} HU inserted\n")
    print("| | PSNR, dB (± sd over slices) | SSIM |\n|---|---|---|")
    row("noisy", noisy, clean)
    for factor in given.told:
        images = []
        for index, image in zip(chosen, noisy, strict=True):
            denoise = functools.partial(low_dose.DENOISERS["BM3D"], image, factor * level)
            images.append(once(given.folder / f"bm3d-{factor:g}-{level:.3f}-{index}.npy", denoise))
        row(f"BM3D, {factor:g} × the noise", np.array(images), clean)
    for name, network in networks.items():
        with guards.silent():
            row(name, network.translate(noisy), clean)
    return 0


if __name__ == "__main__":
    sys.exit(main())
