import errno
import subprocess
import sys

import pytest

from zoo import atomic


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    full = pytest.raises(OSError, match="No space left on device: .*metrics.json'$")
    with full, atomic.replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())

    def closed(name, *arguments):
        raise PermissionError(errno.EACCES, "Permission denied", str(name))

    monkeypatch.setattr(atomic.os, "open", closed)
    with pytest.raises(PermissionError, match="metrics.json'$"):
        atomic.write_json(path, {})


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path):
    """Of two processes with a half-written file one is killed, and the other goes on."""
    program = (
        "import sys; from pathlib import Path; from zoo.atomic import replacing\n"
        "with replacing(Path(sys.argv[1])) as path:\n"
        "    path.write_text('half'); print(path.name, flush=True); input()\n"
    )
    names, processes = [], []
    for name in ("dead", "living"):
        process = subprocess.Popen(
            [sys.executable, "-c", program, tmp_path / name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        names.append(process.stdout.readline().strip())
        processes.append(process)
    for name in (".notes.part", "0123456789abcdef.part"):  # somebody else's
        (tmp_path / name).touch()
    (tmp_path / ".0123456789abcdef.part").symlink_to(tmp_path / ".notes.part")
    before = {path.name for path in tmp_path.iterdir()}
    processes[0].kill()
    processes[0].communicate()
    atomic.sweep(tmp_path)
    assert before - {path.name for path in tmp_path.iterdir()} == {names[0]}
    processes[1].communicate("\n")
    assert (tmp_path / "living").read_text() == "half"
    assert not (tmp_path / names[1]).exists()
    atomic.sweep(tmp_path / "nowhere")
