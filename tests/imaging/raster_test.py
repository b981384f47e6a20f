"""Tests of zoo.imaging.raster, and of png and tiff below it."""

import os
import struct
import zlib

import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import skimage.io
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from stand_in import stacked
from zoo.imaging import raster
from zoo.imaging.files import find, open_volume


def copy(volume, path):
    raster.write(volume, path, ((i, volume.read(i)) for i in range(volume.length)))


@pytest.mark.parametrize(
    ("dtype", "shape", "channels"),
    [("uint8", (11, 7), 1), ("uint16", (11, 7), 1), ("uint8", (11, 7, 3), 3)],
)
def test_png_round_trip_keeps_bit_depth(tmp_path, dtype, shape, channels):
    high = np.iinfo(dtype).max
    image = np.random.default_rng(0).integers(0, high, shape, dtype, endpoint=True)
    PIL.Image.fromarray(image).save(tmp_path / "a.png")
    volume = open_volume(tmp_path / "a.png")
    assert (volume.length, volume.shape, volume.unit) == (1, (11, 7), "1")
    assert volume.channels == channels
    assert volume.read(0).dtype == np.float32
    np.testing.assert_array_equal(volume.read(0), image)
    copy(volume, tmp_path / "b.png")
    result = skimage.io.imread(tmp_path / "b.png")
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, image)
    if channels == 3:
        with pytest.raises(ValueError, match="slices need one-channel images"):
            volume.stack(0, 3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_tiff_pages_are_slices(tmp_path, dtype):
    pages = np.random.default_rng(0).integers(0, 120, (4, 6, 5)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack")
    volume = open_volume(tmp_path / "a.tif")
    assert (volume.length, volume.shape) == (4, (6, 5))
    np.testing.assert_array_equal(volume.read(2), pages[2])
    copy(volume, tmp_path / "b.tif")
    result = tifffile.imread(tmp_path / "b.tif")
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, pages)


@given(st.lists(st.floats(-1e9, 1e9, width=32), min_size=1), st.sampled_from(["u1", "u2", "i2"]))
def test_saturate_rounds_and_never_wraps(values, dtype):
    limits = np.iinfo(dtype)
    result = raster.saturate(np.array(values, np.float32), dtype)
    assert result.dtype == dtype
    for value, stored in zip(values, result.tolist(), strict=True):
        assert abs(min(max(value, limits.min), limits.max) - stored) <= 0.5


def test_tiff_with_slices_outside_its_pages_is_refused(tmp_path):
    data = np.zeros((5, 8, 9), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack", imagej=True)
    assert open_volume(tmp_path / "a.tif").length == 5
    # ImageJ writes stacks above 4 GiB as one page, with the other slices behind it
    content = "ImageJ=1.53\nimages=5\nslices=5\n"
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        file.write(data[0], photometric="minisblack", description=content, metadata=None)
    with open(tmp_path / "b.tif", "ab") as file:
        file.write(data[1:].tobytes())
    with pytest.raises(ValueError, match="slices without pages"):
        open_volume(tmp_path / "b.tif")


def test_stack_repeats_the_ends(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(4.0)[:, None, None] * np.ones((4, 2, 2)))
    volume = open_volume(tmp_path / "a.npy")
    assert volume.stack(0, 5)[0, 0].tolist() == [0, 0, 0, 1, 2]
    assert volume.stack(2, 3)[0, 0].tolist() == [1, 2, 3]
    assert volume.stack(3, 1).shape == (2, 2, 1)
    with pytest.raises(ValueError, match="odd number. Received: 2"):
        volume.stack(0, 2)


def png_of(path, size, bits, colour, rows, *chunks, interlaced=0):
    """A PNG file whose rows are given as packed bytes, without any PNG library."""
    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, interlaced)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    content = b"\x89PNG\r\n\x1a\n"
    for kind, part in ((b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(kind + part))
        content += struct.pack(">I", len(part)) + kind + part + checksum
    path.write_bytes(content)
    return path


def hand_made(path, rows, width, bits, colour, *chunks):
    return png_of(path, (width, len(rows)), bits, colour, rows, *chunks)


def through(path):
    """What is read of a file, and the file that these values are written to."""
    volume = open_volume(path)
    copy(volume, path.with_name(f"copy_{path.name}"))
    return volume, path.with_name(f"copy_{path.name}")


@pytest.mark.parametrize(
    "bits, rows, values",
    [
        (1, [b"\x50", b"\xa0"], [[0, 1, 0, 1], [1, 0, 1, 0]]),
        (2, [b"\x1b", b"\xe4"], [[0, 1, 2, 3], [3, 2, 1, 0]]),
        (4, [b"\x12\x0f", b"\x00\x34"], [[1, 2, 0, 15], [0, 0, 3, 4]]),
    ],
)
def test_grey_png_of_few_bits_keeps_its_values_and_its_depth(tmp_path, bits, rows, values):
    volume, written = through(hand_made(tmp_path / "a.png", rows, 4, bits, 0))
    np.testing.assert_array_equal(volume.read(0), values)
    assert volume.bits == bits
    np.testing.assert_array_equal(open_volume(written).read(0), values)
    # shown by others as the input is
    shown = [np.asarray(PIL.Image.open(path)) for path in (tmp_path / "a.png", written)]
    np.testing.assert_array_equal(*shown)
    # more than fits is saturated, and label maps are written with 8 bits
    raster.write(volume, written, [(0, np.full([2, 4], 300.0))])
    assert open_volume(written).read(0).max() == 2**bits - 1
    raster.write(volume, written, [(0, np.full([2, 4], 17.0))], classes=18)
    np.testing.assert_array_equal(skimage.io.imread(written), np.full([2, 4], 17))


@pytest.mark.parametrize("colour, dropped", [(2, 0), (6, 1), (4, 2)])
def test_png_of_16_bits_with_channels_is_read_and_written_whole(tmp_path, colour, dropped):
    rng = np.random.default_rng(0)
    samples = {2: 3, 6: 4, 4: 2}[colour]
    image = rng.integers(0, 65535, (5, 4, samples)).astype(">u2")
    image[..., 3 if colour == 6 else 4 :] = 65535
    image[..., 1:] = 65535 if colour == 4 else image[..., 1:]
    rows = [row.tobytes() for row in image]
    volume, written = through(hand_made(tmp_path / "a.png", rows, 4, 16, colour))
    expected = image[..., 0] if colour == 4 else image[..., :3]
    np.testing.assert_array_equal(volume.read(0), expected)
    np.testing.assert_array_equal(open_volume(written).read(0), expected)
    assert imagecodecs.png_decode(written.read_bytes()).dtype == np.uint16


def test_palette_is_colour_in_an_image_and_indices_in_a_label_map(tmp_path):
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 9]], np.uint8)
    rows, indices = [b"\x10", b"\x64"], [[0, 1, 0, 0], [1, 2, 1, 0]]
    palette = (b"PLTE", colours.tobytes())
    path = hand_made(tmp_path / "a.png", rows, 4, 2, 3, palette, (b"tRNS", b"\0"))
    tiff = PIL.Image.fromarray(np.array(indices, np.uint8), "P")
    tiff.putpalette(colours.tobytes())
    tiff.save(tmp_path / "a.tif")
    for volume in (open_volume(hand_made(tmp_path / "b.png", rows, 4, 2, 3, palette)),
                   open_volume(tmp_path / "a.tif")):  # fmt: skip
        np.testing.assert_array_equal(volume.read(0), colours[indices])
        assert (volume.channels, volume.as_labels().channels) == (3, 1)
        np.testing.assert_array_equal(volume.as_labels().read(0), indices)
    # transparent pixels have no colour, and yet they have a class
    assert "transparent" in find(path).problems[0].reason
    grey = hand_made(tmp_path / "c.png", rows, 4, 2, 3, (b"PLTE", bytes([9] * 3 + [70] * 3) * 2))
    np.testing.assert_array_equal(open_volume(grey).read(0), np.array([9, 70, 9, 70])[indices])
    PIL.Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "d.png")
    assert open_volume(tmp_path / "d.png").as_labels() == open_volume(tmp_path / "d.png")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_left_out_where_all_is_opaque(tmp_path, suffix):
    image = np.random.default_rng(0).integers(0, 255, (5, 6, 4), np.uint8)
    image[..., 3] = 255
    PIL.Image.fromarray(image).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(open_volume(tmp_path / f"a{suffix}").read(0), image[..., :3])
    image[2, 2, 3] = 254
    PIL.Image.fromarray(image).save(tmp_path / f"a{suffix}")
    with pytest.raises(ValueError, match="expected opaque pixels. Received: alpha from 254"):
        open_volume(tmp_path / f"a{suffix}")


