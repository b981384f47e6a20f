"""Tests of zoo.imaging.files: what a search reads, ignores and names."""

import os
import socket

import numpy as np
import PIL.Image
import pytest
import tifffile

import dicom_files
from zoo.errors import contained
from zoo.imaging.files import find, open_volume


def png(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.zeros((3, 3), np.uint8)).save(path)


def named(found):
    """The problems that make the exit code 1, by name."""
    return {p.path.name: p.reason for p in found.problems if not p.harmless}


def test_a_linked_folder_is_entered_under_the_name_of_its_link(tmp_path):
    png(tmp_path / "in/own/a.png")
    png(tmp_path / "store/sub/b.png")
    (tmp_path / "in/linked").symlink_to(tmp_path / "store")
    (tmp_path / "in/again").symlink_to(tmp_path / "in/own")
    (tmp_path / "in/file.png").symlink_to(tmp_path / "store/sub/b.png")
    found = find(tmp_path / "in")
    assert [v.name for v in found.volumes] == ["file.png", "linked/sub/b.png", "own/a.png"]
    assert [p.path.name for p in found.problems] == ["again"]
    assert found.problems[0].harmless  # its images have been found under their own name
    (tmp_path / "whole").symlink_to(tmp_path / "in")
    assert len(find(tmp_path / "whole").volumes) == 3


def test_links_in_a_circle_and_out_of_the_folder_end(tmp_path):
    png(tmp_path / "in/x/a.png")
    png(tmp_path / "in/y/b.png")
    png(tmp_path / "private/c.png")
    (tmp_path / "in/x/to_y").symlink_to(tmp_path / "in/y")
    (tmp_path / "in/y/to_x").symlink_to(tmp_path / "in/x")
    (tmp_path / "in/x/self").symlink_to(".")
    (tmp_path / "in/up").symlink_to("..")
    (tmp_path / "in/one").symlink_to("two")
    (tmp_path / "in/two").symlink_to("one")
    (tmp_path / "in/nothing").symlink_to(tmp_path / "gone")
    found = find(tmp_path / "in")
    assert [v.name for v in found.volumes] == ["x/a.png", "y/b.png"]
    assert sorted(named(found)) == ["nothing", "one", "two"]
    assert named(found)["nothing"] == "a link to a file that is not there"


@pytest.mark.parametrize("linked", ["out", "out/deeper"])
def test_the_output_is_not_entered_through_a_link(tmp_path, linked):
    png(tmp_path / "in/a.png")
    png(tmp_path / "in/out/deeper/b.png")
    (tmp_path / "in/back").symlink_to(tmp_path / "in" / linked)
    found = find(tmp_path / "in", exclude=tmp_path / "in/out")
    assert [v.name for v in found.volumes] == ["a.png"] and not named(found)


def test_notes_are_ignored_and_unread_kinds_are_named(tmp_path):
    png(tmp_path / "a.png")
    notes = [
        "README", "README.md", "CHANGES", "LICENSE", "participants.tsv", "notes", "dataset.json",
        "x.bval", "x.bvec", "list.csv", "report.pdf", "run.log", "Thumbs.db", ".DS_Store",
        "SHA256SUMS", "a.png.md5", "page.html", "DICOMDIR", "LIESMICH",
    ]  # fmt: skip
    for name in notes:
        (tmp_path / name).write_text("A data set.\n")
    (tmp_path / "LIESMICH").write_bytes("Schädel\n".encode("latin-1"))
    (tmp_path / "long").write_text("é" * 5000)
    images = [
        "a.gif", "a.bmp", "a.webp", "a.svs", "a.czi", "a.mat", "a.h5", "a.zip", "a.tar.gz",
        "a.nii.zst", "a.par", "a.rec", "a.npz", "a.xyz", "binary",
    ]  # fmt: skip
    for name in images:
        (tmp_path / name).write_bytes(b"x\0\1" * 100)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text.dcm").write_text("hello")
    found = find(tmp_path)
    assert [v.name for v in found.volumes] == ["a.png"]
    assert sorted(named(found)) == sorted([*images, "empty", "text.dcm"])
    assert named(found)["a.nii.zst"].endswith("Received: .nii.zst")
    assert all("\n" not in reason for reason in named(found).values())
    ignored = [p.path.name for p in found.problems if p.harmless]
    assert sorted(ignored) == sorted([*notes, "long"])


def test_dicom_is_told_by_its_content_under_any_name(tmp_path):
    for number, name in enumerate(["notes.txt", "1.2.840.113", "plain", "a.xyz"]):
        dicom_files.single(tmp_path, name, SeriesInstanceUID=f"1.2.{number + 1}")
    assert len(find(tmp_path).volumes) == 4


