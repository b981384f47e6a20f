"""T2-weighted slices of IXI at high and at low resolution: the `ixi` examples of `sr`."""

from zoo.physics import resolution
from zoo_datasets.cases import Case, Examples, SourceConfig
from zoo_datasets.publishers import mr_signal


def read(case: Case, config: SourceConfig) -> Examples:
    """The axial slices of a volume that show something, and the middle of their k-space.

    Targets are cropped to multiples of the largest scale, about their middle.

    Raises:
        ValueError: for a file that cannot be read, or is too small.
    """
    (path,) = case.files.values()
    scan = mr_signal.read(path)
    most = max(config.scales)
    rows, columns = (side // most * most for side in scan.values.shape[1:])
    if min(rows, columns) < 4 * most:
        raise ValueError(
            f"{path.name}: expected slices of at least {4 * most} x {4 * most} pixels. "
            f"Received: shape {scan.values.shape}"
        )
    top, left = (scan.values.shape[1] - rows) // 2, (scan.values.shape[2] - columns) // 2
    image, scale = mr_signal.scaled(scan.values)
    for i in mr_signal.full_slices(image):
        target = image[i, top : top + rows, left : left + columns]
        images = {"target": target}
        images |= {f"source_x{s}": resolution.crop_kspace(target, s) for s in config.scales}
        example = {key: image[..., None] for key, image in images.items()}
        yield case.example(f"{case.key}-{i:03d}", **example, scale=scale, spacing=scan.spacing[1:])
