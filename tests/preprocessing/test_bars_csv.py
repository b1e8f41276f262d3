"""Text files read at once and row by row: every file gives the same bars and the same words either way."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.bars import BarsReport, MarketDataError
from preprocessing.bars_files import StockFile, bars_of
from preprocessing.checks.bars import WHOLE
from preprocessing.market_data import read_bars
from preprocessing.reading.csv_files import quick_tables, read_text, row_tables
from tests.preprocessing.bar_files import HEADER, PLAIN


def outcome(path: Path, read: object) -> object:
    try:
        bars, report = read(path)  # type: ignore[operator]
    except MarketDataError as error:
        return str(error)
    return bars.to_numpy().tobytes(), bars.index.to_numpy().tobytes(), bars.dtypes.tolist(), bars.index.dtype, report


def row_by_row(path: Path) -> tuple[pd.DataFrame, BarsReport]:
    return bars_of(row_tables(path, read_text(path)), StockFile(path), WHOLE)


def test_shared_stocks_read_the_same_row_by_row(stocknet: Path) -> None:
    quick = 0
    for path in sorted(stocknet.glob("*.csv")):
        assert outcome(path, read_bars) == outcome(path, row_by_row), path.name
        quick += quick_tables(path, read_text(path)) is not None
    assert quick == 66  # all but the two with a row of nulls


NUMBERS = st.floats(min_value=1e-3, max_value=1e6).map(repr) | st.sampled_from(["10", "10.5", "11.25", "1e2"])
ODD = st.sampled_from(
    ['"9""', '9"', "", "null", "NaN", "inf", "-1", "0", "+7", " 8 ", "1_0", "x", '"9"', '"1,2"', "1e400", "１", "\t5"]
)
DATES = st.dates(pd.Timestamp("2019-12-25").date(), pd.Timestamp("2020-01-10").date()).map(str)
ODD_DATES = st.sampled_from(
    ["2020-02-30", "20200103", "2020/01/03", "03/04/2020", "2020-01-03 09:30:00", "2020-01-03T00:00:00",
     "2020-01-03 09:30:00-05:00", "2020-01-03 24:00:00", "2020-01-03 09:60:00", "2020-01-03 09:30:00+25:00",
     "1677-01-01", "2300-01-01", "", " 2020-01-03 ", "0000-00-00"]
)  # fmt: skip
TIMES = st.datetimes(pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-03")).map(lambda t: t.strftime("%F %T"))
CELLS = st.one_of(NUMBERS, NUMBERS, NUMBERS, ODD)
EVERY_DATE = st.one_of(DATES, DATES, DATES, ODD_DATES)
LINE = st.one_of(
    *[st.tuples(EVERY_DATE, *[CELLS] * 6).map(",".join)],
    st.sampled_from(["", "   ", ",,,,,,", "2020-01-03,1,2", "a,b,c,d,e,f,g,h"]),
)
# quotes matter in a column that is not read
NOTES = st.sampled_from(["", "ok", '"x', 'y"', '"z"', 'a"b', '"a"b', '""', '"p,q"', ' "', '"q""'])
NOTED = st.tuples(DATES, NOTES).map(lambda row: f"{row[0]},1,1,1,1,1,{row[1]}")
# rows whose open, high, low and close are one number pass every check
FLAT = st.tuples(EVERY_DATE | TIMES, NUMBERS, NUMBERS).map(
    lambda r: f"{r[0]},{r[1]},{r[1]},{r[1]},{r[1]},{r[1]},{r[2]}"
)
ZONED = st.tuples(TIMES, st.sampled_from(["-05:00", "+05:30", "+00:00"]), NUMBERS).map(
    lambda r: f"{r[0]}{r[1]},{r[2]},{r[2]},{r[2]},{r[2]},{r[2]},1"
)
TABLES = st.one_of(*[st.lists(kind, max_size=8) for kind in (LINE, FLAT | LINE, FLAT, ZONED, NOTED)])


@settings(max_examples=400, deadline=None)
@given(
    header=st.sampled_from([HEADER, HEADER, "", PLAIN + ",Note", PLAIN + ",Ticker", "\ufeff" + HEADER]),
    lines=TABLES,
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    last=st.booleans(),
)
def test_messy_files_read_the_same_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, header: str, lines: list[str], end: str, last: bool
) -> None:
    path = tmp_path_factory.mktemp("messy") / "A.csv"
    path.write_bytes((end.join([header, *lines]) + end * last).encode())
    assert outcome(path, read_bars) == outcome(path, row_by_row)
