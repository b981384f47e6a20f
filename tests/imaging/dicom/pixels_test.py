"""zoo.imaging.dicom.pixels: frames, compressed or not, as stored integers."""

import struct

import numpy as np
import pydicom
import pydicom.encaps
import pydicom.uid
import pytest

from dicom_files import bundled, enhanced, single, write
from stand_in import Model, translate
from zoo.imaging.dicom import pixels
from zoo.imaging.files import find, open_volume


@pytest.mark.parametrize(
    "name", ["RLE", "bigendian", "implicit", "jp2klossless", "jpeg_ls_lossless"]
)
def test_forms_of_one_image_read_alike(name):
    plain = open_volume(bundled("MR_small"))
    np.testing.assert_array_equal(open_volume(bundled(f"MR_small_{name}")).read(0), plain.read(0))


def test_wrong_signedness_in_a_jpeg_2000_stream():
    # the stream says unsigned, the header signed: the header is right, -2000 is the padding
    image = open_volume(bundled("J2K_pixelrep_mismatch")).read(0)
    dataset = pydicom.dcmread(bundled("J2K_pixelrep_mismatch"))
    np.testing.assert_array_equal(image, dataset.pixel_array)
    assert image.min() == -2000
    assert 1000 < image.max() < 3000


def test_truncated_pixels(tmp_path):
    with pytest.raises(ValueError, match="cannot decode pixels"):
        open_volume(bundled("MR_truncated")).read(0)


def test_a_decoder_that_panics_is_contained(tmp_path):
    dataset = pydicom.dcmread(bundled("MR_small_RLE"))
    dataset.Rows = 63
    dataset.save_as(tmp_path / "bad.dcm")
    with pytest.raises(ValueError, match="cannot decode pixels: [^\n]+$"):
        open_volume(tmp_path / "bad.dcm").read(0)


@pytest.mark.parametrize(
    "name", ["MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "JPEG2000", "JPGExtended"]
)
def test_a_compressed_frame_of_another_size_is_refused_before_it_is_decoded(tmp_path, name):
    dataset = pydicom.dcmread(bundled(name))
    size = dataset.Rows, dataset.Columns
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0)
    assert pixels.coded_size(frame) == size
    dataset.Rows += 1
    dataset.save_as(tmp_path / "bad.dcm")
    with pytest.raises(ValueError, match=rf"Rows, Columns: .*\[{size[0]}, {size[1]}\]"):
        open_volume(tmp_path / "bad.dcm").read(0)


def compressed(tmp_path, fragments, offsets=None, frames=3):
    """The enhanced CT with RLE frames in so many fragments each, and a table of offsets."""
    path, physical = enhanced(tmp_path)
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless)
    coded = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=3))
    data = pydicom.encaps.encapsulate(coded[:frames], fragments, has_bot=True)
    if offsets is not None:
        table = struct.pack(f"<{len(offsets)}L", *offsets)
        data = data[:4] + struct.pack("<L", len(table)) + table + data[8 + 4 * frames :]
    dataset.PixelData = data
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    return path, physical


@pytest.mark.parametrize("fragments, offsets", [(1, None), (2, None), (1, []), (1, [5, 3, 9])])
def test_frames_are_found_by_fragments_or_by_a_table_that_is_right(tmp_path, fragments, offsets):
    path, physical = compressed(tmp_path, fragments, offsets)
    volume = open_volume(path)
    np.testing.assert_array_equal([volume.read(i) for i in range(3)], physical[::-1])


@pytest.mark.parametrize("offsets", [[0, 6, 9], [0, 4_000_000_000, 8], [0], [8, 8, 8]])
def test_a_table_that_lies_is_refused(tmp_path, offsets):
    path, _ = compressed(tmp_path, 2, offsets)
    (problem,) = find(path).problems
    assert "Offset Table" in problem.reason


def test_fewer_frames_than_announced_are_refused(tmp_path):
    path, _ = compressed(tmp_path, 1, frames=2)
    assert "Received: " in find(path).problems[0].reason


def test_an_enhanced_file_is_parsed_once_and_read_in_time(tmp_path, monkeypatch):
    path, _ = enhanced(tmp_path, frames=96, shape=(128, 128))
    parsed, decoded = [], []
    parse, decode = pydicom.dcmread, pixels.Pixels.read
    monkeypatch.setattr(pydicom, "dcmread", lambda *a, **k: parsed.append(1) or parse(*a, **k))
    monkeypatch.setattr(
        pixels.Pixels, "read", lambda self, number: decoded.append(number) or decode(self, number)
    )
    report = translate(Model(), path, tmp_path / "out")
    assert report.done == 1
    assert len(parsed) == 3  # for the search, the output's SeriesNumber and its header
    assert sorted(decoded) == list(range(96))
    whole = parse(path).pixel_array
    np.testing.assert_array_equal(parse(report.outputs[0]).pixel_array, whole)


def test_overlay_in_unused_bits_is_masked(tmp_path):
    values = np.random.default_rng(0).integers(-2048, 2047, (8, 8))
    bits = (values & 0xFFF) | (np.random.default_rng(1).integers(0, 16, (8, 8)) << 12)
    path = single(
        tmp_path, pixels=bits.astype(np.uint16), BitsStored=12, HighBit=11, PixelPaddingValue=None
    )
    dataset = pydicom.dcmread(path)
    dataset.add_new((0x6000, 0x0010), "US", 8)
    dataset.add_new((0x6000, 0x0102), "US", 12)
    dataset.save_as(path)
    source = open_volume(path)
    np.testing.assert_array_equal(source.read(0), values - 1024.0)
    result = write(source, tmp_path / "out")
    header = pydicom.dcmread(result.paths[0])
    np.testing.assert_array_equal(header.pixel_array, values)
    assert (0x6000, 0x0010) not in header


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("bits", "high"), [(12, 15), (10, 12), (14, 15)])
def test_values_in_the_upper_bits_of_their_words(tmp_path, bits, high, compressed):
    values = np.random.default_rng(0).integers(-(1 << (bits - 1)), 1 << (bits - 1), (8, 8))
    words = (values << (high + 1 - bits)).astype(np.int16)
    path = single(tmp_path, pixels=words, PixelPaddingValue=None)
    dataset = pydicom.dcmread(path)
    if compressed:
        dataset.compress(pydicom.uid.RLELossless)
    dataset.BitsStored, dataset.HighBit = bits, high
    dataset.save_as(path)
    source = open_volume(path)
    np.testing.assert_array_equal(source.read(0), values - 1024.0)
    header = pydicom.dcmread(write(source, tmp_path / "out").paths[0])
    assert header.HighBit == bits - 1
    np.testing.assert_array_equal(header.pixel_array, values)
