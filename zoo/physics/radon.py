"""Parallel-beam computed tomography: Radon transform, its adjoint, filtered back-projection.

For view angle theta_k and detector position s_j the forward operator is the line integral

    (A x)[k, j] = integral of x over the line  u cos(theta_k) + v sin(theta_k) = s_j,

u to the right (columns) and v downwards (rows), both in mm from the image's centre. With `x` in
1/mm the result has no unit; it is the -log of the transmitted fraction of the photons.
"""

import numpy as np
import scipy.fft
import scipy.sparse

# A geometry with more crossings of rays and rows than this is rebuilt view by view at each use
# instead of kept: 7e7 crossings take about 0.3 GB.
_KEEP = 7e7
# The filtered sinogram is interpolated to this many samples a detector before back-projection.
_OVERSAMPLING = 8
MU_WATER = 0.0192  # 1/mm, water at about 70 keV, the mean energy of a 120 kV spectrum
FILTERS = ("ramp", "hann")  # of filtered back-projection


def hu_to_attenuation(hu: np.ndarray, mu_water: float = MU_WATER) -> np.ndarray:
    """Hounsfield units to linear attenuation in 1/mm; below air (-1000 HU) counts as air."""
    return np.maximum(np.asarray(hu, np.float32) / 1000.0 + 1.0, 0.0) * np.float32(mu_water)


def attenuation_to_hu(attenuation: np.ndarray, mu_water: float = MU_WATER) -> np.ndarray:
    """Linear attenuation in 1/mm to Hounsfield units."""
    return (np.asarray(attenuation, np.float32) / np.float32(mu_water) - 1.0) * 1000.0


