"""Sensitivity maps of receiver coils from the middle of k-space. No TensorFlow is needed."""

import numpy as np

from zoo.physics import fourier


def espirit(
    kspace: np.ndarray,
    calibration: int = 24,
    kernel: int = 6,
    threshold: float = 0.02,
    crop: float = 0.95,
) -> np.ndarray:
    """ESPIRiT (Uecker et al., Magn. Reson. Med. 71, 2014): one map a coil.

    Every patch of `kernel` x `kernel` points of all coils lies in a space of few dimensions, found
    by a singular value decomposition of the patches of the middle of k-space. Projecting on it is,
    pixel by pixel, a small matrix over the coils, whose eigenvector of eigenvalue 1 is what they
    see.

    Args:
        kspace: complex `[coils, H, W]`, fully measured in the middle.
        calibration: points along each axis of that middle.
        kernel: points along each axis of a patch.
        threshold: singular values below this share of the largest are noise.
        crop: where the eigenvalue is below it there is no signal, and the maps are zero.

    Returns:
        complex64 `[coils, H, W]`, with sum of |S_c|^2 = 1 where there is signal; the phase is that
        relative to the first coil.

    Raises:
        ValueError: for another shape, or a middle smaller than the kernel.
    """
    kspace = np.asarray(kspace, np.complex64)
    if kspace.ndim != 3 or not kernel <= calibration <= min(kspace.shape[1:]):
        raise ValueError(
            "kspace, calibration, kernel: expected shape (coils, H, W) and kernel <= calibration "
            f"<= H, W. Received: {kspace.shape}, {calibration}, {kernel}"
        )
    coils, height, width = kspace.shape
    # The patches of the middle, one a row.
    top, left = height // 2 - calibration // 2, width // 2 - calibration // 2
    middle = kspace[:, top : top + calibration, left : left + calibration]
    windows = np.lib.stride_tricks.sliding_window_view(middle, (kernel, kernel), axis=(1, 2))
    patches = windows.transpose(1, 2, 0, 3, 4).reshape(-1, coils * kernel**2)
    # The directions that hold signal, as filters.
    _, values, directions = np.linalg.svd(patches, full_matrices=False)
    kept = directions[values > threshold * values[0]].reshape(-1, coils, kernel, kernel)
    # What projecting on them does to each pixel's coils.
    matrices = np.zeros((height, width, coils, coils), np.complex64)
    row, column = height // 2 - kernel // 2, width // 2 - kernel // 2
    for direction in kept:
        grid = np.zeros((coils, height, width), np.complex64)
        grid[:, row : row + kernel, column : column + kernel] = direction.conj()[:, ::-1, ::-1]
        seen = fourier.from_kspace(grid).transpose(1, 2, 0)
        matrices += seen[..., :, None] * seen[..., None, :].conj()
    matrices *= height * width / kernel**2
    # Its strongest eigenvector.
    eigenvalues, vectors = np.linalg.eigh(matrices)
    strongest = vectors[..., -1].transpose(2, 0, 1).conj()
    strongest = strongest * np.exp(-1j * np.angle(strongest[:1]))
    return (strongest * (eigenvalues[..., -1] > crop)).astype(np.complex64)
