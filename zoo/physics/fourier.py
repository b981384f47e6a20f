"""Cartesian magnetic resonance imaging: centred unitary DFT, undersampling, zero filling.

For an image x of H x W pixels the forward transform is

    (F x)[u, v] = (H W)^(-1/2) sum over r, c of x[r, c] exp(-2 pi i (u r / H + v c / W)),

where r and u count from the centre pixel H // 2 and c and v from W // 2: the zero frequency is the
centre of k-space. F is unitary: F* is its inverse, and norms are kept (Parseval). Rows of k-space
are the phase-encoding lines, which cost a repetition each; columns are the read-out, which is free.
Undersampling therefore keeps whole rows: A x = M F x with M zero on the lines not measured, and
A* y = F* M y is the adjoint, the pseudo-inverse, and what is called zero filling.

The transforms take NumPy arrays and TensorFlow tensors and give the same kind back, complex64
(of complex128 tensors complex128).
"""

import sys

import numpy as np
import scipy.fft


def to_kspace(image):
    """F x: image `[..., H, W]`, real or complex, to k-space `[..., H, W]` complex64."""
    if _is_tensor(image):
        return _tensor_transform(image, "fft2d")
    image = _shift(np.asarray(image, np.complex64), inverse=True)
    return _shift(scipy.fft.fft2(image, norm="ortho"))


def from_kspace(kspace):
    """F* y, the inverse and adjoint of `to_kspace`: `[..., H, W]` to `[..., H, W]` complex64."""
    if _is_tensor(kspace):
        return _tensor_transform(kspace, "ifft2d")
    kspace = _shift(np.asarray(kspace, np.complex64), inverse=True)
    return _shift(scipy.fft.ifft2(kspace, norm="ortho"))


def to_channels(values):
    """Complex `[..., H, W]` to float32 `[..., H, W, 2]`: real part, imaginary part."""
    if _is_tensor(values):
        import tensorflow as tf

        return tf.stack([tf.math.real(values), tf.math.imag(values)], axis=-1)
    values = np.asarray(values, np.complex64)
    return np.stack([values.real, values.imag], axis=-1)


def from_channels(channels):
    """`[..., H, W, 2]` (real part, imaginary part) to complex64 `[..., H, W]`.

    Raises:
        ValueError: where the last axis has not two entries.
    """
    if len(channels.shape) < 1 or channels.shape[-1] != 2:
        raise ValueError(
            f"channels: expected shape (..., 2), real and imaginary part. "
            f"Received: {tuple(channels.shape)}"
        )
    if _is_tensor(channels):
        import tensorflow as tf

        channels = tf.cast(channels, tf.float32)
        return tf.complex(channels[..., 0], channels[..., 1])
    channels = np.asarray(channels, np.float32)
    return (channels[..., 0] + 1j * channels[..., 1]).astype(np.complex64)


def zero_filled(kspace):
    """|F* y|: k-space `[..., H, W, 2]`, zero where not measured, to magnitude `[..., H, W, 1]`.

    Raises:
        ValueError: where the last axis has not two entries.
    """
    return abs(from_kspace(from_channels(kspace)))[..., None]


