"""The operators in TensorFlow: adjoints, gradients, norms and inverses, each against NumPy."""

import functools

import numpy as np
import pytest
import scipy.sparse.linalg
import tensorflow as tf

from zoo.physics import fourier, mri, radon, resolution, separable, tomography


def normal(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape)
    if tf.as_dtype(dtype).is_complex:
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(tf.as_dtype(dtype).as_numpy_dtype)


def coil_maps(coils, height, width):
    v, u = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    turns = np.arange(coils)[:, None, None] * 2 * np.pi / coils
    away = (v - np.sin(turns)) ** 2 + (u - np.cos(turns)) ** 2
    return np.exp(-away / 2 + 1j * (turns + u * np.cos(turns)))


CASES = {
    "parallel": lambda d: tomography.ParallelBeam(12, 0.8, 8, dtype=d),
    "parallel of odd size": lambda d: tomography.ParallelBeam(13, 0.8, 12, 17, 0.6, d),
    "seven views": lambda d: tomography.ParallelBeam(12, 0.8, 7, 15, 1.3, d),
    "limited angle": lambda d: tomography.ParallelBeam(9, 1.0, [0.0, 0.2, np.pi / 4, 1.7], dtype=d),
    "fan": lambda d: tomography.FanBeam(12, 0.8, 12, 21, 1.1, 15.0, 26.0, d),
    "fan over an arc": lambda d: tomography.FanBeam(11, 0.8, [0.1, 0.7, 2], 9, 2, 15.0, 26.0, d),
    "lines of k-space": lambda d: mri.CartesianMRI(np.arange(9) % 3 > 0, 12, dtype=d),
    "points, coils": lambda d: mri.CartesianMRI(normal((8, 7), "float64") > 0, 7,
                                                coil_maps(3, 8, 7), d),
    "radial": lambda d: mri.NonCartesianMRI((10, 9), 2.0, mri.radial(5, 8, 2.0), dtype=d),
    "radial, coils": lambda d: mri.NonCartesianMRI((7, 10), 2.0, mri.radial(4, 9, 2.0, True),
                                                   coil_maps(2, 7, 10), d),
    "blur": lambda d: separable.gaussian_blur((9, 12), 0.5, 1.4, d),
    "block mean": lambda d: separable.block_mean((8, 12), 4, d),
}  # fmt: skip


@functools.cache
def operator(name, dtype="float64"):
    return CASES[name](dtype)


@functools.cache
def matrix(name):
    """A as a dense matrix, column by column."""
    a = operator(name)
    units = np.eye(int(np.prod(a.domain_shape))).reshape(-1, *a.domain_shape)
    return a.forward(units).numpy().reshape(len(units), -1).T


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("name", CASES)
def test_adjoint(name, dtype, tolerance):
    a = operator(name, dtype)
    x = normal((2, 1, *a.domain_shape), a.dtype)
    y = normal((2, 1, *a.range_shape), a.dtype, seed=1)
    ax, aty = a.forward(x), a.adjoint(y)
    assert ax.dtype == aty.dtype == a.dtype
    assert ax.shape == y.shape and aty.shape == x.shape
    difference = abs(np.vdot(y, ax) - np.vdot(aty, x))
    assert difference < tolerance * np.linalg.norm(ax) * np.linalg.norm(y)
    # A batch is its items, one by one.
    alone = a.forward(x[1, 0]).numpy()
    np.testing.assert_allclose(ax[1, 0], alone, atol=tolerance * np.abs(alone).max())


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_first_and_second_order(name):
    a, dense = operator(name), matrix(name)
    x, y = (tf.constant(normal(s, a.dtype)) for s in (a.domain_shape, a.range_shape))
    z = tf.constant(normal(a.domain_shape, a.dtype, seed=2))
    gram = dense.conj().T @ dense

    def size(values):
        return 0.5 * tf.reduce_sum(tf.abs(values) ** 2)

    # d/dx |A x - y|^2 / 2 = A*(A x - y), and its derivative along z is A* A z.
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            loss = size(a.forward(x) - y)
        gradient = inner.gradient(loss, x)
        along = tf.math.real(tf.reduce_sum(tf.math.conj(gradient) * z))
    expected = dense.conj().T @ (dense @ x.numpy().ravel() - y.numpy().ravel())
    np.testing.assert_allclose(gradient.numpy().ravel(), expected, atol=1e-9)
    second = outer.gradient(along, x).numpy().ravel()
    np.testing.assert_allclose(second, gram @ z.numpy().ravel(), atol=1e-9)
    # d/dy |A* y|^2 / 2 = A A* y.
    with tf.GradientTape() as tape:
        tape.watch(y)
        loss = size(a.adjoint(y))
    expected = dense @ (dense.conj().T @ y.numpy().ravel())
    np.testing.assert_allclose(tape.gradient(loss, y).numpy().ravel(), expected, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_norm(name):
    largest = scipy.sparse.linalg.svds(matrix(name), k=1, return_singular_vectors=False)[0]
    found = operator(name).norm()
    assert 0.99 * largest < found < 1.0001 * largest


@pytest.mark.parametrize("name", ["parallel", "fan over an arc", "radial, coils", "block mean"])
def test_round_trip_through_a_saved_model(name, tmp_path):
    a = operator(name, "float32")

    class Both(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, *a.domain_shape), a.dtype)])
        def there_and_back(self, x):
            return a.adjoint(a.forward(x)), a.pseudo_inverse(a.forward(x))

    tf.saved_model.save(Both(), tmp_path / "model")
    loaded = tf.saved_model.load(tmp_path / "model")
    x = normal((3, *a.domain_shape), a.dtype)
    expected = a.adjoint(a.forward(x)), a.pseudo_inverse(a.forward(x))
    for found, wanted in zip(loaded.there_and_back(x), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["parallel", "radial"])