def test_png_of_a_transparent_grey_value_is_refused_where_a_pixel_has_it(tmp_path):
    path = tmp_path / "a.png"
    hand_made(path, [b"\1\2\3"], 3, 8, 0, (b"tRNS", b"\0\7"))
    assert open_volume(path).read(0).tolist() == [[1, 2, 3]]
    hand_made(path, [b"\1\2\3"], 3, 8, 0, (b"tRNS", b"\0\2"))
    with pytest.raises(ValueError, match="expected opaque pixels"):
        open_volume(path)


def test_damaged_png_is_refused_before_memory_is_asked_for(tmp_path):
    path = tmp_path / "a.png"
    hand_made(path, [b"\1\2\3"], 2**30, 16, 2)
    with pytest.raises(ValueError, match="expected pixels that fit the file. Received: 64424"):
        open_volume(path)
    hand_made(path, [b"\1\2\3"], 3, 8, 0, (b"acTL", bytes(8)))
    with pytest.raises(ValueError, match="expected one image. Received: an animation"):
        open_volume(path)
    content = hand_made(path, [bytes(range(200))], 200, 8, 0).read_bytes()
    for place in range(33, len(content) - 4):  # every byte behind the header
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ValueError, match="PNG"):
            open_volume(path)


@pytest.mark.parametrize("bits, colour", [(1, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 3)])
def test_png_with_fewer_rows_than_it_says_is_refused(tmp_path, bits, colour):
    row = bytes(-(-7 * bits * (3 if colour == 2 else 1) // 8))
    palette = [(b"PLTE", bytes(3))] if colour == 3 else []
    png_of(tmp_path / "a.png", (7, 9), bits, colour, [row] * 9, *palette)
    assert open_volume(tmp_path / "a.png").shape == (9, 7)
    png_of(tmp_path / "a.png", (7, 20), bits, colour, [row] * 9, *palette)
    with pytest.raises(ValueError, match=f"expected {20 * (1 + len(row))} bytes of rows"):
        open_volume(tmp_path / "a.png")


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (9, 5), (16, 17)])
def test_interlaced_png_is_read(tmp_path, shape):
    stored = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
    starts += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    passes = [stored[top::down, left::across] for top, left, down, across in starts]
    rows = [row.tobytes() for part in passes if part.size for row in part]
    png_of(tmp_path / "a.png", shape[::-1], 8, 0, rows, interlaced=1)
    np.testing.assert_array_equal(open_volume(tmp_path / "a.png").read(0), stored)


