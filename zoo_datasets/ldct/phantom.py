"""Scans of digital patients at normal and quarter dose: the examples of `ldct/phantom`.

The anatomy is painted on a grid twice as fine as the reconstruction, projected from that grid with
an aperture as wide as a detector, and measured twice with independent noise: once with all the
photons (target) and once with a quarter (source). Importable without TensorFlow.
"""

from zoo_datasets.cases import Case, Examples
from zoo_datasets.phantoms import ct_scan
from zoo_datasets.simulated import SimulatedConfig, slices


def read(case: Case, config: SimulatedConfig[ct_scan.Protocol]) -> Examples:
    """The slices of a simulated patient."""
    scanner = ct_scan.scanner(config.protocol)
    yield from slices(case, scanner.patient(config.seed, case.facts["number"]))