def test_what_is_no_regular_file_is_never_opened(tmp_path, monkeypatch):
    png(tmp_path / "a.png")
    for name in ("pipe", "pipe.nii.gz", "pipe.png", "pipe.txt"):
        os.mkfifo(tmp_path / name)
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket.dcm")
    (tmp_path / "device.npy").symlink_to("/dev/zero")
    found = find(tmp_path)
    assert [v.name for v in found.volumes] == ["a.png"]
    assert len(named(found)) == 6
    assert set(named(found).values()) == {"no regular file. Received: a pipe, a socket or a device"}
    with pytest.raises(ValueError, match="expected one volume. Received: 0: no regular file"):
        open_volume(tmp_path / "pipe")


def test_folders_named_as_files_are_entered_and_unreadable_ones_named(tmp_path, monkeypatch):
    png(tmp_path / "series.dcm/a.png")
    png(tmp_path / "closed/b.png")
    listed = os.listdir

    def listdir(folder):
        if os.fspath(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied", os.fspath(folder))
        return listed(folder)

    monkeypatch.setattr(os, "listdir", listdir)
    found = find(tmp_path)
    assert [v.name for v in found.volumes] == ["series.dcm/a.png"]
    assert "Permission denied" in named(found)["closed"]


def test_a_file_that_vanishes_or_may_not_be_read_takes_no_other_with_it(tmp_path, monkeypatch):
    from zoo.imaging.dicom import images

    png(tmp_path / "a.png")
    for name in ("closed", "gone"):
        (tmp_path / name).write_bytes(b"x\0")
    errors = {"closed": PermissionError(13, "Permission denied"), "gone": FileNotFoundError("gone")}

    def is_dicom(path):
        raise errors[path.name]

    monkeypatch.setattr(images, "is_dicom", is_dicom)
    found = find(tmp_path)
    assert [v.name for v in found.volumes] == ["a.png"]
    assert sorted(named(found)) == ["closed", "gone"]


def test_whatever_is_thrown_becomes_one_line_of_bounded_length():
    for error, expected in [
        (ValueError("short"), "short"),
        (ValueError("x" * 9000), "x" * 497 + "..."),
        (ValueError("one\ntwo"), "outer: one"),
        (KeyError("k"), "outer: KeyError: 'k'"),
        (MemoryError(), "outer: more memory is asked for than there is"),
        (ZeroDivisionError(), "outer: ZeroDivisionError"),
    ]:
        with pytest.raises(ValueError) as caught, contained("twice"), contained("outer"):
            raise error
        assert str(caught.value) == expected


def test_find_lists_volumes_by_name_and_tells_problems(tmp_path):
    (tmp_path / "sub" / "deeper").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in ("b.png", "sub/a.PNG", "sub/deeper/c.png", ".hidden/d.png"):
        PIL.Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "odd.xyz").write_text("hello")
    (tmp_path / "cut.png").write_bytes((tmp_path / "b.png").read_bytes()[:-25])
    (tmp_path / "empty.dcm").write_bytes(b"")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "four.npy", np.zeros((2, 2, 2, 2)))
    PIL.Image.fromarray(np.zeros((3, 3, 4), np.uint8)).save(tmp_path / "alpha.png")
    tifffile.imwrite(tmp_path / "mixed.tif", np.zeros((4, 4), np.uint8))
    tifffile.imwrite(tmp_path / "mixed.tif", np.zeros((5, 4), np.uint8), append=True)
    found = find(tmp_path)
    assert [v.name for v in found.volumes] == ["b.png", "sub/a.PNG", "sub/deeper/c.png"]
    reasons = {p.path.name: p.reason for p in found.problems if not p.harmless}
    assert sorted(reasons) == [
        "alpha.png", "cut.png", "empty.dcm", "four.npy", "mixed.tif", "objects.npy", "odd.xyz",
    ]  # fmt: skip
    assert "opaque" in reasons["alpha.png"]
    assert "[2, 2, 2, 2]" in reasons["four.npy"]
    assert "page 1" in reasons["mixed.tif"]
    assert [v.name for v in find(tmp_path, exclude=tmp_path / "sub").volumes] == ["b.png"]


def test_open_volume_wants_exactly_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="Received: .*missing"):
        open_volume(tmp_path / "missing")
    with pytest.raises(ValueError, match="expected one volume. Received: 0"):
        open_volume(tmp_path)
