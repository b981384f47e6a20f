"""Pseudonyms that cannot be turned back without a key of the data directory."""

import hashlib
import os
import secrets
import time
from pathlib import Path


def patient_key(data_dir: Path) -> bytes:
    """The secret behind the pseudonyms of a data directory, in its file `.patient_key`.

    It is made by the first data set that needs it, is the same for all of them, so that a patient
    keeps the pseudonym, and only its owner can read it.

    Raises:
        ValueError: for a file that holds no such key.
    """
    path = data_dir / ".patient_key"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        for _ in range(20):  # another process may be writing it
            text = path.read_text(encoding="ascii", errors="replace").strip()
            if len(text) == 64 and set(text) <= set("0123456789abcdef"):
                return bytes.fromhex(text)
            time.sleep(0.05)
        raise ValueError(
            f"{path}: expected 64 hexadecimal digits; without the file a new key is made. "
            f"Received: {len(text)} other characters"
        ) from None
    key = secrets.token_bytes(32)
    with os.fdopen(descriptor, "w") as file:
        file.write(key.hex())
    return key


def pseudonym(key: bytes, text: str) -> str:
    """16 hexadecimal digits that stand for a patient, and cannot be found again without the key."""
    content = f"patient:{text}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(content, key=key, digest_size=8).hexdigest()
