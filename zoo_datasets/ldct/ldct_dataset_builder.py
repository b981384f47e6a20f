"""Low-dose to normal-dose CT: simulated phantoms, and two collections of TCIA."""

import functools

import numpy as np
import tensorflow_datasets as tfds

from zoo_datasets import features, own_scans
from zoo_datasets.cases import SourceConfig
from zoo_datasets.ldct import cptac_sar, phantom, scanned, tcia, varied
from zoo_datasets.phantoms import ct_scan
from zoo_datasets.simulated import SimulatedBuilder, SimulatedConfig

_TCIA = """\
LDCT-and-Projection-data, Mayo Clinic: https://doi.org/10.7937/9NPB-2637 (CC BY 4.0; the images
are tens of GB, the projections, which are not needed, close to 1 TB).
1. Open https://www.cancerimagingarchive.net/collection/ldct-and-projection-data/ and accept the
   collection's data usage policy.
2. Download the "Images" manifest (.tcia) and open it with the NBIA Data Retriever, keeping its
   "Descriptive Directory Name" layout. Or `prepare --fetch` downloads the 100 patients whose two
   doses are at the Imaging Data Commons.
3. Put or link the patients' folders into the manual directory, so that it holds
   <patient>/<study>/<n>-Full Dose Images-<n>/*.dcm and
   <patient>/<study>/<n>-Low Dose Images-<n>/*.dcm, for example L067/…/1-001.dcm.
"""
_CPTAC_SAR = """\
CPTAC-SAR, National Cancer Institute: https://doi.org/10.7937/TCIA.2019.9BT23R95 (CC BY 4.0; the
CT of 18 patients is 13 GB).
1. Open https://www.cancerimagingarchive.net/collection/cptac-sar/ and download the manifest of
   the radiology images; the pathology slides are not needed. Open it with the NBIA Data
   Retriever. Or `prepare --fetch` downloads the CT from the Imaging Data Commons.
2. Put or link the patients' folders into the manual directory, so that it holds
   <patient>/<study>/<series>/*.dcm, for example C3L-00029/…/1-001.dcm.
3. Building simulates about one slice a second on each of up to four cores: 22 000 slices in hours.
"""
_SCANS = """\
Your own CT, of whatever licence permits it, such as that of https://www.cancerimagingarchive.net.
Put or link a folder for each patient into the manual directory, with axial DICOM series or NIfTI
files in HU. Patients in a folder `validation` beside a folder `train` choose the weights; without
such folders a hash of each folder's name decides.
"""
_SUBJECTS = (220, 6, 2)  # simulated, of each split


class Builder(SimulatedBuilder):
    """Pairs `source` (quarter dose) and `target` (full dose), HU `[H, W, 1]` int16.

    Real pairs have their `spacing` (row, column) in mm, float32 `[2]`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        SimulatedConfig(
            name="phantom",
            description="Simulated chest and abdomen, 256 x 256 at 1.4 mm; no download.",
            read=phantom.read,
            protocol=ct_scan.Protocol(),
            patients=(44, 6, 10),
        ),
        SimulatedConfig(
            name="phantom_small",
            description="Fewer patients, others than those of `phantom`; built in half a minute.",
            read=phantom.read,
            protocol=ct_scan.Protocol(),
            patients=(10, 2, 3),
            seed=1,
        ),
        SimulatedConfig(
            name="phantom_tiny",
            description="The same at 64 x 64 and 5.6 mm, for trying things out.",
            # Coarser pixels average more photons: fewer of them keep the noise in HU.
            read=phantom.read,
            protocol=ct_scan.Protocol(size=64, views=64, photons=1.2e4, electronic=5.0),
            patients=(6, 2, 2),
            seed=2,
        ),
        SimulatedConfig(
            name="varied",
            description="Patches of head, chest, abdomen and random shapes at 0.3 to 1 mm, "
            "9 to 140 HU of added noise, many kernels: to train on. Built in ten minutes.",
            read=varied.read,
            protocol=varied.Protocol(),
            patients=(220, 5, 8),
            seed=10,
        ),
        SimulatedConfig(
            name="varied_doses",
            description="The same of other subjects, for most of which the added noise is 0.7 to 4 "
            "times the full dose's, that of two thirds to a seventeenth of the dose.",
            read=varied.read,
            protocol=varied.Protocol(head=(0.38, 1.0), ratio=(0.7, 4.0)),
            patients=(240, 2, 2),
            seed=12,
        ),
        SimulatedConfig(
            name="varied_scanners",
            description="Heads, chests, abdomens and random shapes of little noise of their own "
            "with 8 to 200 HU more, of parallel and fan beams and many detectors, reconstructions "
            "and kernels: to train on. Built in half an hour.",
            read=scanned.read,
            protocol=scanned.Protocol(),
            patients=_SUBJECTS,
            seed=20,
        ),
        SimulatedConfig(
            name="varied_scans",
            description="The same beside your own CT with such noise, from the manual directory.",
            find=functools.partial(own_scans.find, counts=_SUBJECTS),
            read=scanned.read,
            manual=_SCANS,
            licence="that of your scans",
            protocol=scanned.Protocol(),
            patients=_SUBJECTS,
            seed=20,
        ),
        SimulatedConfig(
            name="varied_tiny",
            description="The same at 64 x 64, for trying things out.",
            read=varied.read,
            protocol=varied.Protocol(
                size=64,
                slices=2,
                tile=32,
                views=64,
                body=(4.5, 7.0),
                head=(3.0, 4.0),
                shapes=(2.4, 5.0),
            ),
            patients=(6, 2, 2),
            seed=11,
        ),
        SourceConfig(
            name="tcia",
            description="LDCT-and-Projection-data (Mayo Clinic), from the manual directory.",
            version="2.0.0",
            release_notes={"2.0.0": "Split by a hash of the patient; spacing."},
            find=tcia.find,
            read=tcia.read,
            manual=_TCIA,
            licence="CC BY 4.0",
            idc="ldct_and_projection_data",
        ),
        SourceConfig(
            name="cptac_sar",
            description="CT of CPTAC-SAR with simulated quarter dose, from the manual directory.",
            find=cptac_sar.find,
            read=cptac_sar.read,
            manual=_CPTAC_SAR,
            # Clinical series of many hospitals: some lack slices.
            bad_limit=0.2,
            licence="CC BY 4.0",
            idc="cptac_sar",
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        size, spacing = None, None
        if isinstance(config, SimulatedConfig):
            protocol = config.protocol
            if isinstance(protocol, varied.Protocol):
                size = protocol.tile
            else:
                size, spacing = protocol.size, (protocol.spacing, protocol.spacing)
        ct = features.Image((size, size, 1), np.int16, "CT", "HU", features.CT_WINDOW, spacing)
        return features.info(
            self,
            {"source": ct, "target": ct},
            spacing=not spacing,  # else all pixels have the size that the metadata state
            homepage="https://doi.org/10.7937/9NPB-2637",
        )
