"""The calendar cut: ratios, purge, embargo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.splits import assign_split, cut_calendar

DAYS = np.arange("2020-01-01", "2020-04-10", dtype="datetime64[D]").astype("datetime64[ns]")  # 100 days
assert len(DAYS) == 100


def targets(first: np.ndarray | list[int], horizon: int) -> np.ndarray:
    return DAYS[np.asarray(first)[:, None] + np.arange(horizon)]


def test_cuts_fall_at_the_ratios_of_the_days() -> None:
    cut = cut_calendar(DAYS, (0.7, 0.1, 0.2), 5)
    assert (cut.val_start, cut.test_start) == (DAYS[70], DAYS[80])
    assert (cut.val_first, cut.test_first) == (DAYS[75], DAYS[85])


def test_order_and_repeats_do_not_move_the_cut() -> None:
    pooled = np.concatenate([DAYS[::-1], DAYS[30:60], DAYS])
    assert cut_calendar(pooled, (0.7, 0.1, 0.2), 5) == cut_calendar(DAYS, (0.7, 0.1, 0.2), 5)


def test_windows_by_hand() -> None:
    """Cuts at days 70 and 80, embargo 2, horizon 3: a window is named by its first target day."""
    cut = cut_calendar(DAYS, (0.7, 0.1, 0.2), 2)
    first = [0, 66, 67, 68, 69, 70, 71, 72, 76, 77, 78, 79, 80, 81, 82, 97]
    want = ["train", "train", "train", "", "", "", "", "val", "val", "val", "", "", "", "", "test", "test"]
    assert assign_split(targets(first, 3), cut).tolist() == want


def test_an_empty_validation_span_gives_no_validation_window() -> None:
    cut = cut_calendar(DAYS, (0.8, 0.0, 0.2), 0)
    split = assign_split(targets(np.arange(98), 3), cut)
    assert [int((split == name).sum()) for name in ("train", "val", "test")] == [78, 0, 18]


@settings(max_examples=100, deadline=None)
@given(train=st.floats(0.1, 0.9), rest=st.floats(0.0, 1.0), embargo=st.integers(0, 40), horizon=st.integers(1, 20))
def test_splits_are_apart_in_time(train: float, rest: float, embargo: int, horizon: int) -> None:
    ratios = (train, (1 - train) * rest, (1 - train) * (1 - rest))
    cut = cut_calendar(DAYS, ratios, embargo)
    first = np.arange(len(DAYS) - horizon + 1)
    split = assign_split(targets(first, horizon), cut)
    ends = {name: first[split == name] + horizon - 1 for name in ("train", "val", "test")}
    starts = {name: first[split == name] for name in ("train", "val", "test")}
    day = {name: int(np.searchsorted(DAYS, value)) for name, value in vars(cut).items()}
    assert (ends["train"] < day["val_start"]).all()
    assert (ends["val"] < day["test_start"]).all()
    for earlier, later in (("train", "val"), ("val", "test"), ("train", "test")):
        if len(ends[earlier]) and len(starts[later]):
            assert starts[later].min() - ends[earlier].max() > embargo


@pytest.mark.parametrize(
    "ratios", [(0.7, 0.1, 0.1), (0.0, 0.5, 0.5), (1.1, -0.1, 0.0), (0.5, 0.5), (float("nan"), 0.5, 0.5)]
)
def test_ratios_that_divide_nothing_are_refused(ratios: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="three non-negative ratios that sum to 1 with train > 0"):
        cut_calendar(DAYS, ratios, 0)


def test_a_negative_embargo_is_refused() -> None:
    with pytest.raises(ValueError, match="embargo must be 0 or more bars; got -1"):
        cut_calendar(DAYS, (0.7, 0.1, 0.2), -1)
