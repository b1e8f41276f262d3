"""The calendar cut: ratios, purge, embargo."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.splits import SplitError, assign_split, cut_calendar, parse_split_dates, walk_forward_cuts

DAYS = np.arange("2020-01-01", "2020-04-10", dtype="datetime64[D]").astype("datetime64[ns]")  # 100 days
assert len(DAYS) == 100


def targets(first: np.ndarray | list[int], horizon: int) -> np.ndarray:
    return DAYS[np.asarray(first)[:, None] + np.arange(horizon)]


def test_cuts_fall_at_the_ratios_of_the_days() -> None:
    cut = cut_calendar(DAYS, (0.7, 0.1, 0.2), 5)
    assert (cut.val_start, cut.test_start) == (DAYS[70], DAYS[80])
    assert (cut.val_first, cut.test_first) == (DAYS[75], DAYS[85])
    assert cut.test_end == np.datetime64("2020-04-10")  # the day after the last


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


# Dates


def test_cuts_fall_on_the_days_named_or_the_next_there_are() -> None:
    days = np.delete(DAYS, 60)  # without 2020-03-01
    cut = cut_calendar(days, (0.7, 0.1, 0.2), 1, (date(2020, 2, 10), date(2020, 3, 1)))
    assert [str(day)[:10] for day in vars(cut).values()] == [
        *("2020-02-10", "2020-03-02", "2020-02-11", "2020-03-03", "2020-04-10")
    ]


@pytest.mark.parametrize(
    "dates",
    [
        (date(2020, 1, 1), date(2020, 3, 1)),
        (date(2020, 2, 1), date(2020, 4, 10)),
        (date(1999, 1, 1), date(2000, 1, 1)),
    ],
)
def test_dates_that_leave_a_span_empty_are_refused(dates: tuple[date, date]) -> None:
    with pytest.raises(
        SplitError, match="must leave days before, between and after them; the bars run from 2020-01-01"
    ):
        cut_calendar(DAYS, (0.7, 0.1, 0.2), 0, dates)


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        (("2020-02-30", "2020-03-01"), "must be two days as YYYY-MM-DD; got 2020-02-30, 2020-03-01"),
        (("2020-02-01",), "must be two days"),
        (("2020-03-01", "2020-03-01"), "must ascend; got 2020-03-01 and 2020-03-01"),
    ],
)
def test_texts_that_are_no_two_days_are_refused(dates: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_split_dates(dates)


# Walk-forward folds


def day_numbers(cut: object) -> dict[str, int]:
    return {name: int(np.searchsorted(DAYS, value)) for name, value in vars(cut).items()}


def test_folds_by_hand() -> None:
    """Val 10 days, test days 80 to 99 in three blocks of 6, 7 and 7 days, embargo 2."""
    folds = walk_forward_cuts(DAYS, (0.7, 0.1, 0.2), 2, 3)
    want = [(70, 80, 72, 82, 86), (76, 86, 78, 88, 93), (83, 93, 85, 95, 100)]
    assert [tuple(day_numbers(cut).values()) for cut in folds] == want
    # horizon 3: a window is named by its first target day
    first = [69, 73, 74, 75, 76, 77, 78, 83, 84, 85, 86, 87, 88, 90, 91, 92, 93]
    want_second = ["train", "train", *[""] * 4, "val", "val", *[""] * 4, "test", "test", "", "", ""]
    assert assign_split(targets(first, 3), folds[1]).tolist() == want_second


def test_one_fold_is_the_single_cut() -> None:
    for dates in (None, (date(2020, 2, 10), date(2020, 3, 1))):
        cut = cut_calendar(DAYS, (0.7, 0.1, 0.2), 5, dates)
        assert walk_forward_cuts(DAYS, (0.7, 0.1, 0.2), 5, 1, dates) == [cut]


@settings(max_examples=100, deadline=None)
@given(
    train=st.floats(0.1, 0.8),
    val=st.floats(0.0, 0.5),
    embargo=st.integers(0, 30),
    horizon=st.integers(1, 15),
    folds=st.integers(1, 10),
)
def test_every_fold_trains_before_it_validates_before_it_tests(
    train: float, val: float, embargo: int, horizon: int, folds: int
) -> None:
    ratios = (train, (0.9 - train) * val, 1 - train - (0.9 - train) * val)
    single = day_numbers(cut_calendar(DAYS, ratios, embargo))
    cuts = [day_numbers(cut) for cut in walk_forward_cuts(DAYS, ratios, embargo, folds)]
    # the blocks are the test span, in order, without a gap, equal in days to within one
    assert [cut["test_start"] for cut in cuts] == [single["test_start"], *(cut["test_end"] for cut in cuts[:-1])]
    assert cuts[-1]["test_end"] == 100
    lengths = [cut["test_end"] - cut["test_start"] for cut in cuts]
    assert max(lengths) - min(lengths) <= 1
    assert {cut["test_start"] - cut["val_start"] for cut in cuts} == {single["test_start"] - single["val_start"]}
    first = np.arange(len(DAYS) - horizon + 1)
    for number, cut in enumerate(walk_forward_cuts(DAYS, ratios, embargo, folds)):
        split = assign_split(targets(first, horizon), cut)
        days = {name: first[split == name] for name in ("train", "val", "test")}
        for earlier, later in (("train", "val"), ("val", "test"), ("train", "test")):
            if len(days[earlier]) and len(days[later]):
                assert days[later].min() - (days[earlier].max() + horizon - 1) > embargo
        if len(days["test"]):
            assert days["test"].min() >= cuts[number]["test_start"] + embargo
            assert days["test"].max() + horizon - 1 < cuts[number]["test_end"]


def test_more_folds_than_test_days_are_refused() -> None:
    assert len(walk_forward_cuts(DAYS, (0.7, 0.1, 0.2), 0, 20)) == 20
    with pytest.raises(SplitError, match=r"data\.folds must be from 1 to 20, the days of the test span; got 21"):
        walk_forward_cuts(DAYS, (0.7, 0.1, 0.2), 0, 21)


@pytest.mark.parametrize(
    "ratios", [(0.7, 0.1, 0.1), (0.0, 0.5, 0.5), (1.1, -0.1, 0.0), (0.5, 0.5), (float("nan"), 0.5, 0.5)]
)
def test_ratios_that_divide_nothing_are_refused(ratios: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="three non-negative ratios that sum to 1 with train > 0"):
        cut_calendar(DAYS, ratios, 0)


def test_a_negative_embargo_is_refused() -> None:
    with pytest.raises(ValueError, match="embargo must be 0 or more bars; got -1"):
        cut_calendar(DAYS, (0.7, 0.1, 0.2), -1)