def test_a_large_batch_is_its_items(name):
    """More columns than are multiplied at a time, also where their number is not known before."""
    a = operator(name)
    shape = (None, *a.domain_shape)
    both = tf.function(
        lambda x: (a.forward(x), a.adjoint(a.forward(x))), [tf.TensorSpec(shape, a.dtype)]
    )
    for count in (1, 29):
        x = normal((count, *a.domain_shape), a.dtype)
        there, back = both(x)
        dense = matrix(name)
        expected = x.reshape(count, -1) @ dense.T
        np.testing.assert_allclose(there.numpy().reshape(count, -1), expected, atol=1e-9)
        expected = expected @ dense.conj()
        np.testing.assert_allclose(back.numpy().reshape(count, -1), expected, atol=1e-9)
        np.testing.assert_allclose(a.forward(x), there, atol=1e-12)


@pytest.mark.parametrize("geometry", [(13, 0.8, 12, 17, 0.6), (12, 1.3, 20)])
def test_parallel_beam_is_that_of_numpy(geometry):
    ours, theirs = tomography.ParallelBeam(*geometry), radon.ParallelBeam(*geometry)
    assert ours.range_shape == (theirs.views, theirs.detectors)
    x, y = normal((2, *ours.domain_shape), "float32"), normal((2, *ours.range_shape), "float32")
    for found, wanted in (
        (ours.forward(x), theirs.forward(x)),
        (ours.adjoint(y), theirs.adjoint(y)),
        (ours.pseudo_inverse(y, "hann"), theirs.fbp(y, "hann")),
        (ours.pseudo_inverse(y), theirs.fbp(y)),
    ):
        # Places in pixels are float32 there.
        np.testing.assert_allclose(found, wanted, atol=2e-4 * np.abs(wanted).max())


def test_rays_that_symmetry_joins_share_their_weights():
    """A quarter of the views, half of their detectors, and the middle of an odd number."""
    assert len(operator("parallel")._group) == 8
    assert operator("parallel")._rows == 8 * 18 / 8
    assert operator("limited angle")._rows == 4 * 14 / 2  # a line and the one through it, turned
    assert operator("fan")._rows <= 12 * (21 + 1) / 8
    arc = tomography.FanBeam(11, 0.8, [0.1, 0.7, 2.0], 9, 2.0, 15.0, 26.0)
    assert len(arc._group) == 1 and arc._rows == 27