@pytest.mark.parametrize("name", ["lzw", "packbits", "zstd", "lzma", "jpeg2000", "lerc"])
def test_compressed_tiff_is_read(tmp_path, name):
    image = np.random.default_rng(0).integers(0, 65536, (2, 20, 15), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image, compression=name, photometric="minisblack")
    volume = open_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(stacked(volume), image.transpose(1, 2, 0))


@pytest.mark.parametrize(
    "bits, kept", [(1, "packed"), (4, "packed"), (8, ""), (12, "packed"), (16, "")]
)
def test_tiff_of_any_bits_and_either_polarity_looks_as_before(tmp_path, bits, kept):
    stored = np.random.default_rng(0).integers(0, 2**bits, (9, 7)).astype(np.uint16)
    stored = stored if bits > 8 else stored.astype(np.uint8)
    for polarity in ("minisblack", "miniswhite"):
        options = {"bitspersample": bits} if kept else {}
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric=polarity, **options)
        volume, written = through(tmp_path / "a.tif")
        bright = stored if polarity == "minisblack" else 2**bits - 1 - stored
        np.testing.assert_array_equal(volume.read(0), bright)
        assert volume.bits == bits
        with tifffile.TiffFile(written) as file:
            page = file.pages.first
            assert (page.photometric.name.lower(), page.bitspersample) == (polarity, bits)
            np.testing.assert_array_equal(page.asarray(), stored)


