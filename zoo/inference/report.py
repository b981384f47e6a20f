"""What became of a user's files."""

import dataclasses
from pathlib import Path

from zoo.imaging.volume import Problem, Volume


@dataclasses.dataclass
class Report:
    """What a run did.

    Attributes:
        done: what was written of: files, and DICOM series, of which each counts once.
        series: how many of them are DICOM series.
        slices: the slices of the inputs that were translated.
        outputs: the files written.
        volumes: what was translated, in the model's unit; of several inputs the first.
        skipped: the files that were not translated, and why.
        ignored: the files that are no images, such as notes and RT structure sets.
        warnings: what there is to say of images that were translated, each by its first file:
            that they are far from what the model was trained on, or became another kind of DICOM
            object.
        before: of `done`, what an earlier run with the same manifest did.
        others: files and series that are another part's.
    """

    done: int = 0
    series: int = 0
    slices: int = 0
    outputs: list[Path] = dataclasses.field(default_factory=list)
    volumes: list[Volume] = dataclasses.field(default_factory=list)
    skipped: list[Problem] = dataclasses.field(default_factory=list)
    ignored: list[Problem] = dataclasses.field(default_factory=list)
    warnings: list[Problem] = dataclasses.field(default_factory=list)
    before: int = 0
    others: int = 0
    _counted: set = dataclasses.field(default_factory=set, init=False, repr=False)

    def add(self, other: "Report", series: str | tuple[str, ...] = "") -> None:
        """What another report says besides.

        Args:
            other: a whole one, or a volume's.
            series: equal for volumes of one series, such as time points: it counts once.
        """
        for field in dataclasses.fields(self):
            if field.init:
                total = getattr(self, field.name) + getattr(other, field.name)
                setattr(self, field.name, total)
        if series and other.series:
            if series in self._counted:
                self.done -= other.done
                self.series -= other.series
                self.before -= other.before
            self._counted.add(series)
