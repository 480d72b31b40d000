# SPDX-License-Identifier: Apache-2.0
"""Flower's own FedAvg beside our enclave behind Flower's SuperLink, on arrays of the same sizes; and SuperLink alone.

    OMP_NUM_THREADS=1 python benchmarks/flower/scale.py --millions 10

Four clients on loopback over TLS with node keys, none trains. Flower: its FedAvg strategy, SuperLink and SuperNodes as
they come; each client answers with random arrays. Ours: `trustformer serve` as it is, four clients that speak tfl/1
through it with random updates, dense (the bytes of FedAvg) and codebook (blocks of 8, 256 centroids). Of every server
process it writes the peak of its memory (VmHWM), and of every round the seconds; the first one is the slowest, since
processes start. The SuperLink alone: nodes that ask for messages as fast as they can; requests a second, and the
seconds of its processor a request, which do not depend on how busy the machine is. Adds to
benchmarks/results/flower_scale.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flwr.proto.fleet_pb2 import PullMessagesRequest
from processes import free_port
from stock import Stock
from synthetic import make

from trustformer.flower.keys import make_node_key, make_tls
from trustformer.flower.node import Node
from trustformer.flower.superlink import SuperLink
from trustformer.message import Codebook, Coding, Dense

RESULT = Path(__file__).parents[1] / "results" / "flower_scale.json"
CLIENTS = 4
CODINGS: dict[str, Coding] = {"dense": Dense("float32"), "codebook": Codebook(8, 256)}


def peak(pid: int) -> int:
    """VmHWM of a process in bytes; 0 if it is gone."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("ascii"))
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


def fedavg(folder: Path, parameters: int, rounds: int) -> dict[str, Any]:
    """Flower's FedAvg."""
    with Stock(folder, CLIENTS, tls=True) as stock:
        result = stock.run(rounds, parameters, limit=1500)
        result["peak_bytes"] = {"ServerApp": result["peak_bytes"], "SuperLink": peak(stock.pid)}
    return result


def ours(folder: Path, parameters: int, rounds: int, coding: Coding) -> dict[str, Any]:
    """The enclave behind `serve`."""
    make(folder, CLIENTS, parameters, coding, rounds, f"127.0.0.1:{free_port()}")
    with open(folder / "log", "wb") as log:
        serve = subprocess.Popen([sys.executable, "-m", "trustformer", "serve", str(folder / "host")], stderr=log)
        script = Path(__file__).with_name("synthetic.py")
        clients = [
            subprocess.Popen([sys.executable, str(script), str(folder), str(index)], stdout=log, stderr=log)
            for index in range(CLIENTS)
        ]
    peaks, pids = dict.fromkeys(("serve", "enclave", "SuperLink"), 0), {"serve": serve.pid}
    try:
        while serve.poll() is None:
            said = (folder / "log").read_text("utf-8", "replace")
            found = re.search(r"enclave (\d+), SuperLink (\d+)", said)
            if found:
                pids |= {"enclave": int(found[1]), "SuperLink": int(found[2])}
            peaks |= {name: max(peaks[name], peak(pid)) for name, pid in pids.items()}
            time.sleep(0.05)
        if serve.returncode or any(client.wait(60) for client in clients):
            raise RuntimeError((folder / "log").read_text("utf-8", "replace")[-3000:])
    finally:
        for process in (serve, *clients):
            process.kill()
            process.wait()
    lines = [json.loads(line) for line in (folder / "host" / "rounds.jsonl").read_text("utf-8").splitlines()]
    return {
        "rounds": [line["seconds"]["round"] for line in lines],
        "bytes_up_a_client": round(sum(lines[-1]["bytes_up"].values()) / CLIENTS),
        "bytes_down_a_client": round(sum(lines[-1]["bytes_down"].values()) / CLIENTS),
        "peak_bytes": peaks,
    }


class Asker(Node):
    """A node that asks for messages until it is told to stop."""

    def ask(self, until: float) -> int:
        """Ask; return how often."""
        client, node, count = self._open(), self._node, 0
        while time.monotonic() < until:
            client.PullMessages(PullMessagesRequest(node=node))
            count += 1
        return count


def requests(folder: Path, nodes: int, seconds: float) -> dict[str, Any]:
    """The SuperLink of `serve`, asked by so many nodes at once, each in a thread of this process."""
    folder.mkdir()
    make_tls(folder / "tls", ["127.0.0.1"])
    for index in range(nodes):
        make_node_key(folder / f"{index}.key", folder / f"{index}.pub")
    address = f"127.0.0.1:{free_port()}"
    superlink = SuperLink(
        folder / "superlink", address, folder / "tls", {str(i): folder / f"{i}.pub" for i in range(nodes)}
    )
    superlink.start()
    try:
        askers = [
            Asker(address, folder / "tls" / "ca.crt", folder / f"{i}.key", "0" * 64, folder / f"{i}.id")
            for i in range(nodes)
        ]
        for asker in askers:
            asker.connect()
        counts: list[int] = []
        before, started = _cpu(superlink.pid), time.monotonic()
        threads = [
            threading.Thread(target=lambda asker=asker: counts.append(asker.ask(started + seconds))) for asker in askers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        used, took = _cpu(superlink.pid) - before, time.monotonic() - started
        for asker in askers:
            asker.close()
    finally:
        superlink.stop()
    total = sum(counts)
    return {
        "nodes": nodes,
        "requests_a_second": round(total / took, 1),
        "cpu_milliseconds_a_request": round(1000 * used / total, 3),
        "at_most_a_second_on_one_core": round(total / used, 1),
    }


def _cpu(pid: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", nargs="*", type=int, default=[10], help="of parameters")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nodes", nargs="*", type=int, default=[1, 4, 16], help="that ask the SuperLink at once")
    parser.add_argument("--seconds", type=float, default=15.0, help="of asking")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    result: dict[str, Any] = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}

    def keep(name: str, value: dict[str, Any]) -> None:
        print(name, json.dumps(value), file=sys.stderr, flush=True)
        stamp = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "load": round(os.getloadavg()[0], 1)}
        result[name] = value | stamp
        result["machine"] = {"cpu": platform.machine(), "count": os.cpu_count(), "flwr": version("flwr")}
        options.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")

    with tempfile.TemporaryDirectory() as temporary:
        at = Path(temporary)
        for nodes in options.nodes:
            keep(f"requests, {nodes} nodes", requests(at / f"nodes{nodes}", nodes, options.seconds))
        for millions in options.millions:
            size = millions * 10**6
            for name, coding in CODINGS.items():
                measured = ours(at / f"{name}{millions}", size, options.rounds, coding)
                keep(f"ours, {name}, {millions} M", measured)
            keep(f"fedavg, {millions} M", fedavg(at / f"fedavg{millions}", size, options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