class ParallelBeam:
    """Parallel-beam geometry over half a turn: theta_k = (k + 1/2) pi / views.

    Forward projection follows Joseph (IEEE Trans. Med. Imaging 1, 1982): a ray is sampled where
    it crosses each row (or column, whichever it crosses more steeply) with linear interpolation.
    The half-step of the angles makes every view one of four mirror images of a view in
    (0, pi/4), so a quarter of the operator serves for all of it.

    Args:
        size: height and width of the image in pixels.
        spacing_mm: pixel pitch in mm.
        views: number of view angles, a multiple of 4.
        detectors: number of detector elements; None covers the image's diagonal.
        detector_mm: detector pitch in mm; None takes the pixel pitch.

    Images are float32 `[..., size, size]` and sinograms float32 `[..., views, detectors]`;
    leading dimensions are a batch and cost less together than one by one.

    Raises:
        ValueError: for a geometry that is empty, or views that are not a multiple of 4.
    """

    def __init__(
        self,
        size: int,
        spacing_mm: float,
        views: int,
        detectors: int | None = None,
        detector_mm: float | None = None,
    ):
        if views < 4 or views % 4:
            raise ValueError(f"views: expected a positive multiple of 4. Received: {views}")
        if size < 1 or not spacing_mm > 0 or (detector_mm is not None and not detector_mm > 0):
            raise ValueError(
                f"size, spacing_mm, detector_mm: expected positive numbers. "
                f"Received: {size}, {spacing_mm}, {detector_mm}"
            )
        self.size, self.views = int(size), int(views)
        self.spacing_mm = float(spacing_mm)
        self.detector_mm = float(detector_mm or spacing_mm)
        self.detectors = int(detectors or covering(size, self.spacing_mm, self.detector_mm))
        self.angles = (np.arange(self.views) + 0.5) * np.pi / self.views  # radians
        self._kept: dict[int, scipy.sparse.csr_matrix] = {}

    def forward(self, image: np.ndarray) -> np.ndarray:
        """A x: attenuation `[..., size, size]` in 1/mm to `[..., views, detectors]`."""
        image = self._checked("image", image, (self.size, self.size))
        columns = _quarter_images(image.reshape(-1, self.size, self.size))
        views = np.empty((self.views // 4, self.detectors, columns.shape[1]), np.float32)
        for k in range(self.views // 4):
            views[k] = self._view(k) @ columns
        return self._unfold(views).reshape(*image.shape[:-2], self.views, self.detectors)

    def adjoint(self, sinogram: np.ndarray) -> np.ndarray:
        """A* y, the exact transpose of `forward`: `[..., views, detectors]` to images."""
        sinogram = self._checked("sinogram", sinogram, (self.views, self.detectors))
        views = self._fold(sinogram.reshape(-1, self.views, self.detectors))
        columns = np.zeros((self.size**2, views.shape[2]), np.float32)
        for k in range(self.views // 4):
            columns += self._view(k).T @ views[k]
        images = _sum_quarter_images(columns, self.size)
        return images.reshape(*sinogram.shape[:-2], self.size, self.size)

    def fbp(
        self, sinogram: np.ndarray, filter: str = "ramp", interpolation: str = "sinc"
    ) -> np.ndarray:
        """Filtered back-projection of `[..., views, detectors]` to attenuation in 1/mm.

        The ramp is the transform of its band-limited kernel (Kak & Slaney, Principles of
        Computerized Tomographic Imaging, eq. 3.61), which leaves no offset in HU; "hann"
        multiplies it with a Hann window that falls to zero at the detector's Nyquist frequency.
        Between the detectors the filtered projection is band-limited ("sinc"), or as most programs
        take it: "linear", which is smoother, or "nearest".

        Raises:
            ValueError: for an unknown filter or interpolation, or a sinogram of another shape.
        """
        response, length = self._filter(filter)
        if interpolation not in ("sinc", "linear", "nearest"):
            raise ValueError(
                f"interpolation: expected sinc, linear or nearest. Received: {interpolation!r}"
            )
        sinogram = self._checked("sinogram", sinogram, (self.views, self.detectors))
        views = self._fold(sinogram.reshape(-1, self.views, self.detectors))
        columns = np.zeros((self.size**2, views.shape[2]), np.float32)
        samples = self.detectors * _OVERSAMPLING
        # Fixed-point positions: 1/65536 of an interpolated sample, exact enough and fast to add.
        scale = self.spacing_mm / self.detector_mm * _OVERSAMPLING * 65536
        pixel = (np.arange(self.size) - (self.size - 1) / 2) * scale
        centre = ((self.detectors - 1) / 2 * _OVERSAMPLING + 0.5) * 65536
        gathered = np.empty_like(columns)
        for k in range(self.views // 4):
            spectrum = scipy.fft.rfft(views[k], length, axis=0) * response
            if interpolation == "sinc":
                table = scipy.fft.irfft(spectrum, length * _OVERSAMPLING, axis=0)[: samples + 2]
            else:
                table = _between(scipy.fft.irfft(spectrum, length, axis=0), interpolation)
                table = table[: samples + 2] / np.float32(_OVERSAMPLING)
            # Beyond the last detector nothing was measured: index `samples` holds zero.
            table[-1] = table[samples] = 0.0
            across = (pixel * np.cos(self.angles[k])).astype(np.intp)
            down = (pixel * np.sin(self.angles[k]) + centre).astype(np.intp)
            index = (down[:, None] + across).ravel()
            index >>= 16
            index[(index < 0) | (index >= samples)] = samples
            np.take(table, index, axis=0, out=gathered, mode="clip")
            columns += gathered
        columns *= np.pi / self.views
        images = _sum_quarter_images(columns, self.size)
        return images.reshape(*sinogram.shape[:-2], self.size, self.size)

    def split_fbp(self, sinogram: np.ndarray, parts: int, filter: str = "ramp") -> np.ndarray:
        """`fbp` of each of so many interleaved sets of views.

        Set k has the views k, k + parts, k + 2 parts …. Noise of different sets is independent, and
        the mean of all is what all views give together.

        Args:
            sinogram: `[..., views, detectors]`.
            parts: sets, which divide the views.
            filter: as of `fbp`.

        Returns:
            `[..., parts, size, size]`, attenuation in 1/mm.

        Raises:
            ValueError: for less than 2 parts, or parts that do not divide the views.
        """
        if parts < 2 or self.views % parts:
            raise ValueError(
                f"parts: expected 2 or more that divide {self.views} views. Received: {parts}"
            )
        sinogram = self._checked("sinogram", sinogram, (self.views, self.detectors))
        chosen = np.arange(self.views) % parts == np.arange(parts)[:, None]
        # The other views count as zero, and those that are there for them.
        return self.fbp(sinogram[..., None, :, :] * np.float32(parts) * chosen[..., None], filter)

    def _filter(self, name: str) -> tuple[np.ndarray, int]:
        """The filter's response [length // 2 + 1, 1] in 1/mm, and the padded length."""
        response, length = ramp(self.detectors, self.detector_mm, name)
        # The inverse transform is longer by the oversampling and divides by its own length.
        return (response[:, None] * _OVERSAMPLING).astype(np.float32), length

    def _view(self, k: int) -> scipy.sparse.csr_matrix:
        """Joseph's weights of one view with angle in (0, pi/4): [detectors, size**2]."""
        if k in self._kept:
            return self._kept[k]
        size, theta = self.size, self.angles[k]
        s = (np.arange(self.detectors) - (self.detectors - 1) / 2) * self.detector_mm
        pixel, weight, starts = joseph(s, np.cos(theta), np.sin(theta), size, self.spacing_mm)
        matrix = scipy.sparse.csr_matrix((weight, pixel, starts), shape=(self.detectors, size**2))
        crossings = size**2 * self.views * self.spacing_mm / self.detector_mm
        if crossings <= _KEEP:
            self._kept[k] = matrix
        return matrix

    def _fold(self, sinograms: np.ndarray) -> np.ndarray:
        """[B, views, detectors] to [views / 4, detectors, 4 B], the mirrored views as columns."""
        half, quarter = self.views // 2, self.views // 4
        parts = (
            sinograms[:, :quarter],  # theta
            sinograms[:, quarter:half][:, ::-1],  # pi/2 - theta
            sinograms[:, half : half + quarter],  # pi/2 + theta
            sinograms[:, half + quarter :][:, ::-1],  # pi - theta
        )
        return np.ascontiguousarray(np.stack(parts).transpose(2, 3, 0, 1)).reshape(
            quarter, self.detectors, -1
        )

    def _unfold(self, views: np.ndarray) -> np.ndarray:
        """The inverse of `_fold`."""
        parts = views.reshape(self.views // 4, self.detectors, 4, -1).transpose(2, 3, 0, 1)
        ordered = (parts[0], parts[1][:, ::-1], parts[2], parts[3][:, ::-1])
        return np.concatenate(ordered, axis=1)

    def _checked(self, name: str, array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        array = np.asarray(array, np.float32)
        if array.shape[-2:] != shape:
            raise ValueError(f"{name}: expected shape (..., {shape[0]}, {shape[1]}). "
                             f"Received: {array.shape}")  # fmt: skip
        return array


def covering(size: int, spacing_mm: float, detector_mm: float) -> int:
    """The even number of detectors of a pitch that covers an image's diagonal."""
    return int(2 * np.ceil(int(size) * spacing_mm * np.sqrt(2.0) / detector_mm / 2))


def joseph(
    offset_mm: np.ndarray,
    cos: np.ndarray | float,
    sin: np.ndarray | float,
    size: int,
    spacing_mm: float,
    dtype: type = np.float32,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joseph's weights of the rays u cos + v sin = offset, steeper to the rows than to the columns.

    Each row that a ray crosses adds `spacing_mm / |cos|` times the value there, between two pixels.

    Args:
        offset_mm: `[rays]`.
        cos, sin: of the angle of the rays' normal, one for all or `[rays, 1]`; `|cos| >= |sin|`.
        size: height and width of the image in pixels.
        spacing_mm: pixel pitch.
        dtype: of the weights, and of the places in pixels that they come from.

    Returns:
        A sparse matrix `[rays, size**2]` by rows: int32 columns, weights in mm, and where each
        row starts among them (`[rays + 1]`).
    """
    v = (np.arange(size) - (size - 1) / 2) * spacing_mm
    u = (offset_mm[:, None] - v * sin) / cos  # where the ray crosses row v
    u = (u / spacing_mm + (size - 1) / 2).astype(dtype)
    low = np.floor(u)
    upper = u - low
    low = low.astype(np.int32)
    column = np.stack([low, low + 1], -1)
    length: np.ndarray = np.asarray(spacing_mm / np.abs(cos), dtype)[..., None]
    weight = np.stack([1.0 - upper, upper], -1) * length
    inside = (column >= 0) & (column < size)
    column += (np.arange(size, dtype=np.int32) * size)[:, None]
    starts = np.concatenate([[0], np.cumsum(inside.sum((1, 2)))]).astype(np.int32)
    return column[inside], weight[inside], starts


def ramp(detectors: int, detector_mm: float, filter: str) -> tuple[np.ndarray, int]:
    """The response of a filter of `ParallelBeam.fbp` in 1/mm.

    Returns:
        float64 `[length // 2 + 1]` for the real transform of rows padded to `length`, and that.

    Raises:
        ValueError: for an unknown filter.
    """
    if filter not in FILTERS:
        raise ValueError(f"filter: expected {' or '.join(FILTERS)}. Received: {filter!r}")
    length = scipy.fft.next_fast_len(2 * detectors, real=True)
    length += length % 2
    n = np.minimum(np.arange(length), length - np.arange(length))
    odd = n % 2 == 1
    kernel = np.zeros(length)
    kernel[0] = 0.25
    kernel[odd] = -1.0 / (np.pi * n[odd]) ** 2
    response = scipy.fft.rfft(kernel).real / detector_mm
    if filter == "hann":
        response *= 0.5 + 0.5 * np.cos(np.pi * np.linspace(0, 1, response.size))
    return response, length


def _between(columns: np.ndarray, interpolation: str) -> np.ndarray:
    """`[length, B]` at `_OVERSAMPLING` places from each row towards the next."""
    share = np.arange(_OVERSAMPLING, dtype=np.float32)[:, None] / _OVERSAMPLING
    if interpolation == "nearest":
        share = np.rint(share)
    between = columns[:, None] + share * (np.roll(columns, -1, 0) - columns)[:, None]
    return between.reshape(-1, columns.shape[1])


def _quarter_images(images: np.ndarray) -> np.ndarray:
    """[B, n, n] to columns [n * n, 4 B] that view theta sees as the image's four mirror views.

    With x[v, u]: pi/2 - theta exchanges u and v; pi/2 + theta turns (u, v) to (v, -u);
    pi - theta mirrors u.
    """
    swapped = images.swapaxes(-1, -2)
    parts = np.stack([images, swapped, swapped[..., ::-1, :], images[..., ::-1]])
    return np.ascontiguousarray(parts.transpose(2, 3, 0, 1)).reshape(images[0].size, -1)


def _sum_quarter_images(columns: np.ndarray, size: int) -> np.ndarray:
    """The transpose of `_quarter_images`: [n * n, 4 B] to [B, n, n]."""
    parts = columns.reshape(size, size, 4, -1).transpose(2, 3, 0, 1)
    swapped = parts[1] + parts[2][..., ::-1, :]
    return parts[0] + parts[3][..., ::-1] + swapped.swapaxes(-1, -2)
