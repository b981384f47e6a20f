"""zoo.imaging.dicom.pet: standardised uptake values from headers."""

import numpy as np
import pydicom
import pydicom.uid
import pytest

from dicom_files import bundled, dciodvfy, item, single
from stand_in import Model, translate
from zoo.domain import Domain
from zoo.imaging.dicom import pet
from zoo.imaging.files import open_volume

HALF_LIFE = 6586.2  # s, of fluorine-18


def scan(tmp_path, name="pet.dcm", **changes):
    """A PET slice of 0, 2, 4, ... Bq/ml; 370 MBq at 11:00 for 70 kg, scanned at 12:00."""
    drug = item(
        RadionuclideTotalDose=370e6,
        RadionuclideHalfLife=HALF_LIFE,
        RadiopharmaceuticalStartTime="110000",
    )
    drug.update({k: v for k, v in changes.items() if k.startswith("Radi") and v is not None})
    for keyword in [k for k, v in changes.items() if k.startswith("Radi") and v is None]:
        del drug[keyword]
    fields = {
        "SOPClassUID": pydicom.uid.PositronEmissionTomographyImageStorage,
        "Modality": "PT", "Units": "BQML", "PatientWeight": 70, "DecayCorrection": "START",
        "CorrectedImage": ["ATTN", "DECY"], "RescaleSlope": 2, "RescaleIntercept": 0,
        "SeriesDate": "20200102", "SeriesTime": "120000", "AcquisitionDate": "20200102",
        "AcquisitionTime": "120500", "RadiopharmaceuticalInformationSequence": [drug],
        "RescaleType": None, "PixelPaddingValue": None, "WindowCenter": 1000, "WindowWidth": 2000,
    }  # fmt: skip
    fields |= {k: v for k, v in changes.items() if not k.startswith("Radi")}
    present = pydicom.dcmread(bundled("CT_small"))
    fields = {k: v for k, v in fields.items() if v is not None or k in present}
    pixels = np.arange(64, dtype=np.int16).reshape(8, 8)
    return single(tmp_path, name, pixels=pixels, **fields)


def decayed(seconds):
    return 70_000 / (370e6 * 0.5 ** (seconds / HALF_LIFE))


@pytest.mark.parametrize(
    "changes, factor",
    [
        ({}, decayed(3600)),
        ({"DecayCorrection": "ADMIN"}, decayed(0)),
        ({"DecayCorrection": "ADMIN", "RadionuclideHalfLife": None}, decayed(0)),
        ({"SeriesTime": "120000.500000"}, decayed(3600.5)),
        ({"RadiopharmaceuticalStartTime": "101530.25"}, decayed(6269.75)),
        ({"RadiopharmaceuticalStartDateTime": "20200102103000.00"}, decayed(5400)),
        # in the time zone of the scan, in another, and where that of the scan is not known
        ({"TimezoneOffsetFromUTC": "+0100",
          "RadiopharmaceuticalStartDateTime": "20200102103000+0100"}, decayed(5400)),
        ({"TimezoneOffsetFromUTC": "+0100",
          "RadiopharmaceuticalStartDateTime": "20200102040000.0-0530"}, decayed(5400)),
        ({"TimezoneOffsetFromUTC": None,
          "RadiopharmaceuticalStartDateTime": "20200102103000+0900"}, decayed(5400)),
        # over midnight, with and without a date
        ({"SeriesTime": "001000", "AcquisitionTime": "001200",
          "RadiopharmaceuticalStartTime": "233000"}, decayed(2400)),
        ({"SeriesTime": "001000", "AcquisitionTime": "001200",
          "RadiopharmaceuticalStartDateTime": "20200101233000"}, decayed(2400)),
        # a series made after the scan
        ({"SeriesTime": "150000"}, decayed(3900)),
        ({"SeriesTime": "150000", "FrameReferenceTime": 300_000, "ActualFrameDuration": 1000},
         decayed(3600.5)),
        ({"SeriesTime": None, "SeriesDate": None}, decayed(3900)),
        ({"Units": "GML"}, 1.0),
        ({"PatientWeight": 35}, decayed(3600) / 2),
    ],
)  # fmt: skip
def test_pet_becomes_suv_by_its_header(tmp_path, changes, factor):
    volume = open_volume(scan(tmp_path, **changes))
    suv = volume.in_unit("SUV")
    assert suv.unit == "SUV"
    np.testing.assert_allclose(suv.read(0), volume.read(0) * factor, rtol=1e-5)
    assert volume.unit == ("SUV" if changes.get("Units") == "GML" else "Bq/ml")


