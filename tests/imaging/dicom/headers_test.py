"""zoo.imaging.dicom.headers: what pydicom throws, deflated files, byte orders."""

import contextlib
import logging
import struct
import warnings
import zlib

import numpy as np
import pydicom
import pydicom.encaps
import pydicom.uid
import pytest

from dicom_files import bundled, dciodvfy, series, write
from stand_in import Model, translate, with_peak
from zoo.imaging.dicom import headers
from zoo.imaging.files import find, open_volume


def nested(content):
    """CT_small with sequences in sequences, 3000 deep."""
    inner = b""
    for _ in range(3000):
        inner = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
        inner = struct.pack("<HH2sHI", 8, 0x2112, b"SQ", 0, len(inner)) + inner
    place = content.find(struct.pack("<HH", 0x0010, 0x0010))
    return content[:place] + inner + content[place:]


def unknown_vr(content):
    place = content.find(struct.pack("<HH2s", 0x0028, 0x1053, b"DS"))
    return content[: place + 4] + b"D@" + content[place + 6 :]


@pytest.mark.parametrize("damage", [nested, unknown_vr, lambda content: content[:700]])
def test_what_pydicom_throws_is_one_line(tmp_path, damage):
    folder = series(tmp_path / "in", 3)
    (folder / "1.dcm").write_bytes(damage((folder / "1.dcm").read_bytes()))
    report = translate(Model(), folder, tmp_path / "out")
    assert {path.name for path in report.outputs} >= {"0.dcm", "2.dcm"}
    for problem in report.skipped:
        assert problem.path.name == "1.dcm"
        assert problem.reason.strip()
        assert "\n" not in problem.reason


def deflated(tmp_path, content):
    """A deflated file whose data set is the one given, as bytes."""
    syntax = pydicom.uid.DeflatedExplicitVRLittleEndian.encode()
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path = tmp_path / "deflated.dcm"
    path.write_bytes(bytes(128) + b"DICM" + meta + deflate.compress(content) + deflate.flush())
    return path


def test_a_deflated_bomb_is_not_inflated(tmp_path):
    content = bundled("CT_small").read_bytes()
    begin = content.find(struct.pack("<HH", 8, 5))
    length = struct.pack("<HH2sHI", 9, 0x1010, b"OB", 0, 200 << 20)
    bomb = deflated(tmp_path, length + bytes(200 << 20) + content[begin:])
    found, peak = with_peak(lambda: find(bomb))
    assert "deflated data set" in found.problems[0].reason
    assert peak < 150e6


def test_files_without_preamble_and_deflated(tmp_path):
    plain = pydicom.dcmread(bundled("CT_small"))
    content = bundled("CT_small").read_bytes()
    offset = 132 + 12 + plain.file_meta[0x0002, 0x0000].value
    (tmp_path / "bare").write_bytes(content[offset:])
    expected = open_volume(bundled("CT_small")).read(0)
    np.testing.assert_array_equal(open_volume(tmp_path / "bare").read(0), expected)
    result = write(open_volume(tmp_path / "bare"), tmp_path / "out")
    np.testing.assert_array_equal(result.read(0), expected)
    # deflated by hand and by pydicom, and one that ends too early
    path = deflated(tmp_path, content[content.find(struct.pack("<HH", 8, 5)) :])
    np.testing.assert_array_equal(open_volume(path).read(0), expected)
    plain.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    plain.save_as(path)
    np.testing.assert_array_equal(open_volume(path).read(0), expected)
    path.write_bytes(path.read_bytes()[:-2000])
    assert "deflated data set" in find(path).problems[0].reason


def test_compressed_pixels_in_sequences_go(tmp_path):
    def icon(compressed):
        item = pydicom.Dataset()
        item.Rows = item.Columns = 2
        item.BitsAllocated = 8
        item.PixelData = pydicom.encaps.encapsulate([b"1234"]) if compressed else b"1234"
        item["PixelData"].VR = "OB"
        item["PixelData"].is_undefined_length = compressed
        return item

    header = pydicom.dcmread(bundled("MR_small_RLE"))
    block = header.private_block(0x0045, "SOMEBODY", create=True)
    block.add_new(0x01, "SQ", [icon(True)])
    block.add_new(0x02, "SQ", [icon(False)])
    outer = pydicom.Dataset()
    outer.ReferencedSOPClassUID = pydicom.uid.MRImageStorage
    outer.ReferencedSOPInstanceUID = "1.2.3"
    outer.IconImageSequence = [icon(True)]
    header.ReferencedImageSequence = [outer]
    header.save_as(tmp_path / "in.dcm")
    result = write(open_volume(tmp_path / "in.dcm"), tmp_path / "out")
    after = pydicom.dcmread(result.paths[0])
    assert b"\xfe\xff\x00\xe0\x04\x00\x00\x001234" not in result.paths[0].read_bytes()
    kept = after.private_block(0x0045, "SOMEBODY")
    assert 0x01 not in kept
    assert kept[0x02].value[0].PixelData == b"1234"
    assert after.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.3"
    assert "IconImageSequence" not in after.ReferencedImageSequence[0]
    assert dciodvfy(result.paths[0]) - dciodvfy(bundled("MR_small_RLE")) == set()


def test_big_endian_words_are_swapped(tmp_path):
    dataset = pydicom.dcmread(bundled("MR_small_bigendian"))
    overlay = np.arange(512, dtype=">u2")
    dataset.add_new((0x6000, 0x0010), "US", 64)
    dataset.add_new((0x6000, 0x3000), "OW", overlay.tobytes())
    dataset.save_as(tmp_path / "in.dcm")
    result = write(open_volume(tmp_path / "in.dcm"), tmp_path / "out")
    header = pydicom.dcmread(result.paths[0])
    assert header[0x6000, 0x3000].value == overlay.astype("<u2").tobytes()
    np.testing.assert_array_equal(header.pixel_array, dataset.pixel_array)


def test_curves_of_implicit_files_are_kept(tmp_path):
    dataset = pydicom.dcmread(bundled("MR_small_implicit"))
    dataset.add_new((0x5000, 0x0005), "US", 1)
    dataset.add_new((0x5000, 0x3000), "OW", b"\1\2\3\4")
    dataset.save_as(tmp_path / "in.dcm")
    result = write(open_volume(tmp_path / "in.dcm"), tmp_path / "out")
    assert pydicom.dcmread(result.paths[0])[0x5000, 0x3000].value == b"\1\2\3\4"


def test_pydicom_is_quiet_until_the_last_thread_is_done():
    """However their times overlap; afterwards all is as before."""
    logger, before = logging.getLogger("pydicom"), list(warnings.filters)
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    first.enter_context(headers.quiet())
    second.enter_context(headers.quiet())
    first.close()
    assert logger.disabled
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("Invalid value for VR PN: 'Doe^Jane'", stacklevel=1)
    assert not caught
    second.close()
    assert not logger.disabled and list(warnings.filters) == before
    with headers.quiet():  # again
        assert logger.disabled
    assert not logger.disabled
