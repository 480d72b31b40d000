# SPDX-License-Identifier: Apache-2.0
"""Reading and replacing small files, with bounds and without half-written results."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from trustformer.errors import ConfigError


def read_bounded(path: Path, limit: int, what: str) -> bytes:
    """Return the file's bytes, at most `limit` + 1 of them: whoever parses them refuses more than `limit`.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read {what}: {error.strerror}") from error


def put(temporary: Path, path: Path) -> None:
    """Put a file that was written and synced in another's place; after a power cut too one of the two is there.

    Raises:
        OSError: it cannot be done.
    """
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sync(folder: Path) -> None:
    """Have all files of a folder on the disk, and the folder itself; raises `OSError`."""
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file: after a crash it is the old one or the new one, never a part.

    Raises:
        ConfigError: the file cannot be written, or what is there is not a file.
    """
    temporary = ""
    try:
        if path.exists() and not path.is_file():  # renaming would put a file in the place of /dev/null
            raise ConfigError(f"{path}: cannot write: it is not a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        put(Path(temporary), path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise ConfigError(f"{path}: cannot write: {error.strerror}") from error
