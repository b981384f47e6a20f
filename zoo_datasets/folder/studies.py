"""DICOM studies, of which patterns of SeriesDescription pick the sources and the target."""

from pathlib import Path

from zoo.imaging import inputs
from zoo.imaging.several import together
from zoo.imaging.volume import Volume
from zoo_datasets.folder import folders as of_splits
from zoo_datasets.folder.items import Item, Layout, find, paired_items


def read(path: Path, dimensions: int, source_series: str, target_series: str) -> Layout:
    """Pairs of the series that the patterns pick in each study; others are left out with a reason.

    Args:
        path: folder of studies, or of train, test, ... with studies.
        dimensions: 3 takes whole volumes.
        source_series, target_series: NAME=PATTERN, of sources separated by commas.

    Raises:
        ValueError: for patterns that are none, or folders of pairs.
    """
    # What is looked for.
    sources = inputs.patterns("source_series", source_series)
    targets = inputs.patterns("target_series", target_series)
    target = next(iter(targets)) or "target"
    if len(targets) != 1 or target in sources:
        raise ValueError(
            f"target_series: expected one pattern, under a name that no source has. "
            f"Received: {target_series} beside {source_series}"
        )
    wanted = sources | {target: next(iter(targets.values()))}
    # The studies of each split.
    folders = of_splits.split_folders(path)
    if folders and {letter for _, letter in folders} != {""}:
        raise ValueError(
            "source_series: expected a folder of studies, or train, test ... of them. "
            f"Received: {', '.join(folder.name for folder in folders.values())}"
        )
    places = {split: folder for (split, _), folder in folders.items()} or {"": path}
    domain: dict[str, list[Item]] = {}
    problems, unused = [], 0
    for split, place in places.items():
        found = find(place, dimensions)
        picked, lost = inputs.studies(found.volumes, wanted)
        problems += found.problems + lost
        pairs: list[tuple[Volume, Volume]] = []
        for series in picked.values():
            *of_source, of_target = series.values()
            pairs.append((together(of_source, list(sources)), of_target))
        unused += len(found.volumes) - len(lost) - len(wanted) * len(pairs)
        domain[split] = paired_items(pairs, split)
    # What the user should know.
    notes = [f"{unused} series of these studies match no pattern"] if unused > 0 else []
    names = tuple(sources) if len(sources) > 1 else ()
    return Layout("paired", [domain], problems, notes=notes, inputs=names)
