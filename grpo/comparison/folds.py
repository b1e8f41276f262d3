"""The windows of a comparison: the test span as it was split, or walk-forward blocks of it."""

from __future__ import annotations

import dataclasses

import numpy as np

from grpo.evaluation.comparison import Fold
from grpo.runs.folder import RunPaths
from preprocessing.config import DataConfig
from preprocessing.errors import UserError
from preprocessing.splits import CalendarCut, SplitError, walk_forward_cuts
from preprocessing.stock_windows import fold_windows
from preprocessing.windows import WindowSet
from preprocessing.windows_reader import read_windows


def read_folds(paths: RunPaths, data: DataConfig, folds: int) -> list[Fold]:
    """The test span as it was split, as one fold, or as walk-forward blocks of it.

    Args:
        paths: of the windows.
        data: the settings that they were made with.
        folds: number of blocks, `compare.folds`.

    Raises:
        UserError: a block has no windows to train, validate or test on.
    """
    train, val, test = (
        read_windows(getattr(paths, f"{split}_x"), getattr(paths, f"{split}_y")) for split in ("train", "val", "test")
    )
    if folds == 1:
        return [Fold(1, train, val, test)]
    # all windows, those that the usual split purged included: other cuts purge others
    full = read_windows(paths.full_x, paths.full_y)
    try:
        cuts = _walk_forward(full, val, test, data_config_of(data, full).embargo_days, folds)
    except SplitError as error:
        raise UserError(str(error).replace("data.folds", "compare.folds")) from error
    blocks = []
    for number, cut in enumerate(cuts, start=1):
        # scaled anew by all that this fold may train on, which is more than the usual split had
        parts = fold_windows(full, cut)
        for name, windows in parts.items():
            if len(windows) == 0:
                raise UserError(f"compare.folds {len(cuts)}: fold {number} has no {name} windows; ask for fewer folds")
        blocks.append(Fold(number, parts["train"], parts["val"], parts["test"]))
    return blocks


def data_config_of(data: DataConfig, windows: WindowSet) -> DataConfig:
    """The settings of preprocessing, with the window length and horizon that the windows have."""
    return dataclasses.replace(data, window=windows.context.past.shape[1], horizon=windows.horizon)


def _walk_forward(full: WindowSet, val: WindowSet, test: WindowSet, embargo: int, folds: int) -> list[CalendarCut]:
    """Cuts of the span that `test` covers; validation before each block is as long as `val` is.

    Both spans begin `embargo` days before their first target, which is where the split that made them cut.
    """
    calendar = np.unique(np.concatenate([full.context.origin, full.truth.dates.ravel()]))
    val_start, test_start = (
        # the split left out `embargo` days after its cut, so its cut lies that far before the first target
        calendar[max(np.searchsorted(calendar, part.truth.dates.min()) - embargo, 0)].astype("datetime64[D]").item()
        for part in (val, test)
    )
    return walk_forward_cuts(calendar, DataConfig().split, embargo, folds, (val_start, test_start))
