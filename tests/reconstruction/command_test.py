"""`reconstruct` as users run it: data sets, and files of their own of every kind."""

import hashlib
import json
import re

import h5py
import numpy as np
import pydicom
import pytest
import yaml

from zoo import command_line
from zoo.imaging.files import open_volume
from zoo.physics import mri, radon, tomography
from zoo.reconstruction import measured
from zoo.reconstruction.record import Record
from zoo_datasets.mri_recon.mri_recon_dataset_builder import Builder


def disc(size):
    axis = np.linspace(-1, 1, size)
    return (np.hypot(axis, axis[:, None]) < 0.7).astype(np.float32)


def run(*flags):
    return command_line.main(["zoo", "reconstruct", *map(str, flags)])


@pytest.mark.parametrize("dataset, quick", [("ct_recon", "fbp"), ("mri_recon", "zero_filled")])
def test_a_data_set(dataset, quick, data_dir, tmp_path, capsys):
    base = [f"--dataset={dataset}/phantom_tiny", f"--data_dir={data_dir}", "--limit=1"]
    lam = 1.0 if dataset == "ct_recon" else 0.005
    assert run(*base, f"--output={tmp_path / 'quick'}", f"--method={quick}") == 0
    assert run(*base, f"--output={tmp_path / 'tv'}", f"--lam={lam}") == 0
    assert "PSNR" in capsys.readouterr().out
    found = {}
    for name in ("quick", "tv"):
        (found[name],) = json.loads((tmp_path / name / "records.json").read_text())["images"]
        image = np.load(tmp_path / name / f"{found[name]['name']}.npy")
        assert image.dtype == np.float32 and image.ndim == 2
    assert found["tv"]["psnr"] > found["quick"]["psnr"] + 0.5
    # What no measurement tells is of the prior, and the quick image has nothing beyond itself.
    assert found["quick"]["null_space"] is None and found["quick"]["added"] < 1e-6
    assert 0 < found["tv"]["null_space"] < 1 and found["tv"]["misfit_noise"] is None
    assert found["tv"]["gap"] <= 1e-4 and found["tv"]["lam"] == lam
    # DICOM is of CT alone.
    flags = [f"--output={tmp_path / 'dicom'}", f"--method={quick}", "--dicom"]
    assert run(*base, *flags) == (0 if dataset == "ct_recon" else 2)
    assert ("dicom: expected CT in HU" in capsys.readouterr().err) == (dataset == "mri_recon")
    # Results are not replaced unasked.
    assert run(*base, f"--output={tmp_path / 'tv'}", "--method=fbp") == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("dataset", ["ct_recon", "mri_recon"])
def test_a_data_set_knows_its_noise(dataset, data_dir, tmp_path, capsys):
    base = [f"--dataset={dataset}/phantom_tiny", f"--data_dir={data_dir}", "--limit=1"]
    flags = ["--lam=sure", "--sigma=data", "--iterations=100", f"--output={tmp_path}"]
    assert run(*base, *flags) in (0, 1)
    (found,) = json.loads((tmp_path / "records.json").read_text())["images"]
    assert found["why"].startswith("sure") and found["psnr"] > 25
    assert 0.1 < found["misfit_noise"] < 1.5
    if dataset == "mri_recon":  # whose `varied` has another noise in each
        config = Builder(config="varied", data_dir=tmp_path)
        with pytest.raises(ValueError, match="sigma: expected a number: .*varied.*Received: data"):
            measured.noise_of(config, np.zeros(3))


GEOMETRY = {"size": 24, "spacing_mm": 8.0}


def test_own_sinograms_are_in_hu(tmp_path, capsys):
    beam = tomography.ParallelBeam(24, 8.0, 40)
    hu = np.stack([1000 * disc(24) - 1000, 1100 * disc(24) - 1000])
    np.save(tmp_path / "scan.npy", beam.forward(radon.hu_to_attenuation(hu)))
    fields = {"kind": "parallel", **GEOMETRY, "slice_mm": 3}
    (tmp_path / "scan.yaml").write_text(yaml.safe_dump(fields))
    given = [f"--input={tmp_path}/scan.npy", "--method=fbp", "--dicom"]
    assert run(*given, f"--output={tmp_path}/out") == 0
    assert "Wrote 2 images" in capsys.readouterr().out
    for number in range(2):
        image = np.load(tmp_path / "out" / f"scan_{number:04d}.npy")
        assert image[9:15, 9:15].mean() == pytest.approx(100 * number, abs=15)
    # The same as DICOM, in HU and mm, of the measurement that the header names.
    header = pydicom.dcmread(tmp_path / "out" / "scan_0001.dcm")
    stored = np.squeeze(open_volume(tmp_path / "out" / "scan_0001.dcm").read(0))
    np.testing.assert_allclose(stored, image, atol=0.5)
    assert header.PixelSpacing == [8, 8] and header.ImagePositionPatient == [-92, -92, 3]
    digest = hashlib.sha256((tmp_path / "scan.npy").read_bytes()).hexdigest()
    assert digest in header.DerivationDescription
    # What a method tells of itself.
    base = [f"--input={tmp_path}/scan.npy", "--limit=1"]
    assert run(*base, "--method=pnp", "--lam=100", f"--output={tmp_path}/pnp") in (0, 1)
    assert "Lipschitz constant" in capsys.readouterr().out
    assert run(*base, "--method=encoder_decoder_ldct", f"--output={tmp_path}/model") == 0
    denoised = np.load(tmp_path / "model" / "scan_0000.npy")
    assert np.abs(denoised - np.load(tmp_path / "out" / "scan_0000.npy")).max() > 1
    assert run(*base, "--method=dip", "--iterations=10", f"--output={tmp_path}/dip") == 1
    (found,) = json.loads((tmp_path / "dip" / "records.json").read_text())["images"]
    assert found["iterations"] == 10 and "10 iterations" in found["notes"][0]


