# SPDX-License-Identifier: Apache-2.0
"""A folder that behaves like Gramine's /dev/attestation: real files, and a FIFO that answers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def make_folder(folder: Path, kind: str = "dcap") -> Path:
    """All but `quote`."""
    folder.mkdir(exist_ok=True)
    (folder / "attestation_type").write_text(kind)
    (folder / "user_report_data").write_bytes(bytes(64))
    return folder


@contextmanager
def answering(folder: Path, answer: Callable[[bytes], bytes]) -> Iterator[Path]:
    """A folder whose `quote` is made, at each reading, from the current content of `user_report_data`."""
    stop = threading.Event()
    make_folder(folder)
    os.mkfifo(folder / "quote")

    def serve() -> None:
        while True:
            with (folder / "quote").open("wb") as pipe:  # waits for a reader
                if stop.is_set():
                    return
                asked = (folder / "user_report_data").read_bytes()
                pipe.write(answer(asked))
            while (folder / "user_report_data").read_bytes() == asked and not stop.wait(0.001):
                """A reader that is not yet gone would be given two answers."""

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield folder
    stop.set()
    (folder / "quote").read_bytes()
    thread.join(5)
