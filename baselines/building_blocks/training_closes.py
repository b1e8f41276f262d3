"""The consecutive closes of each stock, put together again from its training windows.

Letters: B windows, L window length, H horizon, T days.
"""

from __future__ import annotations

import numpy as np

from preprocessing.windows import WindowSet


def longest_stretches(windows: WindowSet) -> dict[str, np.ndarray]:
    """The longest run of consecutive closes [T] of each stock, oldest first; stocks in sorted order.

    A window covers its L past closes and its H future ones. The next window of the stock joins on where its
    origin is one of those future days; with a stride above H it never is, and each window stands by itself.
    """
    items = np.array(windows.context.item_id)
    return {str(item): _longest(windows.take(items == item)) for item in np.unique(items)}


def _longest(windows: WindowSet) -> np.ndarray:
    """[T] the longest run of consecutive closes of one stock's windows."""
    windows = windows.take(np.argsort(windows.context.origin, kind="stable"))
    past, future = windows.context.past[:, :, 0], windows.truth.future
    is_next_origin = windows.truth.dates[:-1] == windows.context.origin[1:, None]  # [B - 1, H]
    # Where the next window begins among this one's future days: so many of them are new, 0 where it does not join on.
    days_ahead = np.where(is_next_origin.any(axis=1), is_next_origin.argmax(axis=1) + 1, 0)  # [B - 1]
    runs, begin = [], 0
    for end in [*(np.flatnonzero(days_ahead == 0) + 1), len(windows)]:
        # Of each window in a run only the days up to the next origin, and of the last one all.
        steps = [future[row, : days_ahead[row]] for row in range(begin, end - 1)]
        runs.append(np.concatenate([past[begin], *steps, future[end - 1]]))
        begin = end
    return max(runs, key=len)
