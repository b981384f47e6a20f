"""zoo_datasets.publishers.idc: what is selected, downloaded once, moved when whole.

No network is used.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import dummy_data
from zoo_datasets.ldct import cptac_sar, tcia
from zoo_datasets.publishers import idc


@pytest.fixture(scope="module")
def selected():
    return {name: idc.select(name) for name in idc.SELECTIONS}


def patients(series):
    return {Path(one.folder).parts[1] for one in series}


def test_selections_of_the_index(selected):
    """The counts may grow with the index; what was there stays."""
    assert len(patients(selected["ldct_and_projection_data"])) >= 100
    assert len(selected["ldct_and_projection_data"]) >= 200
    assert len(selected["cptac_sar"]) >= 97
    assert len(patients(selected["lidc_idri"])) >= 1010
    # As published: 3103 films; 3568 findings, of which 104 have crop and mask in two series.
    assert len(selected["cbis_ddsm"]) == len(patients(selected["cbis_ddsm"])) == 3103
    assert len(patients(selected["cbis_ddsm_lesions"])) == 3568
    test = [name for name in patients(selected["cbis_ddsm"]) if name.startswith("Calc-Test_P_")]
    assert len(test) == 284
    for name, series in selected.items():
        folders = [one.folder for one in series]
        assert folders == sorted(folders) and len(set(folders)) == len(folders), name
        assert all(one.files > 0 and one.megabytes > 0 for one in series)
        assert len({one.uid for one in series}) == len(series)


def test_rows_behind_a_selection(selected):
    rows = {row["SeriesInstanceUID"]: row for row in idc.read_index("ldct_and_projection_data")}
    kinds = [rows[one.uid]["SeriesDescription"] for one in selected["ldct_and_projection_data"]]
    assert set(kinds) == {"Full Dose Images", "Low Dose Images"}
    assert kinds.count("Full Dose Images") == kinds.count("Low Dose Images")
    for name in ("cptac_sar", "lidc_idri"):
        rows = {row["SeriesInstanceUID"]: row for row in idc.read_index(name)}
        assert {rows[one.uid]["Modality"] for one in selected[name]} == {"CT"}
        assert {rows[one.uid]["license_short_name"][:5] for one in selected[name]} == {"CC BY"}


def row(patient, description, count=5, **changes):
    return {
        "collection_id": "ldct_and_projection_data",
        "PatientID": patient,
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": f"1.2.3.{patient}.{description}",
        "Modality": "CT",
        "SeriesDescription": description,
        "instanceCount": count,
        "series_size_MB": 1.5,
    } | changes


INDEX = [
    row("L1", "Full Dose Images"),
    row("L1", "Low Dose Images"),
    row("L1", "Full Dose Projections", 9000),
    row("L2", "Full Dose Images"),
    row("L3", "Low Dose Images", collection_id="another"),
]


def test_patients_without_a_pair_are_left_out():
    found = idc.select("ldct_and_projection_data", INDEX)
    assert [one.uid for one in found] == ["1.2.3.L1.Full Dose Images", "1.2.3.L1.Low Dose Images"]
    with pytest.raises(ValueError, match="expected series of cptac_sar. Received: none"):
        idc.select("cptac_sar", INDEX)
    with pytest.raises(ValueError, match="idc: expected one of .*Received: nlst"):
        idc.select("nlst", INDEX)
    outside = [{**r, "PatientID": "../../L1"} for r in INDEX]
    with pytest.raises(ValueError, match="below the manual directory"):
        idc.select("ldct_and_projection_data", outside)


def download(uid, folder):
    """A series as the Commons store it: files named by identifiers of theirs."""
    patient = "C3L-00029" if uid.startswith("9") else "L1"
    values = dummy_data.head(1, (9 if uid.startswith("9") else 5, 8, 8))
    dummy_data.write_series(folder, values, patient=patient, uid=f"1.9.{abs(hash(uid))}")
    for i, path in enumerate(sorted(folder.glob("*.dcm"))):
        path.rename(folder / f"{i}0a-uuid.dcm")


def test_what_is_fetched_is_what_find_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(idc, "read_index", lambda collection: INDEX)
    said = []
    idc.fetch("ldct_and_projection_data", tmp_path, download, said.append)
    assert "2 of 2 series, 0.0 GB" in said[0]
    (case,) = [c for found in tcia.find(tmp_path).values() for c in found]
    assert case.patient == "L1" and len(list(tcia.read(case, None))) == 5
    ct = [row("C3L-00029", "Chest", 9, collection_id="cptac_sar", SeriesInstanceUID="9.1")]
    monkeypatch.setattr(idc, "read_index", lambda collection: ct)
    idc.fetch("cptac_sar", tmp_path / "sar", download, said.append)
    (case,) = [c for found in cptac_sar.find(tmp_path / "sar").values() for c in found]
    assert case.patient == "C3L-00029" and len(case.files["ct"]) == 9


def test_folders_are_those_that_lidc_and_cbis_ddsm_are_read_from(selected, tmp_path):
    from zoo_datasets.publishers import cbis_ddsm, lidc

    one = selected["lidc_idri"][0]
    dummy_data.write_series(tmp_path / one.folder, dummy_data.head(0))
    (case,) = [c for found in lidc.find_series(tmp_path).values() for c in found]
    assert case.patient == Path(one.folder).parts[1]
    for name, finding in (("cbis_ddsm", False), ("cbis_ddsm_lesions", True)):
        for one in selected[name]:
            match = cbis_ddsm._FOLDER.fullmatch(Path(one.folder).parts[1])
            assert match and bool(match[5]) == finding, one.folder


def test_every_config_names_a_selection_that_there_is():
    import tensorflow_datasets as tfds

    import zoo_datasets  # noqa: F401
    from zoo import registry

    named = {
        config.idc
        for name, fields in registry.index()["datasets"].items()
        if fields["module"].startswith("zoo_datasets.")
        for config in tfds.builder_cls(name).BUILDER_CONFIGS
        if getattr(config, "idc", "")
    }
    assert named == set(idc.SELECTIONS)


def test_fetch_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(idc, "read_index", lambda collection: INDEX)
    uids = []

    def stops(uid, folder):
        uids.append(uid)
        download(uid, folder)
        if len(uids) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        idc.fetch("ldct_and_projection_data", tmp_path, stops, str)
    uids.append("again")
    said = []
    assert idc.fetch("ldct_and_projection_data", tmp_path, stops, said.append) == 1
    assert uids == [INDEX[0]["SeriesInstanceUID"], *[INDEX[1]["SeriesInstanceUID"]] * 1, "again",
                    INDEX[1]["SeriesInstanceUID"]]  # fmt: skip
    assert "1 of 2 series" in said[0]
    assert not (tmp_path / ".incomplete").exists()
    assert idc.fetch("ldct_and_projection_data", tmp_path, stops, str) == 0


def test_a_series_that_is_not_whole_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(idc, "read_index", lambda collection: INDEX)
    with pytest.raises(OSError, match="expected 5 files of series .* Received: 0"):
        idc.fetch("ldct_and_projection_data", tmp_path, lambda uid, folder: None, str)
    assert not list(tmp_path.rglob("*Dose*"))


def test_without_a_network_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(idc, "read_index", lambda collection: INDEX)
    monkeypatch.setattr(idc, "HOST", "nowhere.invalid")
    with pytest.raises(OSError, match="expected a network with access to nowhere.invalid"):
        idc.fetch("ldct_and_projection_data", tmp_path, say=str)


def test_without_the_package_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "idc_index_data", None)
    with pytest.raises(ValueError, match=r"pip install 'zoo-medical\[idc\]'"):
        idc.select("cptac_sar")


def test_importing_fetch_needs_no_package():
    code = (
        "import sys, zoo_datasets.publishers.idc; "
        "assert not {'idc_index', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