def test_tiff_of_planes_and_of_jpeg_colours_is_rgb(tmp_path):
    smooth = np.add.outer(np.arange(32), np.arange(32))[..., None] * np.array([1, 2, 3])
    image = smooth.astype(np.uint8)
    planes = np.moveaxis(image, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    volume, written = through(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.read(0), image)
    np.testing.assert_array_equal(tifffile.imread(written), image)
    PIL.Image.fromarray(image // 2).save(tmp_path / "b.tif", compression="jpeg", quality=95)
    assert np.abs(open_volume(tmp_path / "b.tif").read(0) - image // 2).mean() < 5


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_other_colours_are_refused(tmp_path, mode):
    PIL.Image.new("RGB", (5, 4)).convert(mode).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="expected grey or RGB pages"):
        open_volume(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_read_as_they_are_shown(tmp_path, orientation):
    blocks = np.random.default_rng(0).integers(0, 255, (3, 2), np.uint8)
    image = PIL.Image.fromarray(np.kron(blocks, np.ones((16, 16), np.uint8)))
    exif = PIL.Image.Exif()
    exif[274] = orientation
    image.save(tmp_path / "a.jpg", exif=exif, quality=100)
    image.save(tmp_path / "a.tif", tiffinfo={274: orientation})
    with PIL.Image.open(tmp_path / "a.jpg") as opened:
        shown = np.asarray(PIL.ImageOps.exif_transpose(opened), float)
    for name in ("a.jpg", "a.tif"):
        volume, written = through(tmp_path / name)
        assert volume.shape == shown.shape == ((48, 32) if orientation < 5 else (32, 48))
        assert np.abs(volume.read(0) - shown).max() < 3
        with PIL.Image.open(written) as opened:
            assert opened.getexif().get(274, 1) == 1
            assert np.abs(np.asarray(opened, float) - shown).max() < 3


def test_jpeg_is_written_as_jpeg_with_little_loss(tmp_path):
    y, x = np.mgrid[:40, :50]
    image = np.stack([127 + 100 * np.sin(y / 6), 127 + 90 * np.cos(x / 5), x + y], -1)
    PIL.Image.fromarray(image.astype(np.uint8)).save(tmp_path / "a.jpg", dpi=(100, 100))
    volume, written = through(tmp_path / "a.jpg")
    assert (volume.channels, volume.dtype, volume.bits) == (3, "uint8", 8)
    with PIL.Image.open(written) as result:
        assert (result.format, result.info["dpi"]) == ("JPEG", (100, 100))
        assert np.abs(np.asarray(result, float) - volume.read(0)).mean() < 1
    PIL.Image.new("CMYK", (5, 4)).save(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-200])
    (tmp_path / "d.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    reasons = {p.path.name: p.reason for p in find(tmp_path).problems}
    assert sorted(reasons) == ["b.jpg", "c.jpg", "d.jpg"]


@pytest.mark.parametrize("options", [{"ome": True}, {"imagej": True}, {"metadata": None}])
def test_every_slice_of_a_stack_with_metadata_is_read_and_written(tmp_path, options):
    stack = np.random.default_rng(0).integers(0, 65536, (3, 9, 8), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", **options)
    volume, written = through(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.stack([volume.read(i) for i in range(3)]), stack)
    np.testing.assert_array_equal(tifffile.imread(written), stack)


def test_other_files_that_a_tiff_names_are_not_opened(tmp_path):
    pixels = (
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="8" SizeY="9" SizeC="1" '
        'SizeZ="2" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
    )
    for number, name in enumerate(["a.tif", "pipe.tif"]):
        pixels += f'<TiffData IFD="0" FirstZ="{number}" PlaneCount="1">'
        pixels += f'<UUID FileName="{name}">urn:uuid:{number}</UUID></TiffData>'
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    text = f'<?xml version="1.0"?><OME xmlns="{schema}" UUID="urn:uuid:0"><Image ID="Image:0">'
    text += f"{pixels}</Pixels></Image></OME>"
    os.mkfifo(tmp_path / "pipe.tif")
    image = np.arange(72, dtype=np.uint16).reshape(9, 8)
    tifffile.imwrite(tmp_path / "a.tif", image, description=text, metadata=None)
    volume = open_volume(tmp_path / "a.tif")
    assert volume.length == 1
    np.testing.assert_array_equal(volume.read(0), image)


def linked(path, *following):
    """A TIFF of one 8 x 8 page each, whose directories point to the places given by number."""
    data, first = bytes(range(64)), 72
    tags = [
        (256, 4, 8), (257, 4, 8), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8),
        (277, 3, 1), (278, 4, 8), (279, 4, 64),
    ]  # fmt: skip
    length = 2 + 12 * len(tags) + 4
    content = b"II*\0" + struct.pack("<I", first) + data
    for number in following:
        content += struct.pack("<H", len(tags))
        content += b"".join(struct.pack("<HHII", tag, kind, 1, v) for tag, kind, v in tags)
        content += struct.pack("<I", 0 if number is None else first + number * length)
    path.write_bytes(content)
    return path


def test_tiff_whose_pages_go_in_a_circle_ends(tmp_path):
    path = tmp_path / "a.tif"
    assert open_volume(linked(path, 1, 2, None)).length == 3
    for places in ([0], [1, 0], [1, 2, 1], [*range(1, 300), 150]):
        with pytest.raises(ValueError, match="a page points back to one before it"):
            open_volume(linked(path, *places))
    with pytest.raises(ValueError, match="a page points out of the file"):
        open_volume(linked(path, 1, 7))


def test_tiff_that_asks_for_more_than_it_holds_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    content = linked(path, None).read_bytes()
    for tag, value, message in [
        (256, 2**31, "fit the file|truncated|corrupted"),
        (279, 2**20, "expected all pixels inside it"),
        (273, 2**20, "expected all pixels inside it"),
        (257, 2**16, "expected all pixels|expected pixels"),
    ]:
        place = content.index(struct.pack("<HHI", tag, 3 if tag == 258 else 4, 1)) + 8
        path.write_bytes(content[:place] + struct.pack("<I", value) + content[place + 4 :])
        with pytest.raises(ValueError, match=message):
            open_volume(path)
    for kept in (0, 7, 30, 80, len(content) - 3):
        path.write_bytes(content[:kept])
        with pytest.raises(ValueError):
            open_volume(path)


@pytest.mark.parametrize(
    "shape, length, read",
    [
        ((6, 5), 1, (6, 5)),
        ((1, 6, 5), 1, (6, 5)),
        ((6, 5, 1), 1, (6, 5)),
        ((4, 6, 5, 1), 4, (6, 5)),
        ((6, 5, 3), 1, (6, 5, 3)),
        ((4, 6, 5, 3), 4, (6, 5, 3)),
        ((3, 6, 5), 3, (6, 5)),
    ],
)
def test_npy_round_trip_is_float32_of_the_same_shape(tmp_path, shape, length, read):
    array = np.random.default_rng(0).normal(size=shape)
    np.save(tmp_path / "a.npy", array)
    volume, written = through(tmp_path / "a.npy")
    assert (volume.length, volume.shape) == (length, (6, 5))
    assert volume.read(0).shape == read and volume.channels == (3 if len(read) == 3 else 1)
    result = np.load(written)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, array.astype(np.float32))


def test_npy_of_slices_three_pixels_wide_is_a_stack(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(36.0).reshape(4, 3, 3))
    volume = open_volume(tmp_path / "a.npy")
    assert (volume.length, volume.shape, volume.channels) == (4, (3, 3), 1)


@pytest.mark.parametrize("dtype", [">f4", "<f2", "?", ">i2", "u8", "f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_numbers_in_any_order(tmp_path, dtype, order):
    array = np.asarray(np.random.default_rng(0).integers(0, 2, (3, 4, 5)), dtype, order)
    np.save(tmp_path / "a.npy", array)
    volume = open_volume(tmp_path / "a.npy")
    np.testing.assert_array_equal(stacked(volume), array.transpose(1, 2, 0))


def test_npy_that_is_no_image_is_refused_in_one_line(tmp_path):
    path = tmp_path / "a.npy"
    for array in (
        np.zeros((0, 5)), np.zeros(5), np.zeros((2, 3, 4, 5)), np.array([["a"]]),
        np.zeros((4, 4), [("x", "f4")]), np.zeros((4, 4, 3), complex),
    ):  # fmt: skip
        np.save(path, array)
        with pytest.raises(ValueError, match=r"expected an array.*Received"):
            open_volume(path)
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError):
        open_volume(path)
    np.savez(tmp_path / "b.npz", a=np.zeros((4, 4)))
    (tmp_path / "b.npz").rename(path)
    with pytest.raises(ValueError, match="magic"):
        open_volume(path)
    np.save(path, np.zeros((4, 4)))
    content = path.read_bytes()
    for new in (b"(9**9,4)", b"(-4, 4),", b"(((((((("):
        path.write_bytes(content.replace(b"(4, 4), ", new, 1))
        with pytest.raises(ValueError) as caught:
            open_volume(path)
        assert "\n" not in str(caught.value)
