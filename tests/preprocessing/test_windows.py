"""The CSV form of windows: bit-exact there and back, and every malformed file refused with its place."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preprocessing.windows import (
    FEATURES,
    Context,
    Truth,
    WindowsError,
    WindowSet,
    concatenate,
    read_windows,
    write_windows,
)

RNG = np.random.default_rng(11)


def make_set(rows: int = 5, length: int = 4, horizon: int = 3, item_id: str = "AAPL") -> WindowSet:
    origin = np.datetime64("2020-01-01", "ns") + np.arange(rows) * np.timedelta64(1, "D")
    return WindowSet(
        context=Context(
            item_id=(item_id,) * rows,
            origin=origin,
            past=np.exp(RNG.normal(size=(rows, length, 1))),
            features=RNG.normal(size=(rows, len(FEATURES))) * 10.0 ** RNG.integers(-12, 12, (rows, len(FEATURES))),
        ),
        truth=Truth(
            future=np.exp(RNG.normal(size=(rows, horizon))),
            dates=origin[:, None] + np.arange(1, horizon + 1) * np.timedelta64(1, "D"),
        ),
    )


def assert_equal(got: WindowSet, want: WindowSet) -> None:
    assert got.context.item_id == want.context.item_id
    for have, expect in (
        (got.context.origin, want.context.origin),
        (got.context.past, want.context.past),
        (got.context.features, want.context.features),
        (got.truth.future, want.truth.future),
        (got.truth.dates, want.truth.dates),
    ):
        assert have.dtype == expect.dtype
        np.testing.assert_array_equal(have, expect)


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "x.csv", tmp_path / "y.csv"


# A whole number, a tiny one, a huge one, one that needs 17 digits
HARD_NUMBERS = (3.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2)


def test_csv_reads_back_to_the_same_bits(paths: tuple[Path, Path]) -> None:
    want = make_set(400)
    want.context.features[0, :4] = HARD_NUMBERS
    want.context.past[0, :, 0] = HARD_NUMBERS
    write_windows(want, *paths)
    assert_equal(read_windows(*paths), want)


@pytest.mark.parametrize("item_id", ["NA", "NAN", "null", "TRUE", "007", "sim:ou?a=1&b=2", 'odd,"name"'])
def test_stock_names_stay_texts(paths: tuple[Path, Path], item_id: str) -> None:
    want = make_set(item_id=item_id)
    write_windows(want, *paths)
    assert_equal(read_windows(*paths), want)


def test_the_files_are_plain_csv_with_the_public_columns(paths: tuple[Path, Path]) -> None:
    windows = make_set(1, 2, 2)
    windows.context.past[0, :, 0] = [1.5, 2.25]
    windows.truth.future[0] = [3.0, 0.1]
    windows.context.features[0] = np.arange(len(FEATURES))
    write_windows(windows, *paths)
    with paths[0].open() as file:
        header, row = csv.reader(file)
    assert header == ["date", "stock", "sequence", *FEATURES]
    assert row[:3] == ["2020-01-01", "AAPL", "[1.5, 2.25]"]
    assert [float(cell) for cell in row[3:]] == list(range(len(FEATURES)))
    with paths[1].open() as file:
        assert list(csv.reader(file)) == [
            ["date", "stock", "sequence", "dates"],
            ["2020-01-01", "AAPL", "[3, 0.1]", '["2020-01-02", "2020-01-03"]'],
        ]


def edit(column: str, text: str, line: int = 3) -> Callable[[list[list[str]]], None]:
    """Replace one cell; lines are counted from 1, the header."""

    def apply(table: list[list[str]]) -> None:
        table[line - 1][table[0].index(column)] = text

    return apply


def drop_column(name: str) -> Callable[[list[list[str]]], None]:
    def apply(table: list[list[str]]) -> None:
        position = table[0].index(name)
        for row in table:
            del row[position]

    return apply


def drop_rows(first: int) -> Callable[[list[list[str]]], None]:
    def apply(table: list[list[str]]) -> None:
        del table[first:]

    return apply


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        ("x", drop_column("rsi"), r"x\.csv lacks the column\(s\) rsi\."),
        ("y", drop_column("dates"), r"y\.csv lacks the column\(s\) dates\."),
        ("x", drop_rows(4), r"x\.csv has 3 rows but .*y\.csv has 5; make both with one command\."),
        ("x", drop_rows(1), r"x\.csv has no rows: no window fits this split"),
        ("y", edit("date", "2021-01-01"), r"x\.csv and .*y\.csv disagree on date or stock in line 3\."),
        ("y", edit("stock", "MSFT"), r"disagree on date or stock in line 3\."),
        ("x", edit("sequence", "1 2 3 4"), r"x\.csv: line 3, column 'sequence' is not a JSON list of numbers\."),
        ("x", edit("sequence", '["a", 1, 1, 1]'), r"line 3, column 'sequence' is not a JSON list of numbers\."),
        ("x", edit("sequence", ""), r"line 3, column 'sequence' is not a JSON list of numbers\."),
        ("x", edit("sequence", "[1, NaN, 3, 4]"), r"line 3, column 'sequence' must hold finite positive prices\."),
        ("x", edit("sequence", "[1, 0, 3, 4]"), r"line 3, column 'sequence' must hold finite positive prices\."),
        ("x", edit("sequence", "7"), r"line 3, column 'sequence' must hold finite positive prices\."),
        ("x", edit("sequence", "[]", line=2), r"line 2, column 'sequence' must hold finite positive prices\."),
        ("x", edit("sequence", "[1, 2, 3]"), r"line 3, column 'sequence' has 3 values, the lines before have 4\."),
        ("y", edit("sequence", "[1, 2]"), r"y\.csv: line 3, column 'sequence' has 2 values"),
        ("x", edit("rsi", ""), r"x\.csv: line 3, column 'rsi' is not a finite number\."),
        ("x", edit("rsi", "nan"), r"line 3, column 'rsi' is not a finite number\."),
        ("x", edit("adx", "inf", line=6), r"line 6, column 'adx' is not a finite number\."),
        ("x", edit("cci", "high"), r"line 3, column 'cci' is not a finite number\."),
        ("y", edit("dates", "2020-01-03"), r"y\.csv: line 3, column 'dates' is not a JSON list of YYYY-MM-DD\."),
        ("y", edit("dates", '["2020-01-03", "soon", "later"]'), r"line 3, column 'dates' is not a JSON list of"),
        ("y", edit("dates", '["2020-01-03"]'), r"line 3, column 'dates' must hold one date per value"),
        ("y", edit("dates", '["2020-01-03", "2020-01-03", "2020-01-04"]'), r"line 3, column 'dates' must ascend"),
        ("y", edit("dates", '["2020-01-02", "2020-01-03", "2020-01-04"]'), r"must ascend and lie after 'date'\."),
        ("y", edit("dates", '["2020-01-03", "2020-01-04", "NaT"]'), r"line 3, column 'dates' must ascend"),
    ],
)
def test_malformed_files_are_refused(
    paths: tuple[Path, Path], which: str, change: Callable[[list[list[str]]], None], message: str
) -> None:
    write_windows(make_set(), *paths)
    path = paths["xy".index(which)]
    with path.open(newline="") as file:
        table = list(csv.reader(file))
    change(table)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(table)
    with pytest.raises(WindowsError, match=message):
        read_windows(*paths)


@pytest.mark.parametrize("text", ["03/01/2020", "", "2020-01"])
def test_origins_must_be_days(paths: tuple[Path, Path], text: str) -> None:
    write_windows(make_set(), *paths)
    for path in paths:
        path.write_text(path.read_text().replace('"2020-01-02","AAPL"', f'"{text}","AAPL"'))
    with pytest.raises(WindowsError, match=r"x\.csv: line 3, column 'date' must hold a day as YYYY-MM-DD\."):
        read_windows(*paths)


def test_files_that_are_no_csv_or_not_there_are_refused(paths: tuple[Path, Path]) -> None:
    with pytest.raises(WindowsError, match=r"x\.csv does not exist\. Make it with `python -m preprocessing"):
        read_windows(*paths)
    write_windows(make_set(), *paths)
    paths[1].write_bytes(b"\x89PNG\xff\xfe\n")
    with pytest.raises(WindowsError, match=r"y\.csv is not a readable CSV file"):
        read_windows(*paths)
    paths[1].write_text("")
    with pytest.raises(WindowsError, match=r"y\.csv is not a readable CSV file"):
        read_windows(*paths)


def test_take_and_concatenate_are_inverse() -> None:
    windows = make_set(6)
    assert_equal(concatenate([windows.take(np.arange(2)), windows.take(np.arange(2, 6))]), windows)
    odd = windows.take(np.arange(6) % 2 == 1)
    np.testing.assert_array_equal(odd.truth.future, windows.truth.future[[1, 3, 5]])
    np.testing.assert_array_equal(odd.context.last_price, windows.context.past[[1, 3, 5], -1, 0])
    np.testing.assert_array_equal(
        odd.context.feature("rsi"), windows.context.features[[1, 3, 5], FEATURES.index("rsi")]
    )
