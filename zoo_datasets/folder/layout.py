"""What a folder, or a list, of images says: pairs, two domains or single images, and splits."""

from collections.abc import Iterator
from pathlib import Path

from zoo.imaging.lists import is_list
from zoo.imaging.volume import Volume
from zoo_datasets.folder import folders as of_splits
from zoo_datasets.folder import lists, nnunet, splits, studies
from zoo_datasets.folder.items import Item, Layout, find, single_items, some


def read(
    path: Path,
    allow_shared_patients: bool = False,
    dimensions: int = 2,
    source_series: str = "",
    target_series: str = "",
) -> Layout:
    """Find out what the user's folder or list holds.

    Args:
        path: a folder with trainA, trainB, ... or with train, test, ... or with images, or with
            imagesTr as nnU-Net has it; a file of images; or a .tsv list with the columns source
            (or source1, source2 ...) and target (or image) and possibly split and patient.
        allow_shared_patients: permit one patient in several splits.
        dimensions: 3 takes whole volumes, and leaves out series whose slices are not evenly spaced.
        source_series, target_series: patterns of SeriesDescription, by which the series of each
            DICOM study are picked. A list, and nnU-Net's folders, say it by themselves.

    Raises:
        FileNotFoundError: for files that are not there.
        ValueError: for files that do not pair, a patient in several splits, or no image at all.
    """
    if is_list(path):
        layout = lists.from_list(path, dimensions)
    elif (path / nnunet.TRAINING).is_dir():
        layout = nnunet.read(path, dimensions)
    elif source_series:
        layout = studies.read(path, dimensions, source_series, target_series)
    elif folders := of_splits.split_folders(path):
        is_paired = "" not in {letter for _, letter in folders}
        read_folders = of_splits.two_domains if is_paired else of_splits.splits
        layout = read_folders(folders, dimensions)
        others = of_splits.others(path, folders)
        if others:
            layout.notes.append(f"warning: in no folder of a split, and left out: {some(others)}")
    else:
        found = find(path, dimensions)
        layout = Layout("single", [{"": single_items(found.volumes, "")}], found.problems)
    for domain in layout.domains:
        if not any(domain.values()):
            lost = [p for p in layout.problems if not p.harmless] or layout.problems
            reasons = "; ".join(f"{p.path.name}: {p.reason}" for p in lost[:3]) or "no file"
            raise ValueError(f"input: no readable image is left. Received: {path} ({reasons})")
    splits.join_links(layout.domains)
    splits.carve(layout.domains)
    if not all(domain.get("train") for domain in layout.domains):
        raise ValueError(f"input: no readable image is left for training. Received: {path}")
    splits.check_patients(layout, allow_shared_patients)
    return layout


def present(found: Layout) -> None:
    """Presents all volumes in the plane that those for training were acquired in, in place.

    Axial where they were acquired in several: slices of one plane are what a network learns from.
    A pair of which one file does not say how it lies stays as both are stored.
    """
    training = [item for domain in found.domains for item in domain["train"]]
    planes = {part.acquired for item in training for part in _parts(item)} - {None}
    if not planes:
        return
    found.plane = planes.pop() if len(planes) == 1 else "axial"
    if planes:
        found.notes.append(
            "volumes were acquired in several planes; where files state an affine "
            "they are presented as axial slices"
        )
    kept = 0
    for domain in found.domains:
        for items in domain.values():
            for number, item in enumerate(items):
                if any(v.kind != "dicom" and v.affine is None for v in _parts(item)):
                    kept += 1
                    continue
                volumes = tuple(volume.presented(found.plane) for volume in item.volumes)
                items[number] = item._replace(volumes=volumes)
    if kept:
        found.notes.append(
            f"{kept} images or pairs are taken as they are stored: a file does not say how it lies"
        )


def _parts(item: Item) -> Iterator[Volume]:
    """All images of an item."""
    for volume in item.volumes:
        yield from volume.parts
