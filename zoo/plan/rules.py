"""From what was measured to fields of a recipe, each with its reason."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from zoo.domain import Domain
from zoo.layers import least_patch
from zoo.plan import caution, files
from zoo.plan.files import Found
from zoo.plan.pixels import Pair, Side
from zoo.recipe import Recipe

ALIKE = 0.8  # correlation of source and target from which a correction is easier than an image
_NOISIER = 1.15  # times the target's noise that of a source is, where it is to be taken away
_HU_TOPS = (400.0, 1000.0, 1500.0, 2000.0, 3071.0)  # soft tissue, bone, dense bone, metal, 12 bits
_HU_LOW = -1024.0
_NEAR = 3.0  # slices apart by at most so many pixels tell of each other
_STACK = 8  # slices of a volume whose neighbours are worth having
_BOTTOM = 4  # pixels along a side that the innermost layers must see
_VARIED = 0.2  # of MR signal, at random
_PROJECTIONS = {"DX", "CR", "RF", "XA"}  # of which left and right differ


class Choice(NamedTuple):
    """The value of a field, and why it is so, in one sentence."""

    value: Any
    because: str


@dataclasses.dataclass(eq=False, kw_only=True)
class Measured:
    """All that a plan depends on.

    Attributes:
        found: the files.
        sides: what the training images of each side hold.
        pairs: how those of pairs go together.
        units: of each side.
        accelerated: whether a GPU or TPU trains.
    """

    found: Found
    sides: list[Side]
    pairs: list[Pair]
    units: list[str]
    accelerated: bool

    @property
    def modalities(self) -> list[str]:
        """Of each side, as the data set `folder` will say."""
        names = []
        for place, unit in enumerate(self.units):
            kinds = {volume.modality for volume in self.found.volumes(place)}
            kind = kinds.pop() if len(kinds) == 1 else "OT"
            names.append("CT" if (kind, unit) == ("OT", "HU") else kind)
        return names

    @property
    def same(self) -> bool:
        """Whether source and target mean the same: modality and unit."""
        alike = [len(set(names)) == 1 for names in (self.modalities, self.units)]
        return self.found.layout.kind != "single" and self.found.inputs == 1 and all(alike)

    @property
    def correlation(self) -> float:
        """Of the values of pairs, the median; 0 without pairs."""
        return float(np.median([pair.correlation for pair in self.pairs] or [0.0]))

    @property
    def noise(self) -> list[float]:
        """Standard deviation of the noise of each side, the median; 0 where nothing tells."""
        return [float(np.median(side.noise or [0.0])) for side in self.sides]

    @property
    def denoising(self) -> bool:
        """Whether pairs differ by their noise: values that agree, more noise in the source."""
        if not (self.same and self.correlation >= ALIKE and self.found.scale == 1):
            return False
        source, target = self.noise
        return source > _NOISIER * target

    @property
    def side(self) -> int:
        """The shorter side that nine of ten target images have, in pixels."""
        shapes = [min(v.shape) for v in self.found.volumes(len(self.units) - 1)]
        return int(np.percentile(shapes, 10, method="lower"))


def model(measured: Measured) -> Choice:
    """Which network suits the data."""
    layout, found = measured.found.layout, measured.found
    if layout.kind == "single":
        return Choice("dcgan", "there are single images, of which new ones can be made")
    if layout.kind == "unpaired":
        return Choice("cyclegan", "sources and targets are no pairs")
    if found.scale > 1:
        return Choice("srgan", f"targets are {found.scale} times as large as their sources")
    if caution.hopeless(found, measured.pairs):
        return Choice("cyclegan", "pairs are too far apart to compare their pixels")
    return Choice("encoder_decoder", "pairs can be compared pixel by pixel, which errs least")


def of_data(recipe: type[Recipe], measured: Measured, given: dict[str, Any]) -> dict[str, Choice]:
    """Units, windows, output and what else of a recipe follows from the data alone."""
    fields: dict[str, Choice] = {}
    found, hints = measured.found, recipe.hints()
    # Units that no file states, and are HU by their values.
    for place, name in enumerate(("source_unit", "target_unit")[: len(found.sides)]):
        silent = any(not files.stated(volume) for volume in found.volumes(place))
        if measured.units[place] == "HU" and silent:
            fields[name] = Choice("HU", "air lies near -1000 and soft tissue near 0")
    if found.scale > 1 and "scale" in hints:
        fields["scale"] = Choice(found.scale, "so much larger are the targets")
    # What the network sees as -1 and 1, and what it gives.
    if not given.get("classes"):
        fields |= _windows(measured, hints)
    if found.inputs > 1:  # each of which has a window of its own
        fields = {name: fields[name] for name in fields if not name.startswith("source_")}
    # Pixels and slices.
    fields["spacing"] = _spacing(measured)
    if found.layout.kind == "paired" and found.scale == 1:
        fields["slices"] = _slices(measured)
        if given.get("target") == "copy":
            fields["slices"] = Choice(1, "the two copies may change places")
    if "dimensions" in hints:
        fields["dimensions"] = Choice(2, "slices make more steps in the time than volumes do")
    few = found.patients().get("train", 0) < caution.ENOUGH
    if "gamma" in hints and few and measured.modalities[0] == "MR" and not measured.denoising:
        for name in ("gamma", "bias_field"):
            fields[name] = Choice(_VARIED, "few patients show few scanners' contrasts and coils")
    return fields | _augmentation(measured)


def of_network(
    recipe: type[Recipe], measured: Measured, base: Recipe, side: int
) -> dict[str, Choice]:
    """Crop, depth, loss and rate of a network, for images of `side` pixels at least."""
    fields: dict[str, Choice] = {}
    hints, denoising = recipe.hints(), measured.denoising
    # What a step sees.
    wanted = 64 if denoising else 96
    wanted = wanted * 2 if measured.accelerated else wanted
    crop = min(wanted, side)
    why = "noise is local, and smaller patches make more steps"
    if not denoising:
        why = "the patch must show which anatomy it is of"
    if crop < wanted:
        why = f"nine of ten images have {side} pixels or more along the shorter side"
    # How deep: the innermost layers see some pixels, and all together no more than the patch.
    if "levels" in hints:
        deepest = 3 if denoising else 5
        depths = range(2, deepest + 1)
        fit = [n for n in depths if crop // base.changed(levels=n).size_multiple >= _BOTTOM]
        levels = max(fit, default=2)
        reason = f"{crop // base.changed(levels=levels).size_multiple} pixels are left innermost"
        if denoising:
            reason += ", and noise needs no wider view"
        fields["levels"] = Choice(levels, reason)
        base = base.changed(levels=levels)
    multiple = max(base.size_multiple, measured.found.scale)
    crop = max(multiple, crop // multiple * multiple)
    layers = getattr(base, "discriminator_layers", None)
    least = 0 if layers is None else least_patch(layers)
    if crop < least:
        crop = -(-least // multiple) * multiple
        why = f"the discriminator needs {least} pixels, and images are mirrored up to them"
    fields["crop"] = Choice(crop, why)
    # What is learned from it, and how.
    if "rate_schedule" in hints and "loss" in hints:
        fields["rate_schedule"] = Choice("cosine", "a rate that falls all along uses every step")
    if "registration" in hints and caution.apart(measured.pairs):
        fields["registration"] = Choice(True, "many pairs are more than a pixel apart")
    if "loss" in hints and denoising:
        fields["loss"] = Choice("l2", "the mean of noisy targets is wanted")
    elif "loss" in hints:
        fields["loss"] = Choice("l1", "it bears what a source cannot tell, and small misalignment")
    return fields


def domains(
    measured: Measured, fields: dict[str, Any], slices: int, classes: int = 0
) -> tuple[Domain, Domain]:
    """What source and target are to the network that a plan describes."""
    found = []
    for place, name in enumerate(("source_window", "target_window")[: len(measured.units)]):
        volumes = measured.found.volumes(place)
        channels = volumes[0].channels
        channels *= measured.found.inputs if place == 0 else 1
        if place == 0 and slices > 1:
            channels = slices
        window = fields.get(name) or (0.0, 1.0)
        unit = measured.units[place] or "1"
        kind = measured.modalities[place]
        found.append(Domain(modality=kind, unit=unit, window=window, channels=channels))
    target = found[-1]
    if classes:
        window = (0.0, classes - 1.0)
        target = dataclasses.replace(target, modality="SEG", unit="class", window=window)
    return found[0], target


def _windows(measured: Measured, hints: dict[str, Any]) -> dict[str, Choice]:
    """Intensity windows, and whether the output is a correction to the input."""
    correction = measured.same and measured.correlation >= ALIKE
    names = ["source_window", "target_window"][: len(measured.units)]
    made = []
    for place in range(len(names)):
        whole = place == len(names) - 1 and not correction  # what lies outside cannot be reached
        made.append(_window(measured.sides[place], measured.units[place], whole))
    fields = dict(zip(names, made, strict=True))
    if correction:
        lows, highs = zip(*[choice.value for choice in made], strict=True)
        shared = (min(lows), max(highs))
        why = f"{made[0].because}, and one window for both sides lets the output be a correction"
        fields = {name: Choice(shared, why) for name in names}
    if "output" in hints and measured.found.layout.kind == "paired":
        number = f"{measured.correlation:.2f}"
        fields["output"] = Choice(
            "image", f"source and target differ too much (correlation {number}) or in their unit"
        )
        if correction:
            fields["output"] = Choice(
                "residual", f"source and target mean the same, and correlate by {number}"
            )
    return fields


def _window(side: Side, unit: str, whole: bool) -> Choice:
    """A window for the values of a side; with `whole` it holds the brightest too."""
    levels = side.percentiles()
    share = 99.95 if whole else 99.5
    top = levels[share]
    if unit == "HU":
        high = next((limit for limit in _HU_TOPS if limit >= top), _HU_TOPS[-1])
        return Choice(
            (_HU_LOW, high),
            f"air is -1000 HU, and {share} % of the body lie below {top:.0f} HU",
        )
    low = float(np.percentile(np.concatenate(side.whole), 0.5))
    low = 0.0 if 0 <= low < 0.1 * top else low
    window = (_three_digits(low), _three_digits(top))
    if not window[0] < window[1]:
        window = (low, low + 1.0)
    return Choice(window, f"{share} % of what is imaged lie below the upper end")


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")


def _spacing(measured: Measured) -> Choice:
    found = measured.found
    volumes = found.volumes(0) + found.volumes(len(measured.units) - 1)
    stated = files.spacings(volumes)
    if not len(stated):
        return Choice(0.0, "no file says how large its pixels are")
    low, middle, high = (float(f"{v:.3g}") for v in np.percentile(stated, [0, 50, 100]))
    if not files.varied(stated):
        return Choice(0.0, f"all pixels are of about {middle} mm, so none are interpolated")
    between = f"pixels are of {low} to {high} mm"
    if measured.denoising:
        return Choice(0.0, f"{between}, but interpolation takes noise away that is to be learned")
    if len(stated) < len(volumes) or found.scale > 1:
        return Choice(0.0, f"{between}, but not all files say so")
    return Choice(middle, f"{between}, and {middle} mm is the median")


def _slices(measured: Measured) -> Choice:
    volumes = measured.found.volumes(0)
    if measured.found.inputs > 1 or any(volume.channels > 1 for volume in volumes):
        return Choice(1, "a source has several channels already")
    if np.median([volume.length for volume in volumes]) < _STACK:
        return Choice(1, f"most volumes have fewer than {_STACK} slices")
    ratios = []
    for volume in volumes:
        if volume.slice_spacing and volume.spacing:
            ratios.append(volume.slice_spacing / max(volume.spacing))
    if len(ratios) < len(volumes) / 2:
        return Choice(1, "few files say how far their slices are apart")
    ratio = float(np.median(ratios))
    if ratio > _NEAR:
        return Choice(1, f"slices are {ratio:.1f} pixels apart, too far to tell of each other")
    return Choice(3, f"slices are {ratio:.1f} pixels apart, so neighbours tell of each other")


def _augmentation(measured: Measured) -> dict[str, Choice]:
    if set(measured.modalities) & _PROJECTIONS:
        return {"flip": Choice(False, "left and right differ in a projection")}
    fields = {"flip": Choice(True, "left and right are alike in most anatomy")}
    if measured.denoising:
        fields["turn"] = Choice(True, "noise is the same in turned images, which are exact copies")
    return fields
