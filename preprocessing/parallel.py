"""One function over many items: in this process, in several, or on a Dask cluster.

Each way is a `map` that gives results in the order of the items, takes items only as it needs them and holds at
most AHEAD results per worker, so that memory does not grow with the number of items.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from preprocessing.errors import UserError
from preprocessing.files import JsonObject

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 3
"""Items per worker that are sent before their results are taken."""
CONNECT_SECONDS = 10
"""How long a Dask scheduler may take to answer."""


class Map(Protocol):
    """What `open_workers` gives: like the built-in `map` of one argument."""

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """Results in the order of the items."""
        ...


class WorkerError(UserError):
    """Workers cannot be had or have died; the message is one line with a way out."""


@contextmanager
def open_workers(num_workers: int = 1, dask: str | None = None) -> Iterator[Map]:
    """A `map` over workers that live as long as the block.

    Args:
        num_workers: processes on this machine; 1 works in this one.
        dask: address of a Dask scheduler (tcp://host:8786), which must reach the data folder under the same path,
            or `local` for a cluster of `num_workers` on this machine.

    Raises:
        WorkerError: no scheduler answers, Dask is not installed, or a worker has died.
    """
    if dask is not None:
        with _dask_executor(dask, num_workers) as (executor, cores):
            yield partial(_ordered_map, executor, AHEAD * cores)
    elif num_workers > 1:
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that Arrow's threads hold
        executor = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_start_worker)
        try:
            yield partial(_ordered_map, executor, AHEAD * num_workers)
        except BrokenProcessPool as error:
            raise WorkerError("a worker process died, perhaps for lack of memory; give fewer --num_workers") from error
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
    else:
        yield map


def _ordered_map(executor: Executor, ahead: int, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            # the oldest first, which keeps the order; the others work on meanwhile
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            # a consumer that stops early leaves work that nobody will take
            future.cancel()


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it even where it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        # not sys.exit, which would end this thread alone
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@contextmanager
def _dask_executor(address: str, num_workers: int) -> Iterator[tuple[Executor, int]]:
    """An executor on a Dask cluster, and its number of cores."""
    try:
        from distributed import Client, KilledWorker, LocalCluster
    except ImportError as error:
        raise WorkerError("--dask needs an extra: pip install 'grpo-forecast[dask]'") from error
    with ExitStack() as stack:
        # both classes can also be awaited, which hides their types from a checker
        try:
            cluster: Any = address
            if address == "local":
                settings: JsonObject = {"threads_per_worker": 1, "dashboard_address": None}
                with _ctrl_c_ignored():  # the workers inherit it
                    cluster = stack.enter_context(LocalCluster(n_workers=num_workers, **settings))
            client: Any = stack.enter_context(Client(cluster, timeout=CONNECT_SECONDS))
        except (OSError, ValueError) as error:
            raise WorkerError(f"no Dask scheduler answers at {address}; start one, or give --dask local") from error
        cores = sum(client.ncores().values())
        if cores == 0:
            raise WorkerError(
                f"the Dask scheduler at {address} has no workers; start some with `dask worker {address}`"
            )
        try:
            # not pure: Dask would otherwise give the kept result of an equal call on a file that has changed since
            yield client.get_executor(pure=False), cores
        except KilledWorker as error:
            raise WorkerError("a Dask worker died, perhaps for lack of memory; give it more") from error


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
