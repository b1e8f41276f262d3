"""Several training processes on the CPU that meet over gloo, forked from a server that has imported everything once."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_server = get_context("forkserver")
_server.set_forkserver_preload(["tests.multi_process.workers"])


@dataclass(frozen=True)
class Outcome:
    """How the processes of a run ended, in the order of their ranks.

    Attributes:
        codes: exit codes; minus the signal for a killed process.
        texts: what each wrote to standard output and standard error.
        ended: seconds from the start of the processes until each had ended.
    """

    codes: list[int]
    texts: list[str]
    ended: list[float]


def run_together(count: int, logs: Path, body: Callable[..., None], *arguments: Any, timeout: float = 240) -> Outcome:
    """Run `body(*arguments)` in `count` processes with the variables that a launcher sets; one process gets none."""
    logs.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    files = [logs / f"rank{rank}.txt" for rank in range(count)]
    processes: list[Any] = [
        _server.Process(target=_as_rank, args=(rank, count, port, file, body, arguments))
        for rank, file in enumerate(files)
    ]
    begin = time.monotonic()
    for process in processes:
        process.start()
    ended = [timeout] * count
    while time.monotonic() - begin < timeout and any(process.exitcode is None for process in processes):
        time.sleep(0.05)
        for rank, process in enumerate(processes):
            if process.exitcode is not None:
                ended[rank] = min(ended[rank], time.monotonic() - begin)
    hanging = [rank for rank, process in enumerate(processes) if process.exitcode is None]
    for process in processes:
        process.kill()
        process.join()
    texts = [file.read_text() if file.exists() else "" for file in files]
    assert not hanging, f"ranks {hanging} did not end in {timeout} s:\n" + "\n".join(texts)
    return Outcome([process.exitcode for process in processes], texts, ended)


def _as_rank(rank: int, count: int, port: int, file: Path, body: Callable[..., None], arguments: Any) -> None:
    with file.open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    for name in LAUNCHER_VARIABLES:
        os.environ.pop(name, None)
    if count > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    body(*arguments)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
