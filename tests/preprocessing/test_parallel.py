"""Sharing stocks among workers: same bytes, bounded memory, and a clean end whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from preprocessing import parallel
from preprocessing.bars_store import BarsStore, from_batch
from preprocessing.combined_preprocessor import main
from preprocessing.parallel import AHEAD, WorkerError, open_workers
from preprocessing.simulation import parse_simulated_stock

ROOT = Path(__file__).parents[2]
STOCKS = "sim:ou?rows=400&seed=1,sim:gbm?rows=300&seed=2,sim:ou?rows=50,sim:ar?rows=400&seed=3,sim:gbm?rows=400&seed=4"
COMMAND = (sys.executable, "-m", "preprocessing.combined_preprocessor")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def run_main(folder: Path, *arguments: str) -> int:
    return main(["--stock", STOCKS, "--folds", "2", "--embargo", "3", "--output_dir", str(folder), *arguments])


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_two_processes_write_the_same_bytes_as_one(tmp_path: Path, file_format: str) -> None:
    for number in ("1", "2"):
        assert run_main(tmp_path / number, "--file_format", file_format, "--num_workers", number) == 0
    want = files_of(tmp_path / "1")
    assert len(want) == 8 + 2 * 6 + 1
    assert files_of(tmp_path / "2") == want


def test_dask_writes_the_same_bytes_as_one_process(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    assert run_main(tmp_path / "one") == 0
    assert run_main(tmp_path / "local", "--num_workers", "2", "--dask", "local") == 0
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        assert run_main(tmp_path / "address", "--dask", cluster.scheduler_address) == 0
    want = files_of(tmp_path / "one")
    assert files_of(tmp_path / "local") == want
    assert files_of(tmp_path / "address") == want


def square(number: int) -> int:
    return number**2


def die(number: int) -> int:
    os._exit(number)


def refuse(number: int) -> int:
    raise ValueError(f"item {number} is refused")


@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_keep_their_order_and_items_are_taken_as_needed(num_workers: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    with open_workers(num_workers) as map_items:
        results = map_items(square, items())
        for number in range(1, 30):
            assert next(results) == number**2
            assert taken <= number + AHEAD * num_workers


def test_errors_of_a_worker_come_back() -> None:
    with pytest.raises(ValueError, match="item 3 is refused"), open_workers(2) as map_items:
        list(map_items(refuse, [3]))
    with pytest.raises(WorkerError, match=r"a worker process died, .*; give fewer --num_workers"):  # noqa: SIM117
        with open_workers(2) as map_items:
            list(map_items(die, [3]))


def test_a_scheduler_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(parallel, "CONNECT_SECONDS", 1)
    assert run_main(tmp_path / "out", "--dask", "tcp://127.0.0.1:1") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "error: no Dask scheduler answers at tcp://127.0.0.1:1; start one, or give --dask local"
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run_main(tmp_path / "out", "--dask", "local") == 1
    assert capsys.readouterr().err == "error: --dask needs an extra: pip install 'grpo-forecast[dask]'\n"


# Ends


def many_stocks(count: int) -> str:
    return ",".join(f"sim:gbm?rows=3000&seed={seed}" for seed in range(count))


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def has_rows(folder: Path) -> bool:
    return any(file.stat().st_size > 10_000 for file in folder.glob(".*"))


def heed_ctrl_c() -> None:
    """A shell starts its background jobs with SIGINT ignored, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("num_workers", ["1", "2"])
def test_an_interrupted_command_leaves_nothing(tmp_path: Path, number: signal.Signals, num_workers: str) -> None:
    out = tmp_path / "out"
    command = [*COMMAND, "--stock", many_stocks(100), "--output_dir", str(out), "--num_workers", num_workers]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_ctrl_c
    )
    wait_for(lambda: has_rows(out))
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1].endswith("error: interrupted; nothing was written")
    assert "Traceback" not in errors
    assert not out.exists()


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    command = [*COMMAND, "--stock", many_stocks(100), "--output_dir", str(tmp_path), "--num_workers", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for(lambda: has_rows(tmp_path))
    process.kill()
    process.wait(timeout=60)
    wait_for(lambda: not alive_in_session(process.pid))
    assert not [name for name in os.listdir(tmp_path) if not name.startswith(".")]


def alive_in_session(session: int) -> bool:
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the write fails in the kernel just so."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "from preprocessing.combined_preprocessor import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    for file_format in ("csv", "parquet"):
        arguments = (
            "--stock",
            "sim:gbm?rows=2000",
            "--output_dir",
            str(tmp_path / "out"),
            "--file_format",
            file_format,
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: there is no room for the files in {tmp_path / 'out'} (File too large); ")
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()


# Bars on the disk


def test_stored_bars_come_back_bit_by_bit(tmp_path: Path) -> None:
    bars = {name: parse_simulated_stock(name).bars() for name in ("sim:ou?rows=30", "sim:gbm?rows=50")}
    with (tmp_path / "store").open("w+b") as file:
        store = BarsStore(file)
        for name, table in bars.items():
            store.append(name, table)
        assert len(store) == 2
        for name, batch in store:
            from_store = from_batch(batch)
            assert from_store.index.equals(bars[name].index)
            for column in ("open", "high", "low", "close", "volume"):
                np.testing.assert_array_equal(from_store[column], bars[name][column])