def kinds():
    fan = {"detector_mm": 12.0, "source_mm": 200.0, "source_to_detector_mm": 350.0}
    angles = np.arange(30) * 12.0
    maps = np.stack([1 + 0 * disc(16), np.linspace(0, 1, 16) * 1j + 0 * disc(16)])
    lines = np.arange(16) % 3 > 0
    places = mri.radial(9, 16, 2.0)
    return {
        "fan": (tomography.FanBeam(views=np.deg2rad(angles), detectors=60, **GEOMETRY, **fan),
                {**GEOMETRY, **fan, "angles_deg": angles.tolist()}, {}),
        "cartesian": (mri.CartesianMRI(lines), {}, {}),
        "cartesian, coils": (mri.CartesianMRI(lines, maps=maps), {}, {"maps": maps}),
        "non_cartesian": (mri.NonCartesianMRI((16, 16), 2.0, places),
                          {"size": [16, 16], "spacing_mm": 2.0}, {"trajectory": places}),
    }  # fmt: skip


@pytest.mark.parametrize("slices", [0, 2])
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("kind", ["fan", "cartesian", "cartesian, coils", "non_cartesian"])
def test_own_files_and_their_operators(kind, suffix, slices, tmp_path):
    operator, fields, arrays = kinds()[kind]
    image = 0.01 * disc(operator.domain_shape[0])
    y = operator.forward(np.stack([image] * slices) if slices else image).numpy()
    path = tmp_path / f"scan{suffix}"
    if suffix == ".npz":
        np.savez(path, measured=y, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, values in {"measured": y, **arrays}.items():
                file[name] = values
    path.with_suffix(".yaml").write_text(yaml.safe_dump({"kind": kind.split(",")[0], **fields}))
    found, same = measured.of_file(path)
    assert found.shape == (max(slices, 1), *operator.range_shape) == (len(found), *same.range_shape)
    np.testing.assert_allclose(same.forward(image), found[0], atol=1e-6)


@pytest.mark.parametrize(
    "fields, words",
    [
        (None, "scan.yaml: expected the geometry of scan.npy"),
        ({"kind": "cone"}, "expected kind parallel.*cone"),
        ({"kind": "parallel", "size": 8}, "expected of parallel .*Received: size"),
        ({"kind": "parallel", "pixels": 8, **GEOMETRY}, "expected of parallel .*pixels"),
        ({"kind": "parallel", **GEOMETRY, "angles_deg": [1, 2]}, "angles_deg: expected 6 angles"),
        (
            {"kind": "parallel", "size": "a", "spacing_mm": 1},
            "scan.yaml: expected a whole number as size",
        ),
        ({"kind": "non_cartesian", "size": [8, 8], "spacing_mm": 1}, "trajectory: expected an"),
    ],
)
def test_bad_geometries_are_refused(fields, words, tmp_path, capsys):
    np.save(tmp_path / "scan.npy", np.zeros((6, 9)))
    if fields:
        (tmp_path / "scan.yaml").write_text(yaml.safe_dump(fields))
    assert run(f"--input={tmp_path}/scan.npy", f"--output={tmp_path}/out") == 1
    (line,) = capsys.readouterr().err.splitlines()

    assert re.search(words, line) and "Received: " in line


BEAM = {"kind": "parallel", **GEOMETRY}
PLACES = {"kind": "non_cartesian", "size": [8, 8], "spacing_mm": 2.0}
KSPACE = np.ones((8, 8), complex)


@pytest.mark.parametrize(
    "array, fields, words",
    [
        (np.zeros((0, 6, 9)), BEAM, "measured: expected finite values"),
        (np.zeros((6, 9), bool), BEAM, "measured: expected finite values. Received: bool"),
        (np.zeros(3, [("r", "f4"), ("j", "f4")]), BEAM, "measured: expected finite values"),
        (np.ones((6, 9)), {**BEAM, "kind": ["fan"]}, "expected kind parallel"),
        (np.ones((6, 9)), {**BEAM, 1: 2}, "expected of parallel .*Received: 1, size"),
        (np.ones((6, 9)), {**BEAM, "spacing_mm": np.inf}, "a number as spacing_mm. Received: inf"),
        (np.ones((6, 9)), {**BEAM, "size": 8.0}, "a whole number as size. Received: 8.0"),
        (np.ones((6, 9)), {**BEAM, "slice_mm": 0}, "a number above 0 as slice_mm. Received: 0"),
        (np.ones((6, 9)), {**BEAM, "angles_deg": [np.nan] * 6}, "numbers as angles_deg"),
        (np.ones((8, 8, 2)), {"kind": "cartesian"}, "expected complex k-space"),
        (KSPACE[0], {"kind": "cartesian"}, "measured: expected 2 dimensions"),
        (KSPACE[None, None], {"kind": "cartesian"}, "measured: expected 2 dimensions"),
        (KSPACE[1:], PLACES, r"measured: expected shape \(8, 8\)"),
        (KSPACE, {**PLACES, "size": [8, 8, 1]}, "expected two whole numbers as size"),
    ],
)
def test_what_is_no_such_measurement_is_refused(array, fields, words, tmp_path):
    np.savez(tmp_path / "scan.npz", measured=array, trajectory=np.zeros((8, 8, 2)))
    (tmp_path / "scan.yaml").write_text(yaml.dump(fields))
    with pytest.raises(ValueError, match=f"^scan.*{words}") as error:
        measured.of_file(tmp_path / "scan.npz")
    assert "Received: " in str(error.value)
    (tmp_path / "scan.yaml").write_bytes("kind: fän".encode("latin-1"))
    with pytest.raises(ValueError, match="scan.yaml: expected YAML. Received: 'utf-8'"):
        measured.of_file(tmp_path / "scan.npz")


def test_a_measurement_is_never_replaced_nor_other_files_unasked(tmp_path, capsys):
    np.save(tmp_path / "scan.npy", np.ones((6, 9)))
    (tmp_path / "scan.yaml").write_text(yaml.safe_dump(BEAM))
    given = [f"--input={tmp_path}/scan.npy", "--method=fbp"]
    assert run(*given, f"--output={tmp_path}", "--overwrite") == 2
    assert "would replace the measurement" in capsys.readouterr().err
    assert np.load(tmp_path / "scan.npy").shape == (6, 9)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scan.npy").write_bytes(b"mine")
    assert run(*given, f"--output={tmp_path}/out") == 2
    assert "scan.npy exists; --overwrite" in capsys.readouterr().err
    assert run(*given, f"--output={tmp_path}/out", "--overwrite") == 0


def test_a_slice_that_fails_is_said_and_the_others_are_kept(tmp_path, capsys, monkeypatch):
    slices = np.stack([np.ones((6, 9)), 2 * np.ones((6, 9)), 3 * np.ones((6, 9))])
    np.save(tmp_path / "scan.npy", slices)
    (tmp_path / "scan.yaml").write_text(yaml.safe_dump(BEAM))

    def solved(measured, *_, **__):
        if measured[0, 0] == 2:
            raise ValueError("lam: expected another")
        return np.zeros((24, 24)), Record("fbp", change=np.inf, tried=[(1.0, np.nan)])

    monkeypatch.setattr("zoo.reconstruction.reconstruct.reconstruct", solved)
    given = [f"--input={tmp_path}/scan.npy", f"--output={tmp_path}/out", "--method=fbp"]
    assert run(*given) == 1
    assert capsys.readouterr().err == "skipped: scan_0001: lam: expected another\n"
    # JSON has no infinity.
    text = (tmp_path / "out" / "records.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))["images"]
    assert [each["name"] for each in found] == ["scan_0000", "scan_0002"]
    assert found[0]["change"] is None and found[0]["tried"] == [[1.0, None]]


def test_bad_files_are_refused(tmp_path):
    for name, content in (("a.npy", b"no"), ("a.npz", b"no"), ("a.h5", b"no"), ("a.txt", b"no")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: expected .*Received: "):
            measured.of_file(tmp_path / name)
    np.savez(tmp_path / "b.npz", image=np.zeros(3))
    with pytest.raises(ValueError, match="b.npz: expected an array `measured`"):
        measured.of_file(tmp_path / "b.npz")


@pytest.mark.parametrize(
    "flags, words",
    [
        ((), "--output"),
        (("--output=x",), "expected --dataset, or --input"),
        (("--output=x", "--input=a.npy", "--method=tw"), "method: expected fbp"),
        (("--output=x", "--input=a.npy", "--method=fbp", "--lam=3"), "fbp takes none of --lam"),
        (("--output=x", "--input=a.npy", "--method=pnp", "--stop=holdout"), "none of --stop"),
        (("--output=x", "--input=a.npy", "--sigma=data"), "sigma: expected a number, or data with"),
        (("--output=x", "--input=a.npy", "--photons=many"), "photons: expected a number"),
        (("--output=x", "--input=a.npy", "--model=unit"), "--model"),
    ],
)
def test_wrong_usage(flags, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*flags) == 2
    assert words in capsys.readouterr().err


def test_a_data_set_of_other_images_is_refused(data_dir, tmp_path, capsys):
    dataset = "--dataset=ct_recon/phantom_fbp_tiny"
    assert run(dataset, f"--data_dir={data_dir}", f"--output={tmp_path}/out") == 1
    assert "dataset: expected sinograms of ct_recon" in capsys.readouterr().err
