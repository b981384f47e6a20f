"""Neighbouring slices of a noisy series as each other's targets: training without a clean image.

Noise2Noise (Lehtinen et al. 2018, arXiv:1803.04189) between slices, as NS-N2N has it (Zhou et al.
2024, arXiv:2411.10831): two slices show nearly one anatomy with noise of their own each, so that
the best guess of one from the other is the clean image. Where the two show different things, which
a threshold on their smoothed difference tells, a slice is its own target: nothing that moved from
one slice to the next is averaged.
"""

import dataclasses

import numpy as np
from scipy import ndimage

from zoo.imaging.dicom.read import Series
from zoo.imaging.volume import Volume
from zoo.recipe import Recipe
from zoo_datasets.folder.items import Item, Layout

_SMOOTH = 2.0  # pixels: standard deviation of the filter that takes most of the noise away
_FINE = 1.5  # pixels: what is finer than this filter leaves is noise, but for edges
_LEVELS = (
    3.0  # of the smoothed noise: so few pixels of pure noise exceed them that it is not chosen
)
_BLOCK = 32  # pixels: noise differs from place to place, and is measured in blocks
_QUIET = 25  # percentile of blocks, which are the ones without anatomy that moves
_NORMAL = 0.6745  # median of |x| of a normal x of standard deviation 1
_GAP = 1.5  # of the usual distance: slices farther apart are no neighbours
_CORRELATED = 0.15  # of the noise of neighbours, from where on it is said
_TRIPLES, _VOLUMES = 3, 4  # that the correlation is measured on


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Chosen(Volume):
    """Slices of a volume in another order, or what agrees with them.

    Attributes:
        volume: theirs.
        indices: which slices.
        partners: of each, where given, the slices that it reads as where they agree with it: the
            first of them that does, or else itself.
    """

    volume: Volume
    indices: tuple[int, ...]
    partners: tuple[tuple[int, ...], ...] = ()

    @property
    def kind(self) -> str:  # type: ignore[override]  # that of the files
        return self.volume.kind

    def path(self, index: int):
        """See `Volume.path`."""
        return self.volume.path(self.indices[index])

    def read(self, index: int) -> np.ndarray:
        """See `Volume.read`."""
        self._check(index)
        image = target = self.volume.read(self.indices[index])
        for partner in reversed(self.partners[index] if self.partners else ()):
            other = self.volume.read(partner)
            target = np.where(agreement(image, other), other, target)
        return target


def agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where two noisy slices show the same: bool `[H, W]`.

    Where their difference, smoothed, is below three standard deviations of what their noise alone
    would leave there. That is measured: the fine part of the difference tells how strong the noise
    is at each place, and the quietest quarter of the image how much of it smoothing leaves.

    Args:
        first, second: `[H, W]`, any unit.
    """
    difference = np.asarray(second, np.float32) - np.asarray(first, np.float32)
    smooth = np.abs(ndimage.gaussian_filter(difference, _SMOOTH))
    noise = _medians(np.abs(_fine(difference)))
    left = _medians(smooth)
    noisy = noise > 0
    if not noisy.any():
        return smooth <= 0
    level = np.percentile(left[noisy] / noise[noisy], _QUIET) * noise / _NORMAL
    side = _side(difference.shape)
    level = ndimage.zoom(level, side, order=1, mode="nearest", grid_mode=True)
    return smooth <= _LEVELS * level[: smooth.shape[0], : smooth.shape[1]]


def noise_correlation(slices: list[np.ndarray]) -> float:
    """The correlation of noise between one slice and the next, from three in a row.

    Of noise that is independent two successive differences, which share the middle slice with
    opposite signs, have the correlation c = -1/2; of noise whose neighbours have the correlation r,
    c = (2 r - 1) / (2 - 2 r). The differences' fine parts are taken, where all three agree.

    Args:
        slices: three of `[H, W]`.
    """
    first, second = (
        _fine(b.astype(np.float32) - a) for a, b in zip(slices, slices[1:], strict=False)
    )
    same = agreement(slices[0], slices[1]) & agreement(slices[1], slices[2])
    first, second = first[same], second[same]
    size = np.sqrt((first**2).sum() * (second**2).sum())
    if not size:
        return 0.0
    c = float((first * second).sum() / size)
    return (2 * c + 1) / (2 + 2 * c)


def check(recipe: Recipe) -> None:
    """A ValueError for a recipe that neighbouring slices cannot be the targets of."""
    classes = getattr(recipe, "classes", 0)
    if classes or recipe.dimensions == 3 or recipe.scale > 1:
        raise ValueError(
            "target: expected slices of intensities, and an output of the input's size, with "
            f"target=neighbour. Received: classes={classes}, dimensions={recipe.dimensions}, "
            f"scale={recipe.scale}"
        )


def pair(found: Layout) -> None:
    """Makes pairs of neighbouring slices of single images, or of the sources of training pairs.

    In place. Pairs for validation and test stay: their targets are clean, and judge what was
    learned from the sources alone.

    Raises:
        ValueError: for two domains, images in colour, and files of single slices.
    """
    if found.kind == "unpaired":
        raise ValueError(
            "target: expected single images or pairs with target=neighbour. Received: two domains"
        )
    (domain,) = found.domains
    for split in domain if found.kind == "single" else ["train"]:
        items = [_neighbours(item) for item in domain[split]]
        domain[split] = [item for item in items if item.volumes[0].length]
    if not domain["train"]:
        raise ValueError(
            "target: expected series or volumes of two slices or more with target=neighbour. "
            "Received: single slices"
        )
    told = "of training" if found.kind == "paired" else "of all images"
    found.notes.append(f"targets {told} are the neighbouring slices, where these agree")
    found.kind = "paired"
    correlation = _correlation([item.volumes[0] for item in domain["train"]])
    if correlation > _CORRELATED:
        found.notes.append(
            f"warning: the noise of neighbouring slices has the correlation {correlation:.2f}, as "
            "that of overlapping slices or of a reconstruction in 3-D has: what of it they share "
            "counts as anatomy, and stays"
        )


def _neighbours(item: Item) -> Item:
    """Each slice with the next as target, and each with the one before.

    Where that disagrees, the one on the other side may agree.
    """
    volume = item.volumes[0]
    if volume.channels != 1:
        raise ValueError(
            f"target: expected grey images with target=neighbour. Received: {volume.name} with "
            f"{volume.channels} channels"
        )
    followed = _followed(volume)
    forth = [(i + 1, i - 1) if i - 1 in followed else (i + 1,) for i in followed]
    back = [(i, i + 2) if i + 1 in followed else (i,) for i in followed]
    indices = followed + tuple(i + 1 for i in followed)
    same = {field.name: getattr(volume, field.name) for field in dataclasses.fields(Volume)}
    same |= {"length": len(indices), "volume": volume, "indices": indices}
    return item._replace(volumes=(Chosen(**same), Chosen(**same, partners=(*forth, *back))))


def _followed(volume: Volume) -> tuple[int, ...]:
    """The slices whose next one is a neighbour: no end of a part, and none missing between."""
    indices = range(volume.length - 1)
    positions = [frame.position for frame in volume.frames] if isinstance(volume, Series) else []
    steps = np.ones(volume.length - 1)
    if positions and None not in positions:
        steps = np.linalg.norm(np.diff(np.array(positions, np.float64), axis=0), axis=1)
    near = steps <= _GAP * np.median(steps) if len(steps) else steps
    return tuple(i for i in indices if near[i] and volume.neighbour(i, 1) == i + 1)


def _correlation(sources: list[Volume]) -> float:
    """The mean `noise_correlation` of some slices of some volumes; 0 where none has three."""
    measured = []
    for source in sources[:_VOLUMES]:
        assert isinstance(source, Chosen)
        followed = source.indices[: source.length // 2]
        starts = [i for i in followed if i + 1 in followed]
        if not starts:
            continue
        places = np.linspace(0, len(starts) - 1, _TRIPLES).astype(int)
        for first in {starts[place] for place in places.tolist()}:
            slices = [source.volume.read(i) for i in range(first, first + 3)]
            measured.append(noise_correlation(slices))
    return float(np.mean(measured)) if measured else 0.0


def _fine(image: np.ndarray) -> np.ndarray:
    return image - ndimage.gaussian_filter(image, _FINE)


def _side(shape: tuple[int, ...]) -> int:
    """Of the blocks: smaller ones in small images."""
    return max(4, min(_BLOCK, min(shape) // 8))


def _medians(image: np.ndarray) -> np.ndarray:
    """The median of each block, those at the far edges mirrored to be whole."""
    side = _side(image.shape)
    image = np.pad(image, [(0, -length % side) for length in image.shape], mode="symmetric")
    rows, columns = (length // side for length in image.shape)
    return np.median(image.reshape(rows, side, columns, side), axis=(1, 3))
