"""Good files of every kind, and ways to damage them: bytes anywhere, or a field of the format."""

import copy
import gzip
import io
import json
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import PIL.Image
import pydicom
import pydicom.data
import pydicom.uid
import tifffile
import yaml
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement

from dicom_files import enhanced

# Values at which programs break, as they stand in files.
_BYTES = [
    b"\0", b"\1", b"\x7f", b"\x80", b"\xff", b"\0\0", b"\xff\xff", b"\xff\x7f", b"\0\x80",
    b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\1\0\0\0",
    b"\0\0\0\1", b"\0" * 8, b"\xff" * 8, struct.pack("<d", math.inf), struct.pack("<d", math.nan),
    struct.pack("<f", 1e30), b"-1", b"\\", b"{{{{", b"\r\n", "é".encode(),
]  # fmt: skip
_NUMBERS = [0, 1, -1, 2, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1]
_TEXTS = [
    b"", b"\0\0", b"\xff\xff", b"-1", b"0", b"1e400", b"nan", b"1\\2", b"1\\2\\3\\4\\5\\6\\7",
    b"A" * 300, b"99999999999999", b"-0.0", b"1.2..3", b"hello ", struct.pack("<d", math.nan),
    struct.pack("<H", 65535), struct.pack("<I", 2**32 - 1), "naïve".encode(), b"\x1b$B!!",
]  # fmt: skip
_VALUES = [
    None, True, 0, -1, 1.5, 1e308, 10**30, math.nan, math.inf, "", "x", "x" * 5000, "../../x",
    "/etc/passwd", "https://127.0.0.1:9/x.weights.h5", "\0", "é\ud800", [], [[]], {}, {"a": 1},
    [1, 2, 3], [None], ["pix2pix"], {"file": "x"}, {"window": [1, 0]},
]  # fmt: skip


def mutations(fields: int = 3) -> st.SearchStrategy:
    """Changes of one file: a list of (what, two numbers that say where and how much).

    Args:
        fields: changes of fields to 7 of bytes.
    """
    word = st.integers(0, 2**16 - 1)
    kinds = ["field"] * fields + ["flip", "put", "put", "cut", "drop", "repeat", "splice"]
    return st.lists(st.tuples(st.sampled_from(kinds), word, word), min_size=1, max_size=3)


