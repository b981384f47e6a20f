"""The operators against those of ODL and of deepinv, as their users have them."""

import subprocess
import sys

import numpy as np
import pytest

from zoo.physics import mri, tomography

pytestmark = pytest.mark.physics


@pytest.mark.parametrize("size, views, detectors", [(48, 30, 70), (33, 17, 51)])
def test_parallel_beam_is_that_of_odl(size, views, detectors):
    import odl

    image = np.random.default_rng(0).uniform(0, 1, (size, size)).astype(np.float32)
    ends = [-size / 2] * 2, [size / 2] * 2
    space = odl.uniform_discr(*ends, (size, size), dtype="float32")
    angles = odl.uniform_partition(0, np.pi, views)  # their middles, and so half a step from 0
    pitch = odl.uniform_partition(-detectors / 2, detectors / 2, detectors)
    geometry = odl.applications.tomo.Parallel2dGeometry(angles, pitch)
    theirs = odl.applications.tomo.RayTransform(space, geometry, impl="astra_cpu")
    a = tomography.ParallelBeam(size, 1.0, views, detectors)
    # The first axis of an image there is from left to right.
    wanted = theirs(space.element(image.T)).asarray()
    assert np.linalg.norm(a.forward(image).numpy() - wanted) < 1e-5 * np.linalg.norm(wanted)


# PyTorch's compiler and TensorFlow do not go together in every process.
DEEPINV = """
import sys, numpy, torch
from deepinv.physics import MRI
x, mask = (torch.tensor(numpy.load(name), dtype=torch.float32) for name in sys.argv[1:3])
numpy.save(sys.argv[3], MRI(mask=mask, img_size=tuple(x.shape[1:])).A(x).numpy())
"""


def test_cartesian_sampling_is_that_of_deepinv(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 32, 40)).astype(np.float32)
    measured = rng.uniform(size=(32, 40)) < 0.4
    given, mask, found = (tmp_path / f"{name}.npy" for name in ("x", "mask", "found"))
    np.save(given, x[None]), np.save(mask, measured[None, None])
    subprocess.run([sys.executable, "-c", DEEPINV, given, mask, found], check=True)
    real, imaginary = np.load(found)[0]
    wanted = real + 1j * imaginary
    ours = mri.CartesianMRI(measured).forward((x[0] + 1j * x[1]).astype(np.complex64)).numpy()
    assert np.linalg.norm(wanted) > 1
    assert np.linalg.norm(ours - wanted) < 1e-6 * np.linalg.norm(wanted)
