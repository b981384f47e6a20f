"""The comparison of plans with the small recipe: its folders of files, and its table."""

import itertools

import numpy as np
import pytest

from tools import plan_table
from zoo.plan import files
from zoo.recipe import Recipe


def examples():
    """Two patients whose slices come mixed, as records do."""
    for slice_number, patient in itertools.product((1, 0), ("P1", "P0")):
        value = 100 * int(patient[1]) + slice_number
        image = np.full([8, 6, 1], value, np.float32)
        image[0, 0] = -1000
        yield {
            "patient": patient,
            "name": f"{patient}-{slice_number}",
            "source": image,
            "target": image + 50,
        }


@pytest.mark.parametrize("kind", ["dicom", "nifti"])
def test_patients_are_written_whole_with_their_slices_in_order(kind, tmp_path):
    save = {"dicom": plan_table.save_dicom, "nifti": plan_table.save_nifti}[kind]
    for patient, source, target in plan_table.patients(examples()):
        save(tmp_path / "trainA" / patient, source, 1.4, patient)
        save(tmp_path / "trainB" / patient, target, 1.4, patient)
    found = files.find(tmp_path, Recipe())
    items = found.layout.domains[0]
    volumes = [each for split in items.values() for item in split for each in item.volumes]
    assert found.layout.kind == "paired" and len(volumes) == 4
    assert {volume.unit for volume in volumes} == {"HU" if kind == "dicom" else "signal"}
    for volume in volumes:
        assert volume.length == 2 and volume.spacing == pytest.approx((1.4, 1.4))
        values = sorted(float(np.median(volume.read(index))) for index in range(2))
        assert values[1] - values[0] == 1  # both slices of one patient


def test_the_table_states_paired_differences():
    patients = {f"p{number}": [20.0 + number, 0.5, 9.0] for number in range(4)}
    better = {name: [row[0] + 2, row[1] + 0.1, row[2] - 3] for name, row in patients.items()}
    arms = {
        "small": {"cpu_seconds": 60.2, "steps": 100, "patients": patients},
        "plan": {"cpu_seconds": 61.0, "steps": 300, "patients": better},
    }
    text = plan_table.table({"T1 to T2": arms}, 1)
    row = "| T1 to T2 | PSNR, dB | 21.50 ± 1.29 | 23.50 ± 1.29 | +2.00 (+2.00 to +2.00) | 4 |"
    assert row in text
    assert "| MAE, signal | 9.0 ± 0.0 | 6.0 ± 0.0 | -3.0 (-3.0 to -3.0) | 4 |" in text
    assert "small: 60 CPU seconds, 100 steps; T1 to T2, plan: 61 CPU seconds, 300 steps" in text
