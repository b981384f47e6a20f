"""tools/reconstruction_few.py: four images in eight ways, and the table of what they taught."""

import functools

import numpy as np

from tools import reconstruction_few as few
from tools.judges.unrolled import Slice
from zoo.physics import radon, tomography


@functools.cache
def beam():
    return tomography.ParallelBeam(12, 10.0, 8)


def one(seed):
    rng = np.random.default_rng(seed)
    image = np.full((12, 12, 1), -1000.0, np.float32)
    image[3:9, 2:7] = rng.uniform(-200, 800)
    y = beam().forward(radon.hu_to_attenuation(image[..., 0])).numpy()
    noisy = (y + rng.normal(0, 0.05, y.shape)).astype(np.float32)
    return Slice(str(seed), str(seed), noisy[..., None], image, noisy, beam(), 0.05)


def test_each_way_is_a_measurement_of_its_image():
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(12, 12)).astype(np.float32)
    y = beam().forward(image).numpy()
    found = few.ways(y[..., None], image[..., None])
    assert len({x.tobytes() for _, x in found}) == 8
    for sinogram, turned in found:
        np.testing.assert_allclose(beam().forward(turned[..., 0]), sinogram[..., 0], atol=1e-3)


def test_the_best_step_of_few_slices_is_taken(capsys):
    held = [one(7)]
    model = few.learned([one(seed) for seed in range(2)], held, 6, 2)
    said = [float(line.split()[3]) for line in capsys.readouterr().out.splitlines()]
    assert len(said) == 3
    assert abs(few._quality(model, held[0]) - max(said)) < 0.01


def test_the_table_and_its_place():
    kinds = {"quick": (30.0, 0.6), "tv": (36.0, 0.9), "model": (36.5, 0.9)}
    row = {"patient": "a"}
    for key, (psnr, ssim) in kinds.items():
        row |= {f"psnr_db_{key}": psnr, f"ssim_{key}": ssim}
    text = few.table([row, row | {"patient": "b"}])
    assert "| `learned_primal_dual` | 36.50 | 0.900 | +0.50 (+0.50 to +0.50) |" in text
    assert len(few._TABLE.findall(f"before\n\n{text}\n\nafter")) == 1
    assert len(few._TABLE.findall(few.PAGE.read_text(encoding="utf-8"))) == 1
