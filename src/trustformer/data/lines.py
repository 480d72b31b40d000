# SPDX-License-Identifier: Apache-2.0
"""Lines of text files, plain or gzip-compressed, in bounded memory; every failure names file and line."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from trustformer.data.progress import steps
from trustformer.errors import DataError

MAX_LINE_BYTES = 1 << 20  # a line is held in memory whole; a longer one is no sentence
_EVERY = 64  # reads between two looks at how far the file is
_BOM = b"\xef\xbb\xbf"
_Read = Callable[[BinaryIO], bytes]
_BREAKS = re.compile(r"(?<! ) *+[\t\r\n\v\f\0][ \t\r\n\v\f\0]*+")  # tried once a run of spaces: linear in the text


def count(number: int, noun: str) -> str:
    """Return `1 pair` or `2 pairs`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def unpacked_name(name: str) -> str:
    """Return a file's name without a `.gz` in any case."""
    return name[:-3] if name.lower().endswith(".gz") else name


def one_line(text: str) -> str:
    """Return a side as it stands in a line of a corpus: no TAB, line break or byte order mark, no outer white space."""
    return _BREAKS.sub(" ", text.replace("\ufeff", "")).strip()


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and decoded lines (UTF-8, a byte order mark is skipped) without their line ends.

    Raises:
        DataError: missing, damaged or unreadable file, a line that is not UTF-8 or beyond 1 MiB.
    """
    offset = 0
    for number, raw in enumerate(_raw_lines(path), start=1):
        if len(raw) > MAX_LINE_BYTES:
            raise DataError(f"{path}, line {number}: longer than 1 MiB", "split it: one sentence pair a line")
        start = len(_BOM) if number == 1 and raw.startswith(_BOM) else 0
        try:
            line = raw[start:].decode("utf-8")
        except UnicodeDecodeError as error:
            at = offset + start + error.start
            raise DataError(
                f"{path}, line {number}: not UTF-8 at byte offset {at:,} of the text",
                "convert the file to UTF-8",
            ) from error
        offset += len(raw)
        yield number, line.rstrip("\r\n")


def chunks(path: Path, size: int) -> Iterator[bytes]:
    """Bytes of a file, at most `size` at a time; raises `DataError` as `numbered_lines` does."""
    return _guarded(path, lambda stream: stream.read(size))


def _raw_lines(path: Path) -> Iterable[bytes]:
    """Lines as bytes, each cut one byte past the limit."""
    return _guarded(path, lambda stream: stream.readline(MAX_LINE_BYTES + 1))


def _guarded(path: Path, read: _Read) -> Iterator[bytes]:
    """What `read` gives until it gives nothing; every failure to read is a DataError."""
    try:
        with path.open("rb") as file, _unpacked(file) as stream:
            size = os.fstat(file.fileno()).st_size
            tell, placed = steps("reading", size // 1000, "kB"), file.seekable()  # a pipe says neither size nor place
            for number in itertools.count():
                if not (raw := read(stream)):
                    break
                if placed and not number % _EVERY:
                    tell(file.tell() // 1000)
                yield raw
            tell(size // 1000)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", "check the path") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        what = "truncated" if isinstance(error, EOFError) else "not valid gzip"
        raise DataError(
            f"{path} is {what} although its name ends in .gz",
            "fetch it again, or rename it if it is not gzip",
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", "check that it is a readable file") from error


def _unpacked(file: BinaryIO) -> BinaryIO:
    if Path(file.name).suffix.lower() == ".gz":
        # BufferedReader makes readline of gzip several times faster.
        return cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=file)))
    return file
