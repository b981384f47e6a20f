"""`make demo`: train two models on simulated data, translate real CT images, and show it all.

`python -m tools.demo` runs the commands that a user would type, printing each, and leaves
`demo/index.html` to open.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pydicom.data
from PIL import Image

from zoo import figures
from zoo.atomic import write_atomic
from zoo.evaluation.page import data_uri, document, section
from zoo.imaging import files

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"
DATA = DEMO / "data"
# Real CT images that the package pydicom brings along; the names are pydicom's.
REAL_CT = ("CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "693_J2KI.dcm")
SOFT_TISSUE = (-160.0, 240.0)


def cli(*arguments: str) -> None:
    print(f"\n$ python cli.py {' '.join(arguments)}", flush=True)
    started = time.monotonic()
    subprocess.run([sys.executable, str(ROOT / "cli.py"), *arguments], cwd=ROOT, check=True)
    print(f"({time.monotonic() - started:.0f} s)", flush=True)


def main() -> None:
    started = time.monotonic()
    data = f"--data_dir={DATA}"
    scans = DEMO / "scans"
    if not scans.exists():
        scans.mkdir(parents=True)
        for name in REAL_CT:
            shutil.copy(pydicom.data.get_testdata_file(name), scans / name)
    ldct = ["--model=pix2pix", "--dataset=ldct/phantom_small", data, "--workdir=demo/pix2pix"]
    mammo = ["--model=pggan", "--dataset=mammo/phantom_small", data, "--workdir=demo/pggan"]
    cli("train", *ldct, "--steps=400", "--set=image_every=100")
    cli("evaluate", *ldct)
    cli("predict", "--model=demo/pix2pix", "--input=demo/scans", "--output=demo/translated",
        "--overwrite")  # fmt: skip
    cli("train", *mammo, "--steps=800", "--set=fmap_base=256")
    cli("generate", "--model=demo/pggan", "--output=demo/generated", "--count=16")
    page = write_page()
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes. Open {page}")


def write_page() -> Path:
    """A self-contained page with what the runs made."""
    metrics = json.loads((DEMO / "pix2pix" / "evaluation" / "metrics.json").read_text())
    gain = metrics["summary"]["gain"]["psnr"]
    rows = []
    translated = {v.name: v for v in files.find(DEMO / "translated").volumes}
    for volume in files.find(DEMO / "scans").volumes:
        rows.append({"real CT": volume.read(0), "translated": translated[volume.name].read(0)})
    scans = figures.grid(rows, SOFT_TISSUE, error=("translated", "real CT"), unit="HU", panel=256)
    body = "".join(
        [
            section(
                "Low-dose CT",
                "pix2pix, trained for a minute or two on simulated quarter-dose CT. On "
                f"{metrics['images']} simulated slices of {metrics['patients']} test patients PSNR "
                f"against the normal dose is {gain['mean']:+.1f} dB higher than the input's (95 % "
                f"interval {gain['ci95'][0]:+.1f} to {gain['ci95'][1]:+.1f}).",
                picture(last_sample("pix2pix")),
                '<p><a href="pix2pix/evaluation/report.html">Full report</a></p>',
            ),
            section(
                "Real CT, translated",
                "Images that pydicom ships, read and written as DICOM (demo/translated). The model "
                "has seen simulations only, and there is no ground truth: this shows that the path "
                "works, not that the model may be trusted.",
                picture(scans),
            ),
            section(
                "Mammograms that never were",
                "PGGAN, grown from 4×4 to 64×64 pixels on simulated mammograms.",
                picture(last_sample("pggan")),
            ),
        ]
    )
    page = DEMO / "index.html"
    write_atomic(page, document("Demo", body).encode())
    return page


def last_sample(run: str) -> np.ndarray:
    return np.asarray(Image.open(max((DEMO / run / "samples").glob("*.png"))).convert("RGB"))


def picture(array: np.ndarray) -> str:
    return f'<img src="{data_uri(array)}" alt="" style="max-width:100%">'


if __name__ == "__main__":
    main()