@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_a_point_off_the_centre_is_seen_where_geometry_says(kind):
    size, spacing, views = 33, 0.7, 36
    row, column = 7, 25
    u, v = (column - 16) * spacing, (row - 16) * spacing
    image = np.zeros((size, size))
    image[row, column] = 1.0
    if kind == "parallel":
        a = tomography.ParallelBeam(size, spacing, views, 301, 0.1, "float64")
        place = u * np.cos(a.angles) + v * np.sin(a.angles)
    else:
        a = tomography.FanBeam(size, spacing, views, 601, 0.1, 30.0, 50.0, "float64")
        source = 30.0 * np.stack([np.sin(a.angles), -np.cos(a.angles)])
        towards = np.stack([u - source[0], v - source[1]])
        along = -towards[0] * np.sin(a.angles) + towards[1] * np.cos(a.angles)
        place = 50.0 * (towards[0] * np.cos(a.angles) + towards[1] * np.sin(a.angles)) / along
    seen = a.forward(image).numpy()
    detectors = (np.arange(a.detectors) - (a.detectors - 1) / 2) * 0.1
    centre = (seen * detectors).sum(1) / seen.sum(1)
    np.testing.assert_allclose(centre, place, atol=0.05)
    if kind == "parallel":  # the integral over all detectors is the pixel's area
        np.testing.assert_allclose(seen.sum(1) * 0.1, spacing**2, rtol=0.01)


def disc(size, spacing, radius, x=0.0, y=0.0):
    axis = ((np.arange(4 * size) + 0.5) / 4 - size / 2) * spacing
    inside = (axis - x) ** 2 + (axis[:, None] - y) ** 2 < radius**2
    return inside.reshape(size, 4, size, 4).mean((1, 3))


@pytest.mark.parametrize("arc", [2 * np.pi, 1.5 * np.pi])
def test_fan_beam_is_inverted_without_bias(arc):
    """Over a whole turn, and over one that measures only some lines twice."""
    size, spacing = 64, 2.0
    angles = (np.arange(180) + 0.5) / 180 * arc
    a = tomography.FanBeam(size, spacing, angles, 120, 3.0, 150.0, 260.0)
    image = 0.02 * disc(size, spacing, 40.0, 6.0, -8.0) + 0.01 * disc(size, spacing, 12.0, 20.0)
    found = a.pseudo_inverse(a.forward(image), "hann").numpy()
    flat = disc(size, spacing, 34.0, 6.0, -8.0) * (1 - disc(size, spacing, 18.0, 20.0)) == 1
    inner = disc(size, spacing, 8.0, 20.0) == 1
    np.testing.assert_allclose(found[flat].mean(), 0.02, rtol=0.01)
    np.testing.assert_allclose(found[inner].mean(), 0.03, rtol=0.01)


def test_few_views_on_an_arc_count_for_the_arc():
    angles = np.linspace(0.2, 1.2, 11)
    weights = tomography._angular_weights(angles, np.pi)
    np.testing.assert_allclose(weights.sum(), 1.1)
    np.testing.assert_allclose(tomography._angular_weights(angles[::-1], np.pi), weights[::-1])
    even = tomography.ParallelBeam(8, 1.0, 12).angles
    np.testing.assert_allclose(tomography._angular_weights(even, np.pi), np.pi / 12)


def test_cartesian_mri_is_that_of_numpy():
    lines = fourier.random_lines(9, 2, 0, 0.2)
    a, theirs = mri.CartesianMRI(lines, 12), fourier.Cartesian(lines)
    x, y = normal((2, 9, 12), "complex64"), normal((2, 9, 12), "complex64", 1)
    for found, wanted in (
        (a.forward(x), theirs.forward(x)),
        (a.adjoint(y), theirs.adjoint(y)),
        (a.pseudo_inverse(y), theirs.adjoint(y)),
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-6 * np.abs(wanted).max())
    precise = mri.CartesianMRI(lines, 12, dtype="float64").forward(x.astype("complex128"))
    centred = np.fft.ifftshift(x.astype("complex128"), axes=(1, 2))
    shifted = np.fft.fftshift(np.fft.fft2(centred, norm="ortho"), (1, 2))
    np.testing.assert_allclose(precise, shifted * lines[:, None], atol=1e-12)


@pytest.mark.parametrize("height, width", [(8, 8), (9, 12)])
def test_any_trajectory_is_the_sum_of_its_definition(height, width):
    rng = np.random.default_rng(0)
    places = rng.uniform(-0.25, 0.25, (3, 11, 2))  # 1/mm, of pixels of 2 mm
    a = mri.NonCartesianMRI((height, width), 2.0, places, coil_maps(2, height, width), "float64")
    x = normal((height, width), "complex128")
    r, q = np.arange(height) - height // 2, np.arange(width) - width // 2
    waves = places[..., 0, None, None] * r[:, None] + places[..., 1, None, None] * q
    waves = np.exp(-2j * np.pi * 2.0 * waves) / np.sqrt(x.size)
    expected = np.einsum("smrq,crq->csm", waves, a.maps * x)
    error = np.linalg.norm(a.forward(x).numpy() - expected)
    assert error < 2e-5 * np.linalg.norm(expected)


