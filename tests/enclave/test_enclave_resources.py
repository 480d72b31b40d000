# SPDX-License-Identifier: Apache-2.0
"""What the enclave's process takes, and that it goes when its parent does."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from process_kit import Party

from trustformer.message import Codebook

MICRO = Path(__file__).parents[2] / "benchmarks" / "micro" / "enclave.py"


@pytest.fixture(scope="module")
def micro() -> Any:
    spec = importlib.util.spec_from_file_location("micro_enclave", MICRO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_memory_is_four_models_whatever_the_number_of_clients(micro: Any, tmp_path: Path) -> None:
    peaks = []
    for clients in (3, 12):
        (folder := tmp_path / str(clients)).mkdir()
        peaks.append(micro.memory(folder, clients, 4_000_000, Codebook(8, 256))["peak_in_models"])
    for peak in peaks:
        assert peak["after_a_second_round"] < 4.4  # with some megabytes that do not grow with the model
    assert abs(peaks[0]["after_a_second_round"] - peaks[1]["after_a_second_round"]) < 0.3


def test_the_process_goes_when_its_parent_is_killed(tmp_path: Path) -> None:
    party = Party(tmp_path / "run")
    program = (
        f"import sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from trustformer.federation.remote import RemoteEnclave\n"
        f"folder = Path({str(party.folder)!r})\n"
        "enclave = RemoteEnclave(folder / 'terms.bin', folder / 'state', provider='simulated',"
        " evidence=folder / 'root', log=folder / 'log.txt')\n"
        "print(enclave.pid, enclave._folder, flush=True)\n"
        "time.sleep(100)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    number, folder = parent.stdout.readline().split()
    child = int(number)
    assert Path(f"/proc/{child}").exists()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(200):
        if not alive(child):
            assert not Path(folder.decode()).exists()
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the enclave goes on without its parent")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
