"""mammo: single mammograms, simulated (`phantom`, the default) or real (`cbis_ddsm`)."""

import collections
import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from zoo.imaging.windows import Domain
from zoo_datasets.mammo import cbis_ddsm, phantom

# Below this many pixels a split is done before worker processes have started.
_POOL_PIXELS = 2_000_000


@dataclasses.dataclass(eq=False)
class MammoConfig(tfds.core.BuilderConfig):
    """A source of mammograms.

    Attributes:
        size: height and width of the images, in pixels.
        patients: simulated patients of the train, validation and test split, four images each;
            None reads CBIS-DDSM.
        seed: seed of the simulation.
    """

    size: int = 256
    patients: tuple[int, int, int] | None = None
    seed: int = 2024


class Builder(tfds.core.GeneratorBasedBuilder):
    """Mammograms {"image": uint16 [H, H, 1] signal, "patient", "name", "laterality", "view"}."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS = [
        MammoConfig(
            name="phantom",
            description="Simulated mammograms, 256 x 256, 0.8 mm a pixel.",
            size=256,
            patients=(128, 16, 16),
        ),
        MammoConfig(
            name="phantom_small",
            description="Simulated mammograms of other patients, 64 x 64, 3.2 mm a pixel.",
            size=64,
            patients=(128, 8, 8),
            seed=2025,
        ),
        MammoConfig(
            name="phantom_tiny",
            description="A few simulated mammograms, 64 x 64, 3.2 mm a pixel, for tests.",
            size=64,
            patients=(4, 1, 1),
        ),
        MammoConfig(
            name="phantom_1024",
            description="Simulated mammograms, 1024 x 1024, 0.2 mm a pixel.",
            size=1024,
            patients=(24, 4, 4),
        ),
        MammoConfig(
            name="cbis_ddsm",
            description="CBIS-DDSM (TCIA), digitised film, fitted into 1024 x 1024.",
            size=1024,
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    For the config `cbis_ddsm` only. From
    https://www.cancerimagingarchive.net/collection/cbis-ddsm/ (CC BY 3.0, about 164 GB):
    1. Download the four tables into `manual_dir`: mass_case_description_train_set.csv,
       mass_case_description_test_set.csv, calc_case_description_train_set.csv,
       calc_case_description_test_set.csv.
    2. Download the images (the four "Full Mammogram Images" downloads are enough) with the NBIA
       Data Retriever, "Descriptive Directory Name" or "Classic Directory Name", and move its
       folder CBIS-DDSM (or the folder manifest-... around it) into `manual_dir`, so that there is
       manual_dir/CBIS-DDSM/Mass-Training_P_00001_LEFT_CC/<study>/<series>/1-1.dcm
    """

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        simulated = self.builder_config.patients is not None
        domain = Domain(
            modality="MG",
            unit="signal",
            window=(0, phantom.MAXIMUM if simulated else 65535),
            # CBIS-DDSM files carry no pixel spacing.
            spacing=(phantom.FIELD / size, phantom.FIELD / size) if simulated else None,
        )
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(
                        shape=(size, size, 1),
                        dtype=np.uint16,
                        encoding=tfds.features.Encoding.ZLIB,
                    ),
                    "patient": tfds.features.Text(),
                    "name": tfds.features.Text(),
                    "laterality": tfds.features.Text(),
                    "view": tfds.features.Text(),
                }
            ),
            homepage="https://www.cancerimagingarchive.net/collection/cbis-ddsm/",
            metadata=tfds.core.MetadataDict({"kind": "single", "image": domain.to_dict()}),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        config = self.builder_config
        if config.patients is None:
            splits = cbis_ddsm.split_cases(dl_manager.manual_dir)
            read = functools.partial(cbis_ddsm.example, size=config.size)
        else:
            ends = np.cumsum([0, *config.patients]) * len(phantom.VIEWS)
            splits = {
                split: range(ends[k], ends[k + 1])
                for k, split in enumerate(("train", "validation", "test"))
            }
            read = functools.partial(phantom.example, seed=config.seed, size=config.size)
        return {split: self._generate_examples(read, items) for split, items in splits.items()}

    def _generate_examples(self, read, items) -> Iterator[tuple[str, dict[str, Any]]]:
        if len(items) * self.builder_config.size**2 < _POOL_PIXELS:
            examples = map(read, items)
        else:
            examples = map_in_order(read, items)
        for example in examples:
            yield example["name"], example


def map_in_order(function: Callable, items: Iterable, workers: int | None = None) -> Iterator:
    """`map(function, items)` over worker processes; few results wait at any time.

    New processes ("spawn") rather than forks: TensorFlow's threads do not survive a fork.
    """
    workers = workers or min(os.cpu_count() or 1, 8)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: collections.deque = collections.deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
