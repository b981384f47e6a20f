"""A scanner's own k-space in ISMRMRD, written by its package."""

import ismrmrd
import numpy as np
import pytest
from ismrmrd import xsd

from zoo.physics import fourier
from zoo.reconstruction import ismrmrd_file, measured

COILS, H, W = 3, 32, 24  # the readout has twice as many samples


def images(slices):
    """Complex images `[slices, coils, H, W]` of smooth coils."""
    y, x = np.meshgrid(np.linspace(-1, 1, H), np.linspace(-1, 1, W), indexing="ij")
    disc = (np.hypot(x, y) < 0.8) * np.exp(1j * x)
    coils = np.stack([np.exp(-(y**2)), 1 + 0.5j * x, 0.5 + 0.5 * y * x])
    return np.stack([(1 + each) * disc * coils for each in range(slices)]).astype(np.complex64)


def oversampled(image):
    """What a readout of twice the field of view measures of it, `[coils, H, 2 W]`."""
    wide = np.zeros((*image.shape[:-1], 2 * W), np.complex64)
    wide[..., W // 2 : W // 2 + W] = image
    return fourier.to_kspace(wide)


def header(trajectory="cartesian", partitions=1, mode="embedded"):
    def space(width, field):
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=width, y=H, z=partitions),
            fieldOfView_mm=xsd.fieldOfViewMm(x=field, y=200.0, z=5.0),
        )

    limits = xsd.encodingLimitsType(
        kspace_encoding_step_1=xsd.limitType(minimum=0, maximum=H - 1, center=H // 2)
    )
    parallel = xsd.parallelImagingType(
        accelerationFactor=xsd.accelerationFactorType(
            kspace_encoding_step_1=2, kspace_encoding_step_2=1
        ),
        calibrationMode=xsd.calibrationModeType(mode),
    )
    encoding = xsd.encodingType(
        encodedSpace=space(2 * W, 300.0),
        reconSpace=space(W, 150.0),
        encodingLimits=limits,
        trajectory=xsd.trajectoryType(trajectory),
        parallelImaging=parallel,
    )
    conditions = xsd.experimentalConditionsType(H1resonanceFrequency_Hz=63_000_000)
    return xsd.ismrmrdHeader(experimentalConditions=conditions, encoding=[encoding])


def line(kspace, row, at=0, flags=(), first=0, reverse=False):
    samples = kspace[:, row, first:]
    centre = W - first
    if reverse:
        samples, centre = samples[:, ::-1], samples.shape[1] - 1 - centre
    acquisition = ismrmrd.Acquisition.from_array(
        np.ascontiguousarray(samples), center_sample=centre
    )
    acquisition.idx.kspace_encode_step_1, acquisition.idx.slice = row, at
    for flag in flags:
        acquisition.set_flag(flag)
    return acquisition


def written(path, about, lines):
    with ismrmrd.Dataset(str(path), mode="w") as file:
        file.write_xml_header(xsd.ToXML(about))
        for each in lines:
            file.append_acquisition(each)
    return path


# Every second line, and the middle for calibration.
MEASURED = np.zeros(H, bool)
MEASURED[::2] = MEASURED[10:22] = True


def scan(path, about, slices=2):
    """Slices of which lines are repeated, reversed or for calibration, with others among them."""
    lines = []
    for at, image in enumerate(images(slices)):
        kspace = oversampled(image)
        lines.append(line(9 * kspace, 3, at, [ismrmrd.ACQ_IS_NOISE_MEASUREMENT]))
        for row in np.flatnonzero(MEASURED):
            flags = [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION] if row % 2 else []
            if row == 4:  # twice, with errors that cancel
                lines += [line(share * kspace, row, at) for share in (0.5, 1.5)]
                continue
            if row == 6:
                flags.append(ismrmrd.ACQ_IS_REVERSE)
            lines.append(line(kspace, row, at, flags, reverse=row == 6))
    return written(path, about, lines)


def test_lines_come_to_their_places(tmp_path):
    found = ismrmrd_file.read(scan(tmp_path / "scan.h5", header()))
    expected = fourier.to_kspace(images(2)) * MEASURED[:, None]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Lines of another scan for calibration are no lines of the images.
    (first, _) = ismrmrd_file.read(scan(tmp_path / "scan.h5", header(mode="separate")))
    assert (np.abs(first).sum((0, 2)) > 0).tolist() == (np.arange(H) % 2 == 0).tolist()


def test_an_echo_that_is_cut_off_keeps_its_columns(tmp_path):
    kspace = oversampled(images(1)[0])
    lines = [line(kspace, row, first=10) for row in range(H)]
    (found,) = ismrmrd_file.read(written(tmp_path / "scan.h5", header(), lines))
    assert found.shape == kspace.shape
    np.testing.assert_allclose(found[..., 10:], kspace[..., 10:], atol=1e-6)
    assert not found[..., :10].any()


def test_the_command_makes_images_of_it(tmp_path, capsys):
    from zoo import command_line

    path = scan(tmp_path / "scan.h5", header())
    flags = [f"--input={path}", f"--output={tmp_path}/out", "--lam=0.01"]
    assert command_line.main(["zoo", "reconstruct", *flags, "--iterations=60", "--limit=1"]) in (
        0,
        1,
    )
    image = np.load(tmp_path / "out" / "scan_0000.npy")
    truth = np.sqrt((np.abs(images(1)[0]) ** 2).sum(0))
    inside = truth > 0.1 * truth.max()
    assert np.abs(image - truth)[inside].mean() < 0.1 * truth[inside].mean()
    # Dicom is of CT.
    assert command_line.main(["zoo", "reconstruct", *flags, "--dicom", "--overwrite"]) == 2
    assert "dicom: expected CT in HU. Received: signal of MRI" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"trajectory": "radial"}, "expected a cartesian trajectory. Received: radial"),
        ({"partitions": 4}, "expected slices. Received: a volume of 4 partitions"),
    ],
)
def test_what_is_not_cartesian_slices_is_refused(fields, words, tmp_path):
    path = written(tmp_path / "scan.h5", header(**fields), [line(oversampled(images(1)[0]), 0)])
    with pytest.raises(ValueError, match=f"^scan.h5: {words}"):
        measured.of_input(path)


def test_bad_files_are_told_in_one_line(tmp_path, monkeypatch):
    kspace = oversampled(images(1)[0])
    outside = line(kspace, 5)
    outside.idx.kspace_encode_step_1 = H
    path = written(tmp_path / "scan.h5", header(), [outside])
    with pytest.raises(ValueError, match=r"scan.h5: expected lines of 3 coils .*Received: .*32"):
        ismrmrd_file.read(path)
    path = written(tmp_path / "scan.h5", header(), [line(kspace, 0, 0, [19])])
    with pytest.raises(ValueError, match="scan.h5: expected lines of an image. Received: none"):
        ismrmrd_file.read(path)
    with ismrmrd.Dataset(str(path)) as file:
        file.write_xml_header(b"<no>")
    with pytest.raises(ValueError, match="scan.h5: expected readable ISMRMRD. Received: ") as error:
        ismrmrd_file.read(path)
    assert "\n" not in str(error.value)
    monkeypatch.setitem(__import__("sys").modules, "ismrmrd", None)
    with pytest.raises(ValueError, match=r"pip install 'zoo-medical\[ismrmrd\]'"):
        measured.of_input(path)
