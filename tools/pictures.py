"""The README's pictures of real scans, from what its commands wrote, and of a generator's samples.

    python -m tools.pictures ct MY_DATA DENOISED       docs/pictures/real_ct.png
    python -m tools.pictures mr BRAIN.nii.gz           docs/pictures/real_mr.png
    python -m tools.pictures mammo DATA_DIR            docs/pictures/pggan_mammo.png
    python -m tools.pictures page ADDRESS FILE         docs/pictures/serve_page.png

MY_DATA is what `examples/simulate_low_dose.py` made, DENOISED what `predict` made of its `testA`.
BRAIN is a brain MR volume. ADDRESS is that of a running `zoo serve`, whose page is given FILE.
"""

import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom

import zoo
from zoo import figures
from zoo.data import batches, prepare
from zoo.physics import resolution

SOFT_TISSUE = (-160.0, 240.0)
LUNG = (-1000.0, 200.0)
PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"


def ct(data: str, denoised: str) -> None:
    names = ["a quarter of the dose", "denoised", "as it was scanned"]
    folders = [Path(data) / "testA", Path(denoised), Path(data) / "testB"]
    files = sorted(path.name for path in folders[-1].glob("*.dcm"))
    middle = files[len(files) // 2]
    row = {name: _hu(folder / middle) for name, folder in zip(names, folders, strict=True)}
    parts = [
        figures.grid([row], window, error=(names[1], names[-1]), error_limit=100, unit="HU",
                     largest=288)
        for window in (SOFT_TISSUE, LUNG)
    ]  # fmt: skip
    figures.save_png(PICTURES / "real_ct.png", np.vstack(parts))


def _hu(path: Path) -> np.ndarray:
    file = pydicom.dcmread(path)
    return file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)


def mr(path: str) -> None:
    volume = np.asarray(nibabel.load(path).dataobj).astype(np.float32)
    image = volume[:, :, volume.shape[2] // 2].T[::-1]
    source = resolution.crop_kspace(image, 2)
    names = ["srcnn_mri_x2", "srresnet_mri_x2", "srgan_mri_x2"]
    models = {name: zoo.load(name) for name in names}
    row = {"bicubic": models[names[0]].baseline(source[..., None])[0][..., 0]}
    row |= {name: model.translate(source) for name, model in models.items()}
    row["as it was scanned"] = image
    window = (0.0, float(np.quantile(image, 0.997)))
    whole = figures.grid([row], window, largest=256)
    top, left = image.shape[0] // 3, image.shape[1] // 3
    part = {k: v[top : top + 80, left : left + 80] for k, v in row.items()}
    closer = figures.grid([part], window, panel=240)
    width = max(whole.shape[1], closer.shape[1])
    pad = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0))) for p in (whole, closer)]
    figures.save_png(PICTURES / "real_mr.png", np.vstack(pad))


def page(address: str, path: str) -> None:
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--window-size=1400,920"):
        options.add_argument(flag)
    # Named, so that Selenium does not look for one in the network.
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as browser:
        browser.get(address)
        browser.find_element(By.ID, "files").send_keys(str(Path(path).resolve()))
        viewer = browser.find_element(By.ID, "viewer")
        WebDriverWait(browser, 600).until(lambda _: viewer.is_displayed())
        Select(browser.find_element(By.ID, "preset")).select_by_visible_text("soft tissue")
        browser.save_screenshot(str(PICTURES / "serve_page.png"))


def mammo(data_dir: str) -> None:
    model, entry = zoo.load("pggan_mammo"), zoo.lookup("pggan_mammo")
    builder = prepare.load_builder(entry.dataset, Path(data_dir), entry.recipe)
    size = model.recipe.resolution
    real = [e["image"] for e in batches.eval_dataset(builder, "test", 16, size)]
    window = model.target.window
    sides = [
        figures.sample_grid(images, window, panel=96)
        for images in (np.stack(real), model.generate(16))
    ]
    gap = np.full((sides[0].shape[0], 24, 3), 255, np.uint8)
    figures.save_png(PICTURES / "pggan_mammo.png", np.hstack([sides[0], gap, sides[1]]))


if __name__ == "__main__":
    {"ct": ct, "mr": mr, "mammo": mammo, "page": page}[sys.argv[1]](*sys.argv[2:])
