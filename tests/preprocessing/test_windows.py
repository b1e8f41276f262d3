"""The CSV form of windows: bit-exact there and back, and every malformed file refused with its place."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preprocessing import windows_writer
from preprocessing.variance_memories import MEMORIES
from preprocessing.windows import FEATURES, Context, Truth, WindowsError, WindowSet, concatenate
from preprocessing.windows_reader import read_windows
from preprocessing.windows_writer import EncodedRows, FileFormat, WindowsWriter, encode, write_windows

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
            next_open=np.exp(RNG.normal(size=rows)),
        ),
    )


def with_truth(windows: WindowSet, **fields: np.ndarray | None) -> WindowSet:
    return dataclasses.replace(windows, truth=dataclasses.replace(windows.truth, **fields))


def at_times(windows: WindowSet, step: np.timedelta64) -> WindowSet:
    """The same windows with bars every `step` from half past nine."""
    origin = np.datetime64("2020-01-01T09:30", "ns") + np.arange(len(windows)) * step
    dates = origin[:, None] + np.arange(1, windows.horizon + 1) * step
    context = dataclasses.replace(windows.context, origin=origin)
    return dataclasses.replace(windows, context=context, truth=dataclasses.replace(windows.truth, dates=dates))


def assert_equal(got: WindowSet, want: WindowSet) -> None:
    assert got.context.item_id == want.context.item_id
    for have, expect in (
        (got.context.origin, want.context.origin),
        (got.context.past, want.context.past),
        (got.context.features, want.context.features),
        (got.truth.future, want.truth.future),
        (got.truth.dates, want.truth.dates),
        (got.truth.next_open, want.truth.next_open),
    ):
        assert have is not None
        assert expect is not None
        assert have.dtype == expect.dtype
        np.testing.assert_array_equal(have, expect)


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "x.csv", tmp_path / "y.csv"


@pytest.fixture(params=["csv", "parquet"])
def any_paths(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    return tmp_path / f"x.{request.param}", tmp_path / f"y.{request.param}"


# A whole number, a tiny one, a huge one, one that needs 17 digits
HARD_NUMBERS = (3.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2)


def test_files_read_back_to_the_same_bits(any_paths: tuple[Path, Path]) -> None:
    want = make_set(400)
    want.context.features[0, :4] = HARD_NUMBERS
    want.context.past[0, :, 0] = HARD_NUMBERS
    write_windows(want, *any_paths)
    assert_equal(read_windows(*any_paths), want)


@pytest.mark.parametrize("step", [np.timedelta64(5, "m"), np.timedelta64(1, "s"), np.timedelta64(1_000_000_001, "ns")])
def test_times_read_back_to_the_same_bits(any_paths: tuple[Path, Path], step: np.timedelta64) -> None:
    want = at_times(make_set(300), step)
    write_windows(want, *any_paths)
    assert_equal(read_windows(*any_paths), want)


def test_times_are_written_as_short_as_they_can_be(paths: tuple[Path, Path]) -> None:
    for step, text in (
        (np.timedelta64(5, "m"), "2020-01-01T09:35:00"),
        (np.timedelta64(1, "ns"), "09:30:00.000000001"),
    ):
        write_windows(at_times(make_set(2, horizon=1), step), *paths)
        assert f'"[""{text}""]"' in paths[1].read_text().replace("2020-01-01T09:30:00.0", "09:30:00.0")


def test_files_without_next_open_are_read(any_paths: tuple[Path, Path]) -> None:
    want = with_truth(make_set(5), next_open=None)
    write_windows(want, *any_paths)
    got = read_windows(*any_paths)
    assert got.truth.next_open is None
    np.testing.assert_array_equal(got.truth.future, want.truth.future)
    assert got.take(np.arange(2)).truth.next_open is None
    assert concatenate([got, got]).truth.next_open is None
    with pytest.raises(ValueError, match="some of these windows have next_open and some have not"):
        concatenate([got, make_set(5)])


def append_all(parts: list[EncodedRows], paths: tuple[Path, Path]) -> list[bytes]:
    with paths[0].open("wb") as x_file, paths[1].open("wb") as y_file, WindowsWriter(x_file, y_file) as writer:
        for part in parts:
            writer.append(part)
    return [path.read_bytes() for path in paths]


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_appending_gives_the_bytes_of_writing_at_once(
    tmp_path: Path, file_format: FileFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows_writer, "ROWS_PER_GROUP", 7)
    windows, paths = make_set(40), (tmp_path / f"x.{file_format}", tmp_path / f"y.{file_format}")
    write_windows(windows, *paths)
    at_once = [path.read_bytes() for path in paths]
    every = {"all": np.ones(1, dtype=bool)}
    ones = [encode(windows.take(np.array([row])), every, file_format)["all"] for row in range(40)]
    assert append_all(ones, paths) == at_once
    # choices of one encoding, an empty one among them
    halves = encode(
        windows, {"a": np.arange(40) < 11, "none": np.zeros(40, bool), "b": np.arange(40) >= 11}, file_format
    )
    assert append_all([halves["a"], halves["none"], halves["b"]], paths) == at_once


def test_a_stock_with_a_line_break_in_its_name_is_refused(paths: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match=r"stock 'a\\nb' has a line break in its name"):
        write_windows(make_set(item_id="a\nb"), *paths)
    assert not paths[0].exists()


@pytest.mark.parametrize("item_id", ["NA", "NAN", "null", "TRUE", "007", "sim:ou?a=1&b=2", 'odd,"name"'])
def test_stock_names_stay_texts(paths: tuple[Path, Path], item_id: str) -> None:
    want = make_set(item_id=item_id)
    write_windows(want, *paths)
    assert_equal(read_windows(*paths), want)


def test_the_files_are_plain_csv_with_the_public_columns(paths: tuple[Path, Path]) -> None:
    windows = make_set(1, 2, 2)
    windows.context.past[0, :, 0] = [1.5, 2.25]
    windows.truth.future[0] = [3.0, 0.1]
    assert windows.truth.next_open is not None
    windows.truth.next_open[0] = 2.5
    windows.context.features[0] = np.arange(len(FEATURES))
    write_windows(windows, *paths)
    with paths[0].open() as file:
        header, row = csv.reader(file)
    assert header == ["date", "stock", "sequence", *FEATURES]
    assert row[:3] == ["2020-01-01", "AAPL", "[1.5, 2.25]"]
    assert [float(cell) for cell in row[3:]] == list(range(len(FEATURES)))
    with paths[1].open() as file:
        assert list(csv.reader(file)) == [
            ["date", "stock", "sequence", "dates", "next_open"],
            ["2020-01-01", "AAPL", "[3, 0.1]", '["2020-01-02", "2020-01-03"]', "2.5"],
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
        ("x", edit("sequence", "[1, 2, 3]"), r"line 3, column 'sequence' has 3 values, the rows before have 4\."),
        ("y", edit("sequence", "[1, 2]"), r"y\.csv: line 3, column 'sequence' has 2 values"),
        ("x", edit("rsi", ""), r"x\.csv: line 3, column 'rsi' is not a finite number\."),
        ("x", edit("rsi", "nan"), r"line 3, column 'rsi' is not a finite number\."),
        ("x", edit("adx", "inf", line=6), r"line 6, column 'adx' is not a finite number\."),
        ("x", edit("cci", "high"), r"line 3, column 'cci' is not a finite number\."),
        ("y", edit("dates", "2020-01-03"), r"y\.csv: line 3, column 'dates' is not a JSON list of YYYY-MM-DD or"),
        ("y", edit("dates", '["2020-01-03", "soon", "later"]'), r"line 3, column 'dates' is not a JSON list of"),
        ("y", edit("dates", '["2020-01-03"]'), r"line 3, column 'dates' must hold one date per value"),
        ("y", edit("dates", '["2020-01-03", "2020-01-03", "2020-01-04"]'), r"line 3, column 'dates' must ascend"),
        ("y", edit("dates", '["2020-01-02", "2020-01-03", "2020-01-04"]'), r"must ascend and lie after 'date'\."),
        ("y", edit("dates", '["2020-01-03", "2020-01-04", "NaT"]'), r"line 3, column 'dates' is not a JSON list of"),
        ("y", edit("dates", '["2020-01", "2020-02", "2020-03"]'), r"line 3, column 'dates' is not a JSON list of"),
        ("y", edit("dates", '["9999-01-03", "9999-01-04", "9999-01-05"]'), r"line 3, column 'dates' "),
        ("y", edit("next_open", "0"), r"y\.csv: line 3, column 'next_open' is not a positive price\."),
        ("y", edit("next_open", ""), r"line 3, column 'next_open' is not a positive price\."),
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


@pytest.mark.parametrize("text", ["03/01/2020", "", "2020-01", "2020-01-02T09", "2020-13-01"])
def test_origins_must_be_dates(paths: tuple[Path, Path], text: str) -> None:
    write_windows(make_set(), *paths)
    for path in paths:
        path.write_text(path.read_text().replace('"2020-01-02","AAPL"', f'"{text}","AAPL"'))
    with pytest.raises(WindowsError, match=r"x\.csv: line 3, column 'date' must hold a day as YYYY-MM-DD or"):
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


def test_bad_parquet_is_refused_by_row(tmp_path: Path) -> None:
    paths = tmp_path / "x.parquet", tmp_path / "y.parquet"
    windows = make_set(5)
    windows.truth.future[3, 1] = -1.0
    write_windows(windows, *paths)
    with pytest.raises(WindowsError, match=r"y\.parquet: row 4, column 'sequence' must hold finite positive prices"):
        read_windows(*paths)
    windows = make_set(5)
    windows.truth.dates[2, 1] = windows.truth.dates[2, 0]
    write_windows(windows, *paths)
    with pytest.raises(WindowsError, match=r"y\.parquet: row 3, column 'dates' must ascend"):
        read_windows(*paths)
    paths[0].write_text("date,stock\n")
    with pytest.raises(WindowsError, match=r"x\.parquet is not a readable Parquet file"):
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


def with_memories(windows: WindowSet) -> WindowSet:
    memories = RNG.normal(size=(len(windows), len(MEMORIES)))
    return dataclasses.replace(windows, context=dataclasses.replace(windows.context, memories=memories))


def test_memories_stand_beside_the_features_and_read_back(any_paths: tuple[Path, Path]) -> None:
    want = with_memories(make_set(5))
    write_windows(want, *any_paths)
    got = read_windows(*any_paths)
    assert_equal(got, want)
    np.testing.assert_array_equal(got.context.memories, want.context.memories)
    both = concatenate([got.take(np.arange(3, 5)), got.take(np.arange(3))]).context.memories
    assert want.context.memories is not None
    np.testing.assert_array_equal(both, want.context.memories[[3, 4, 0, 1, 2]])


def test_files_without_memories_are_read_and_some_of_them_are_refused(paths: tuple[Path, Path]) -> None:
    plain, known = make_set(5), with_memories(make_set(5))
    write_windows(plain, *paths)
    assert read_windows(*paths).context.memories is None
    with pytest.raises(ValueError, match="some of these windows have memories and some have not"):
        concatenate([plain, known])
    write_windows(known, *paths)
    paths[0].write_text(paths[0].read_text().replace(f",{MEMORIES[2]},", ",other,"))
    with pytest.raises(WindowsError, match=rf"x\.csv has only some of the columns .*: it lacks {MEMORIES[2]}\. Give"):
        read_windows(*paths)