def test_vendors_own_fields(tmp_path):
    dataset = pydicom.dcmread(scan(tmp_path, SeriesTime="150000"))
    dataset.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20200102113000")
    assert pet.suv_factors([dataset]) == pytest.approx([decayed(1800)])
    dataset = pydicom.dcmread(scan(tmp_path, Units="CNTS"))
    with pytest.raises(ValueError, match=r"\(7053,1000\)"):
        pet.suv_factors([dataset])
    dataset.add_new((0x7053, 0x1009), "DS", "3.5")
    assert pet.suv_factors([dataset]) == pytest.approx([3.5 * decayed(3600)])
    dataset.add_new((0x7053, 0x1000), "UN", b"0.0 ")  # as files without VRs give it
    assert pet.suv_factors([dataset]) == pytest.approx([3.5 * decayed(3600)])
    dataset.add_new((0x7053, 0x1000), "DS", "0.25")
    assert pet.suv_factors([dataset]) == [0.25]


@pytest.mark.parametrize(
    "field, value",
    [
        ("PatientWeight", None),
        ("PatientWeight", 0),
        ("PatientWeight", 70_000),
        ("RadionuclideTotalDose", 370),
        ("RadionuclideTotalDose", None),
        ("RadionuclideHalfLife", None),
        ("RadiopharmaceuticalStartTime", None),
        pytest.param(
            "RadiopharmaceuticalStartTime",
            "noon",
            marks=pytest.mark.filterwarnings("ignore:Invalid value"),
        ),
        ("DecayCorrection", "NONE"),
        ("DecayCorrection", None),
        ("CorrectedImage", ["DECY"]),
        ("CorrectedImage", ["ATTN"]),
        ("Units", None),
        ("Units", "PROPCPS"),
    ],
)
def test_pet_without_a_field_is_refused_by_its_name(tmp_path, field, value):
    scan(tmp_path, "pet.dcm", **{field: value})
    model = Model(source=Domain(modality="PT", unit="SUV", window=(0, 15)))
    report = translate(model, tmp_path, tmp_path / "out")
    assert report.done == 0
    (problem,) = report.skipped
    assert field in problem.reason
    assert "\n" not in problem.reason


def test_pet_of_another_body_size_is_not_suv_by_weight(tmp_path):
    volume = open_volume(scan(tmp_path, Units="GML", SUVType="LBM"))
    assert volume.unit == "SUV (LBM)"
    with pytest.raises(ValueError, match="SUVType"):
        volume.in_unit("SUV")


def test_translated_pet_says_that_it_is_suv(tmp_path):
    path = scan(tmp_path)
    domain = Domain(modality="PT", unit="SUV", window=(0, 15))
    model = Model(plus=1.5, source=domain, target=domain)
    (output,) = translate(model, path, tmp_path / "out").outputs
    header = pydicom.dcmread(output)
    assert header.Units == "GML"
    assert (header.WindowCenter, header.WindowWidth) == (7.5, 15)
    expected = np.arange(64).reshape(8, 8) * 2 * decayed(3600) + 1.5
    values = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
    assert np.abs(values - expected).max() <= float(header.RescaleSlope) * 0.51
    again = open_volume(output)
    assert again.unit == "SUV"
    np.testing.assert_allclose(again.read(0), values, rtol=1e-5)
    assert dciodvfy(output) - dciodvfy(path) == set()