def test_full_radial_sampling_is_inverted():
    size = 32
    image = disc(size, 1.0, 9.0, 2.0, -3.0)
    for maps in (None, coil_maps(3, size, size)):
        a = mri.NonCartesianMRI((size, size), 1.0, mri.radial(64, 64, 1.0), maps)
        found = a.pseudo_inverse(a.forward(image)).numpy()
        # The corners of k-space are not measured.
        assert np.linalg.norm(found - image) < 0.12 * np.linalg.norm(image)
        inner = disc(size, 1.0, 5.0, 2.0, -3.0) == 1
        np.testing.assert_allclose(found[inner].real.mean(), 1.0, atol=0.02)


def test_golden_spokes_are_spread_evenly():
    places = mri.radial(34, 8, 1.5, golden=True)
    angles = np.sort(np.arctan2(places[:, -1, 0], places[:, -1, 1]) % np.pi)
    gaps = np.diff(angles, append=angles[0] + np.pi)
    assert gaps.max() < 2 * np.pi / 34
    assert np.abs(places).max() <= 1 / 3 and not places[:, 4].any()


def test_coils_are_put_together():
    maps = coil_maps(4, 12, 10)
    maps[:, :2] = 0
    a = mri.CartesianMRI(np.ones(12, bool), 10, maps, "float64")
    x = normal((12, 10), "complex128")
    found = a.pseudo_inverse(a.forward(x)).numpy()
    np.testing.assert_allclose(found[2:], x[2:], atol=1e-12)
    assert not found[:2].any()


def test_blur_and_block_mean_are_those_of_numpy():
    x = normal((2, 8, 12), "float64")
    mean = operator("block mean")
    np.testing.assert_allclose(mean.forward(x), resolution.block_mean(x, 4), atol=1e-6)
    np.testing.assert_allclose(mean.forward(mean.pseudo_inverse(mean.forward(x))),
                               mean.forward(x), atol=1e-9)  # fmt: skip
    point = np.zeros((41, 41))
    point[20, 20] = 1
    seen = separable.gaussian_blur((41, 41), 0.5, 3.0, "float64").forward(point).numpy()
    assert seen.sum() == pytest.approx(1)
    # At half the full width, three pixels to a side, half the maximum.
    assert seen[20, 23] == pytest.approx(seen[20, 20] / 2, rel=1e-3)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: tomography.ParallelBeam(8, 0.0, 4), "expected positive numbers"),
        (lambda: tomography.ParallelBeam(8, 1.0, []), "one or more angles"),
        (lambda: tomography.ParallelBeam(8, 1.0, 0), "one or more angles"),
        (lambda: tomography.FanBeam(8, 1.0, 4, 9, 1.0, 5.0, 9.0), "a source outside the image"),
        (lambda: tomography.ParallelBeam(8, 1.0, 4, dtype="half"), "dtype: .*Received: 'half'"),
        (lambda: mri.CartesianMRI(np.zeros(8, bool)), "mask: .*0 True"),
        (lambda: mri.CartesianMRI(np.ones(8), 6, np.ones((2, 8, 8))), r"maps: .*\(2, 8, 8\)"),
        (lambda: mri.NonCartesianMRI((8, 8), 2.0, np.ones((4, 2))), "trajectory: .*0.25 1/mm"),
        (lambda: mri.NonCartesianMRI((8, 8), 2.0, np.ones((4, 3))), r"trajectory: .*\(4, 3\)"),
        (lambda: separable.Separable(np.ones(3), np.ones((2, 3))), "two matrices"),
        (lambda: operator("parallel").forward(np.ones((12, 11))), r"image: .*\(12, 11\)"),
        (lambda: operator("fan").adjoint(np.ones((1, 12, 20))), r"measured: .*\(1, 12, 20\)"),
        (lambda: operator("parallel").pseudo_inverse(np.ones((8, 14)), "cosine"), "filter: "),
    ],
)
def test_bad_arguments_are_refused(make, words):
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value) and "Received: " in str(error.value)
