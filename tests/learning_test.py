"""That the default recipes learn, on the default data sets: minutes each, `make slow`."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


def cli(*arguments: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "cli.py"), *arguments], check=True)


def results(run: Path) -> dict:
    return json.loads((run / "evaluation" / "metrics.json").read_text())


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return f"--data_dir={tmp_path_factory.mktemp('data')}"


def test_pix2pix_brings_quarter_dose_6_db_nearer_to_normal_dose(tmp_path, data):
    model = ["--model=pix2pix", "--dataset=ldct", f"--workdir={tmp_path}", data]
    cli("prepare", "--dataset=ldct", data)
    started = time.monotonic()
    cli("train", *model)
    assert time.monotonic() - started < 20 * 60
    cli("evaluate", *model)
    gain = results(tmp_path)["summary"]["gain"]
    assert gain["psnr"]["mean"] >= 6.0
    assert gain["ssim"]["ci95"][0] > 0.0


def test_encoder_decoder_beats_its_input(tmp_path, data):
    model = ["--model=encoder_decoder", "--dataset=ldct", f"--workdir={tmp_path}", data]
    cli("train", *model, "--steps=500")
    cli("evaluate", *model)
    assert results(tmp_path)["summary"]["gain"]["psnr"]["ci95"][0] > 5.0


def test_pggan_comes_nearer_to_held_out_images(tmp_path, data):
    distances = {}
    for steps in (60, None):
        run = tmp_path / str(steps)
        model = ["--model=pggan", "--dataset=mammo", f"--workdir={run}", data]
        cli("train", *model, *([f"--steps={steps}"] if steps else []))
        cli("evaluate", *model)
        distances[steps] = results(run)["sliced_wasserstein"]
        assert results(run)["memorisation"]["flagged"] == 0
    early, late = distances[60]["generated"]["mean"], distances[None]["generated"]["mean"]
    assert late < 0.5 * early
