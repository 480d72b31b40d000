# SPDX-License-Identifier: Apache-2.0
"""A client folder: the three splits of one data owner, as `trustformer prepare` writes them."""

from __future__ import annotations

import gzip
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from trustformer.attestation.files import sync
from trustformer.data.corpus import Corpus, Pair, load_tsv
from trustformer.data.progress import blocks
from trustformer.errors import ConfigError, DataError, TrustformerError

SPLITS = ("train", "valid", "test")
UNLABELLED = "unlabelled"
"""Written as the domain of pairs without one, where others have one."""


def load_folder(folder: Path) -> Corpus:
    """Read a client folder.

    Raises:
        DataError: the folder or one of its files is missing or damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", "make one with trustformer prepare FILE --out DIR")
    files = {name: folder / f"{name}.tsv.gz" for name in SPLITS}
    for path in files.values():
        if not path.is_file():
            raise DataError(f"{path} is missing", "make the folder again with trustformer prepare")
    labels = {name: folder / f"{name}.domains.gz" for name in SPLITS}
    corpus = load_tsv(**files, **{f"{name}_domains": path for name, path in labels.items() if path.is_file()})
    return replace(corpus, name=folder.resolve().name)


def write_folder(folder: Path, splits: Mapping[str, Sequence[Pair]], others: Mapping[str, str]) -> None:
    """Write a client folder as a whole: after a crash there is no folder. The same pairs give the same bytes.

    Args:
        folder: must not exist, or be empty.
        splits: pairs of train, valid and test.
        others: further text files by name.

    Raises:
        ConfigError: the folder exists and is not empty.
        TrustformerError: it cannot be written.
    """
    labelled = any(pair.domain for pairs in splits.values() for pair in pairs)
    files = {name: text.encode() for name, text in others.items()}
    for name, pairs in splits.items():
        files[f"{name}.tsv.gz"] = _gzip(pairs, lambda pair: f"{pair.source}\t{pair.target}\n")
        if labelled:
            files[f"{name}.domains.gz"] = _gzip(pairs, lambda pair: f"{pair.domain or UNLABELLED}\n")
    with whole_folder(folder) as temporary:
        for name, data in files.items():
            (temporary / name).write_bytes(data)


@contextmanager
def whole_folder(folder: Path, mode: int = 0o700) -> Iterator[Path]:
    """Give a place to write files that become `folder` at the end, or nothing if anything fails on the way.

    Args:
        folder: must not exist, or be empty.
        mode: who may read it: by default its owner alone, for it holds text or keys.

    Raises:
        ConfigError: the folder exists and is not empty.
        TrustformerError: it cannot be written.
    """
    check_free(folder)
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        yield temporary
        sync(temporary)
        temporary.chmod(mode)
        temporary.replace(folder)  # replaces an empty folder, refuses any other
    except OSError as error:
        raise TrustformerError(
            f"{folder} cannot be written: {error.strerror}", "mend that, or choose another folder"
        ) from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def check_free(folder: Path) -> None:
    """Raise `ConfigError` unless a folder can be made at this place."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} already exists", "choose another folder, or remove it; nothing is overwritten")


def _gzip(pairs: Sequence[Pair], line: Callable[[Pair], str]) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=buffer, mtime=0) as file:
        for block in blocks(pairs, "packing"):
            file.write("".join(map(line, block)).encode())
    return buffer.getvalue()