def mutate(content: bytes, changes: list, field: Callable[[bytes, int, int], bytes]) -> bytes:
    """`content` after `changes`; `field` changes a field of the format, where it still can."""
    for kind, a, b in changes:
        if not content:
            return content
        if kind == "field":
            try:
                content = field(content, a, b)
            except Exception:  # an earlier change has left nothing to parse
                kind = "put"
        # half of the places are in the first 512 bytes, where headers are
        length = min(len(content), 512) if a % 2 else len(content)
        at = (a // 2) * length // 2**15
        other, size = b * len(content) // 2**16, 1 + b % 300
        if kind == "flip":
            content = content[:at] + bytes([content[at] ^ 1 << b % 8]) + content[at + 1 :]
        elif kind == "put":
            value = _BYTES[b % len(_BYTES)]
            content = content[:at] + value + content[at + len(value) :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "drop":
            content = content[:at] + content[at + size :]
        elif kind == "repeat":
            content = content[:at] + content[other : other + size] + content[at:]
        elif kind == "splice":
            content = content[:at] + content[other : other + size] + content[at + size :]
    return content


# DICOM


def dicom_seeds(folder: Path) -> dict[str, bytes]:
    """Files of each transfer syntax, and a multi-frame one."""
    names = {
        "explicit": "CT_small.dcm",
        "big_endian": "MR_small_bigendian.dcm",
        "rle": "MR_small_RLE.dcm",
        "j2k": "MR_small_jp2klossless.dcm",
        "deflated": "image_dfl.dcm",
        "padded": "MR_small_padded.dcm",
    }
    seeds = {
        key: Path(pydicom.data.get_testdata_file(name, download=False)).read_bytes()
        for key, name in names.items()
    }
    dataset = pydicom.dcmread(io.BytesIO(seeds["explicit"]))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    seeds["implicit"] = _saved(dataset)
    seeds["enhanced"] = enhanced(folder)[0].read_bytes()
    return seeds


def _saved(dataset: pydicom.Dataset) -> bytes:
    written = io.BytesIO()
    dataset.save_as(written, enforce_file_format=False)
    return written.getvalue()


def dicom_field(content: bytes, a: int, b: int) -> bytes:
    """Takes an element away, or gives it another VR, value or depth."""
    dataset = pydicom.dcmread(io.BytesIO(content), force=True)
    places = [(dataset, element.tag) for element in dataset]
    for element in list(dataset):
        if element.VR == "SQ" and element.value:
            places += [(element.value[0], inner.tag) for inner in element.value[0]]
    places += [(dataset.file_meta, element.tag) for element in dataset.file_meta]
    owner, tag = places[a % len(places)]
    vrs = ["US", "SS", "UL", "FD", "DS", "IS", "LO", "UI", "SQ", "OB", "OW", "AT", "UN", "PN", "CS"]
    value, vr = _TEXTS[b % len(_TEXTS)], vrs[b // 64 % len(vrs)]
    if b % 7 == 0:
        del owner[tag]
        return _saved(dataset)
    if b % 7 == 1 and owner[tag].VR == "SQ" and owner[tag].value:
        owner[tag].value.append(copy.deepcopy(owner[tag].value[0]))
        return _saved(dataset)
    vr = owner[tag].VR if b % 7 < 5 else vr
    value += b" " * (len(value) % 2)
    owner[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    return _saved(dataset)


# NIfTI


def nifti_seeds() -> dict[str, bytes]:
    """Volumes of each sort."""
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 900, (7, 6, 4)).astype(np.int16)
    images = {
        "int16": nibabel.Nifti1Image(volume, np.diag([1, 2, 3, 1])),
        "float32": nibabel.Nifti1Image(volume[..., 0].astype(np.float32), np.eye(4)),
        "nifti2": nibabel.Nifti2Image(volume, np.eye(4)),
        "big_endian": nibabel.Nifti1Image(volume, np.eye(4), nibabel.Nifti1Header(endianness=">")),
    }
    images["int16"].header.set_slope_inter(2.0, -5.0)
    return {name: image.to_bytes() for name, image in images.items()}


def nifti_field(content: bytes, a: int, b: int) -> bytes:
    """Another number in a field of the header."""
    kind = nibabel.Nifti2Header if content[:1] == b"\x1c" else nibabel.Nifti1Header
    dtype = kind.template_dtype
    name = dtype.names[a % len(dtype.names)]
    base, offset = dtype.fields[name][:2]
    item = base.base
    count = base.itemsize // item.itemsize
    value = _NUMBERS[b % len(_NUMBERS)]
    if item.kind == "S":
        raw = _BYTES[b % len(_BYTES)][: item.itemsize]
    else:
        raw = np.array(value, np.int64).astype(item).tobytes()
        if item.kind == "f":
            raw = np.array([math.nan, -math.inf, 1e-38, value][b // 16 % 4], item).tobytes()
    at = offset + (b // 64 % count) * item.itemsize
    return content[:at] + raw + content[at + len(raw) :]


# MGH, MetaImage and NRRD


def mgh_seeds() -> dict[str, bytes]:
    """MGH volumes, not compressed."""
    volume = np.random.default_rng(0).integers(0, 900, (7, 6, 4)).astype(np.int16)
    return {
        "int16": nibabel.MGHImage(volume, np.eye(4)).to_bytes(),
        "float32": nibabel.MGHImage(volume.astype(np.float32), np.eye(4)).to_bytes(),
    }


def metaimage_seeds() -> dict[str, bytes]:
    """MetaImage volumes with their voxels inside."""
    voxels = np.random.default_rng(0).integers(0, 900, 7 * 6 * 4).astype("<i2").tobytes()
    head = (
        b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        b"CompressedData = %s\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\n"
        b"AnatomicalOrientation = RAI\nElementSpacing = 1 2 3\nDimSize = 7 6 4\n"
        b"ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    return {
        "raw": head % b"False" + voxels,
        "compressed": head % b"True" + zlib.compress(voxels),
    }


def nrrd_seeds() -> dict[str, bytes]:
    """NRRD volumes with their voxels inside."""
    voxels = np.random.default_rng(0).integers(0, 900, 7 * 6 * 4).astype("<i2").tobytes()
    head = (
        b"NRRD0004\n# a comment\ntype: short\ndimension: 3\nspace: left-posterior-superior\n"
        b"sizes: 7 6 4\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nkinds: domain domain domain\n"
        b"endian: little\nencoding: %s\nspace origin: (1,2,3)\nkey:=value\n\n"
    )
    return {"raw": head % b"raw" + voxels, "gzip": head % b"gzip" + zipped(voxels)}


def line_field(content: bytes, a: int, b: int) -> bytes:
    """Another word in a line of the header, one line less or twice."""
    odd = [b"", b"0", b"-1", b"nan", b"1e400", b"99999999999", b"1 2", b"(1,0,0)", b"none", b"LIST",
           b"/etc/passwd", b"../x", b"/dev/zero", b"a_bad.mha", b"%d", b"MET_LONG_LONG", b"block",
           b"bzip2", b"hex", b"ascii", b"x" * 3000, b"\xff\xfe", b"True"]  # fmt: skip
    lines = content.split(b"\n", 13)
    number = a % (len(lines) - 1)
    if b % 8 == 0:
        del lines[number]
    elif b % 8 == 1:
        lines.insert(number, lines[number])
    else:
        words = lines[number].split(b" ")
        words[b // 8 % len(words)] = odd[a // 16 % len(odd)]
        lines[number] = b" ".join(words)
    return b"\n".join(lines)


# Pictures and arrays


def png_seeds() -> dict[str, bytes]:
    """PNG files of the usual kinds."""
    rng = np.random.default_rng(0)
    grey, colour = rng.integers(0, 65536, (9, 8), np.uint16), rng.integers(0, 256, (9, 8, 3))
    rgb = PIL.Image.fromarray(colour.astype(np.uint8))
    images = {
        "grey16": PIL.Image.fromarray(grey),
        "rgb": rgb,
        "rgba": rgb.convert("RGBA"),
        "palette": rgb.quantize(12),
        "bits": PIL.Image.fromarray(grey > 30000),
    }
    seeds = {name: _encoded(image, "PNG") for name, image in images.items()}
    header = struct.pack(">IIBBBBB", 8, 9, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colour)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return seeds | {"rgb16": seeds["rgb"][:8] + b"".join(_chunk(*chunk) for chunk in chunks)}


def _encoded(image: PIL.Image.Image, form: str, **options) -> bytes:
    written = io.BytesIO()
    image.save(written, form, **options)
    return written.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_field(content: bytes, a: int, b: int) -> bytes:
    """Another chunk, of another kind, place or content."""
    chunks = _parsed(content)
    number = a % len(chunks)
    kind, data = chunks[number]
    value = _BYTES[b % len(_BYTES)]
    place = b // 64 % max(1, len(data))
    if b % 8 == 0:
        del chunks[number]
    elif b % 8 == 1:
        chunks.insert(b // 64 % len(chunks), (kind, data))
    elif b % 8 == 2:
        chunks[number] = ([b"tRNS", b"PLTE", b"acTL", b"pHYs", b"zTXt"][b // 64 % 5], data)
    else:
        chunks[number] = (kind, data[:place] + value + data[place + len(value) :])
    return content[:8] + b"".join(_chunk(*chunk) for chunk in chunks)


def checked(content: bytes) -> bytes:
    """A PNG file with checksums that are right: what gets behind the first check."""
    return content[:8] + b"".join(_chunk(*chunk) for chunk in _parsed(content))


def _parsed(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 8
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def jpeg_seeds() -> dict[str, bytes]:
    """JPEG files, baseline and progressive."""
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (17, 19, 3), np.uint8))
    exif = PIL.Image.Exif()
    exif[274] = 6
    return {
        "rgb": _encoded(image, "JPEG", exif=exif),
        "grey": _encoded(image.convert("L"), "JPEG", progressive=True, dpi=(90, 90)),
    }


def no_field(content: bytes, a: int, b: int) -> bytes:
    """For kinds whose bytes are changed anywhere."""
    raise NotImplementedError


def tiff_seeds() -> dict[str, bytes]:
    """TIFF files of each way to store pixels."""
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 65536, (2, 20, 17), np.uint16)
    seeds = {}

    def add(name: str, array: np.ndarray, **options) -> None:
        written = io.BytesIO()
        tifffile.imwrite(written, array, **({"photometric": "minisblack"} | options))
        seeds[name] = written.getvalue()

    for name in ("none", "lzw", "deflate", "packbits", "zstd", "jpeg2000"):
        add(name, stack, compression=None if name == "none" else name)
    colour = (stack[0][..., None] >> np.array([8, 4, 2])).astype(np.uint8)
    add("jpeg", colour, photometric="rgb", compression="jpeg")
    add("tiled", stack[0], tile=(16, 16), compression="lzw")
    add("packed", stack[0] >> 4, bitspersample=12, photometric="miniswhite")
    add("big", stack[0].astype(">f4"), bigtiff=True, byteorder=">")
    add("imagej", stack, imagej=True)
    add("ome", stack, ome=True)
    palette = PIL.Image.fromarray(colour).quantize(9)
    seeds["palette"] = _encoded(palette, "TIFF")
    fax = PIL.Image.fromarray(stack[0] > 30000)
    return seeds | {"fax": _encoded(fax, "TIFF", compression="group4")}


def tiff_field(content: bytes, a: int, b: int) -> bytes:
    """Another tag, type, count or value of an entry, or another next page."""
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", content, 4)
    (count,) = struct.unpack_from(order + "H", content, start)
    number = _NUMBERS[b % len(_NUMBERS)] % 2**32
    if a % 16 == 0:  # to this page again, into its middle, or anywhere
        at, raw = (
            start + 2 + 12 * count,
            struct.pack(order + "I", [start, start + 2, number][b % 3]),
        )
        return content[:at] + raw + content[at + 4 :]
    entry = start + 2 + 12 * (a // 16 % count)
    at = entry + [0, 2, 4, 8, 8, 8][b // 16 % 6]
    raw = struct.pack(order + "I", number)
    if at - entry < 4:
        raw = struct.pack(order + "H", number % (2**16 if at == entry else 20))
    return content[:at] + raw + content[at + len(raw) :]


def npy_seeds() -> dict[str, bytes]:
    """Arrays of each sort."""
    rng = np.random.default_rng(0)
    arrays = {
        "grey": rng.normal(size=(6, 5)).astype(np.float32),
        "stack": np.asfortranarray(rng.normal(size=(3, 6, 5))),
        "colour": rng.integers(0, 9, (6, 5, 3)),
        "complex": rng.normal(size=(6, 5)).astype(np.complex64),
    }
    seeds = {}
    for name, array in arrays.items():
        written = io.BytesIO()
        np.save(written, array)
        seeds[name] = written.getvalue()
    return seeds


def npy_field(content: bytes, a: int, b: int) -> bytes:
    """Another header, of a length that is right."""
    descrs = ["'<f4'", "'|O'", "'<f16'", "'|S9'", "[('a', '<f4')]", "'<M8[s]'", "'<U9'", "7", "'?'",
              "'|V0'", "'>c16'", "(" * 90 + ")" * 90]  # fmt: skip
    shapes = ["(6, 5)", "(0, 5)", "(-6, -5)", "()", "(6,)", "(2, 3, 5)", "(6, 5, 1)", "(1, 6, 5)",
              "(99999, 99999)", "(2**40, 3)", "(4611686018427387904, 8)", "6", "(6.0, 5)", "None",
              "(True, 30)", "(" + "1," * 200 + ")"]  # fmt: skip
    order = ["False", "True", "0", "'x'"][b // 1024 % 4]
    descr, shape = descrs[a % len(descrs)], shapes[b % len(shapes)]
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return content[:8] + struct.pack("<H", len(header)) + header + content[128:]


# Text


def json_field(content: bytes, a: int, b: int) -> bytes:
    """Another value somewhere, one less, one twice, or nesting without end."""
    if b % 16 == 0:
        return b'{"model": ' + b"[" * (10 ** (a % 6)) + b"}"
    changed = _changed(json.loads(content), a, b)
    text = json.dumps(changed)
    if b % 16 == 1:
        text = text[:1] + text[1:-1] + ", " + text[1:]
    return text.encode(errors="surrogatepass")


def yaml_field(content: bytes, a: int, b: int) -> bytes:
    """The same of YAML, and what YAML has beside: tags, anchors, tabs."""
    odd = [b"models: !!python/object/apply:os.getcwd []\n", b"a: &a [*a]\n", b"\tmodels: 1\n",
           b"models: {[1]: 2}\n", b"? {a: b}\n: c\n", b"models: 2020-02-30\n", b"- 1\n",
           b"%YAML 9\n", b"x: " + b"[" * 2000, b"models: {1: {}, null: {}, true: {}}\n",
           b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"]  # fmt: skip
    if b % 8 == 0:
        return content + odd[a % len(odd)]
    if b % 8 == 1:
        return odd[a % len(odd)]
    return yaml.safe_dump(_changed(yaml.safe_load(content), a, b)).encode(errors="replace")


def _changed(content: object, a: int, b: int) -> object:
    """`content` with another value, or none, at one of its places."""
    places = []

    def visit(node: object) -> None:
        keys = node.keys() if isinstance(node, dict) else range(len(node))
        for key in list(keys):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                visit(node[key])

    visit(content)
    # one time in ten the whole is another value
    if not places or a % 10 == 0:
        return _VALUES[b % len(_VALUES)]
    node, key = places[a // 10 % len(places)]
    if b // 32 % 4 == 0:
        del node[key]
    elif b // 32 % 4 == 1 and isinstance(node, dict):
        node[["x", "é", "weights", "window", "model"][b % 5]] = node.pop(key)
    else:
        node[key] = copy.deepcopy(_VALUES[b % len(_VALUES)])
    return content


# Weights


def weights_field(content: bytes, a: int, b: int) -> bytes:
    """Another data set of a weights file: none, of another shape or type, or a link."""
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as opened:
        names: list[str] = []
        opened.visit(names.append)
        name = names[a % len(names)]
        is_group = isinstance(opened[name], h5py.Group)
        shape = () if is_group else opened[name].shape
        del opened[name]
        value = [np.zeros((3, 1, 4)), np.full(shape, np.nan), np.zeros(shape, "S3"), "text",
                 np.zeros(shape, complex), np.zeros((0,)), np.float64(7)][b % 7]  # fmt: skip
        if b // 8 % 8 == 0:
            opened[name] = h5py.SoftLink("/nothing")
        elif b // 8 % 8 == 1:
            opened[name] = h5py.ExternalLink("/etc/passwd", "/x")
        elif b // 8 % 8 == 2:
            opened[name] = h5py.SoftLink("/")
        elif b // 8 % 8 > 3:
            opened[name] = value
    return file.getvalue()


def zipped(content: bytes) -> bytes:
    """A gzip file whose checksum is right."""
    return gzip.compress(content, 1, mtime=0)
