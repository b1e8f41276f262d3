"""The log of a run, and how a command ends: expected errors as one line, bugs with their traceback."""

from __future__ import annotations

import errno
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from grpo.runs.processes import rank
from preprocessing.errors import UserError

logger = logging.getLogger("grpo")


def stage_entry(main: Callable[[], None]) -> int:
    """Run a stage's `main` and turn expected errors into one line on standard error; gives the exit code.

    Expected are UserError, whoever raises it, and OSError. Anything else is a bug and keeps its traceback. pipeline.log
    gets the traceback of both.
    Use as `sys.exit(stage_entry(main))`.
    """
    try:
        main()
    except KeyboardInterrupt as interrupt:
        _report(str(interrupt) or "interrupted")
        # 128 + SIGINT, as a shell reports a command that Ctrl-C ended.
        return 130
    except Exception as error:
        if not isinstance(error, (UserError, OSError)):
            _report(f"unexpected {type(error).__name__}: {error}")
            raise
        _report(f"the disk is full, free space and run again: {error}" if _is_disk_full(error) else str(error))
        return 1
    return 0


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Say how to go on after a full disk, a lost process or Ctrl-C."""
    way_out = f"./run_pipeline.sh --resume {folder}"
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"interrupted; go on with: {way_out}") from interrupt
    except Exception as error:
        # Several processes on a CPU: this one only noticed that its partner is gone. On GPUs the launcher ends it.
        if "gloo/transport" in str(error):
            raise UserError(
                f"another process of this run ended, its message says why; go on with: {way_out}"
            ) from error
        if not (_is_disk_full(error) or _is_cut_short_save(error, folder)):
            raise
        raise UserError(f"disk full: free space on the disk of {folder} and go on with: {way_out}") from error


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # safetensors wraps the operating system's error in a class of its own
    return "No space left on device" in str(error)


def _is_cut_short_save(error: BaseException, folder: Path) -> bool:
    """Whether torch.save, which does not pass on why a write failed, stopped on a disk without space."""
    from_torch_save = any(sign in str(error) for sign in ("iostream error", "inline_container.cc"))
    # Under 1 MiB rather than 0: the piece that no longer fitted may have left a little free.
    return from_torch_save and folder.is_dir() and shutil.disk_usage(folder).free < 2**20


def _report(message: str) -> None:
    if not logger.handlers:
        start_logging(None)
    # One line, whatever a library puts into its message.
    logger.error(" ".join(message.split()), exc_info=True)


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the line: a full disk is reported by the stage's own writes, not by the log."""


class _Console(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Write to what sys.stderr is now, which progress bars and tests replace."""
        print(self.format(record), file=sys.stderr, flush=True)


class _ConsoleFormat(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One line, without the traceback that pipeline.log gets."""
        message = f"[process {rank()}] {record.getMessage()}" if rank() else record.getMessage()
        return f"{record.levelname.lower()}: {message}" if record.levelno >= logging.WARNING else message


def start_logging(folder: Path | None) -> None:
    """Send the log to standard error and, on rank 0, to the run's pipeline.log; other ranks only warn."""
    # The handlers of a stage that ran before in this process would write each line a second time, and into its folder.
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.INFO if rank() == 0 else logging.WARNING)
    # Libraries hang handlers on the root logger, which would print each line again.
    logger.propagate = False
    console = _Console()
    console.setFormatter(_ConsoleFormat())
    logger.addHandler(console)
    if folder is not None and rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        file = _LogFile(folder / "pipeline.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)