def random_lines(
    n: int,
    acceleration: float,
    rng: np.random.Generator | int,
    centre: float = 0.08,
    power: float = 2.0,
) -> np.ndarray:
    """Phase-encoding lines drawn at random, denser in the middle (Lustig et al., 2007).

    The central `centre * n` lines are all measured; the others are drawn without replacement with
    a density of (1 - |k| / k_max)^power, so aliasing looks like noise rather than like ghosts.

    Args:
        n: number of lines of full k-space.
        acceleration: n over the number of lines measured, at least 1.
        rng: generator or seed; the same one gives the same lines.
        centre: share of k-space, in the middle, that is fully measured.
        power: how steeply the density falls.

    Returns:
        bool `[n]`, `round(n / acceleration)` of them True.

    Raises:
        ValueError: for an acceleration or a centre out of range.
    """
    middle, count = _middle(n, acceleration, centre)
    k = np.abs(np.arange(n) - n // 2) / (n // 2 + 1)
    density = np.where(middle, 0.0, (1 - k) ** power)
    lines = middle.copy()
    if count:
        rng = np.random.default_rng(rng)
        lines[rng.choice(n, count, replace=False, p=density / density.sum())] = True
    return lines


def equispaced_lines(
    n: int, acceleration: float, rng: np.random.Generator | int, centre: float = 0.08
) -> np.ndarray:
    """Phase-encoding lines at even steps from a random start, and the middle of k-space.

    This is how parallel imaging samples; aliasing shows as ghosts at even distances. Arguments,
    result and errors are those of `random_lines`; the step between lines beside the middle is a
    whole number only on average, so that the number of lines is exact.
    """
    middle, count = _middle(n, acceleration, centre)
    outer = np.flatnonzero(~middle)
    lines = middle.copy()
    if count:
        start = np.random.default_rng(rng).uniform()
        lines[outer[((np.arange(count) + start) * len(outer) / count).astype(int)]] = True
    return lines


class Cartesian:
    """A = M F, the measurement of the phase-encoding lines `lines`.

    Args:
        lines: bool `[H]`, True for the rows of k-space that are measured.

    Raises:
        ValueError: where `lines` is not a vector with at least one True.
    """

    def __init__(self, lines: np.ndarray):
        self.lines = np.asarray(lines, bool)
        if self.lines.ndim != 1 or not self.lines.any():
            raise ValueError(
                f"lines: expected a vector with at least one True. "
                f"Received: shape {self.lines.shape}, {int(self.lines.sum())} True"
            )

    @property
    def acceleration(self) -> float:
        """Lines of full k-space over lines measured."""
        return self.lines.size / int(self.lines.sum())

    def forward(self, image):
        """A x: image `[..., H, W]` to k-space `[..., H, W]` complex64, zero where not measured."""
        return to_kspace(image) * self._rows(image)

    def adjoint(self, kspace):
        """A* y: k-space `[..., H, W]` to complex images; what lies on other lines counts as 0."""
        rows = self._rows(kspace)
        if _is_tensor(kspace):
            import tensorflow as tf

            return from_kspace(tf.cast(kspace, tf.complex64) * rows)
        return from_kspace(np.asarray(kspace, np.complex64) * rows)

    def _rows(self, values) -> np.ndarray:
        if len(values.shape) < 2 or values.shape[-2] != self.lines.size:
            raise ValueError(
                f"image, kspace: expected shape (..., {self.lines.size}, W). "
                f"Received: {tuple(values.shape)}"
            )
        return self.lines[:, None].astype(np.complex64)


def _middle(n: int, acceleration: float, centre: float) -> tuple[np.ndarray, int]:
    """The lines in the middle, bool `[n]`, and how many others are to be measured."""
    if n < 1 or not 1 <= acceleration <= n or not 0 <= centre <= 1:
        raise ValueError(
            f"n, acceleration, centre: expected n >= acceleration >= 1 and a share in [0, 1]. "
            f"Received: {n}, {acceleration}, {centre}"
        )
    total, inner = round(n / acceleration), round(centre * n)
    if inner > total:
        raise ValueError(
            f"centre: expected no more lines in the middle than are measured ({total}). "
            f"Received: {centre} of {n} lines"
        )
    first = n // 2 - inner // 2
    middle = np.zeros(n, bool)
    middle[first : first + inner] = True
    return middle, total - inner


def _is_tensor(values) -> bool:
    # Whoever holds a tensor has imported TensorFlow; nobody else should have to.
    tf = sys.modules.get("tensorflow")
    return tf is not None and hasattr(tf, "is_tensor") and tf.is_tensor(values)


def _shift(values: np.ndarray, inverse: bool = False) -> np.ndarray:
    return (np.fft.ifftshift if inverse else np.fft.fftshift)(values, axes=(-2, -1))


def _tensor_transform(values, name: str):
    import tensorflow as tf

    if values.dtype != tf.complex128:
        values = tf.cast(values, tf.complex64)
    size = tf.cast(tf.reduce_prod(tf.shape(values)[-2:]), values.dtype.real_dtype)
    # TensorFlow's inverse divides by H W, its forward transform by nothing.
    scale = tf.sqrt(size) if name == "ifft2d" else 1.0 / tf.sqrt(size)
    values = getattr(tf.signal, name)(tf.signal.ifftshift(values, axes=(-2, -1)))
    return tf.signal.fftshift(values, axes=(-2, -1)) * tf.cast(scale, values.dtype)
