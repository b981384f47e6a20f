import errno

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
