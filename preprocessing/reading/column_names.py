"""What the columns of a table of bars mean, by what their owner calls them: one table of spellings.

A name is compared by its key: lower case, without accents, brackets, numbering and signs, so that `<CLOSE>`,
`Adj. Close*`, `adj_close`, `1. open` and `Najwyższy` are known. Where two names mean the same column, the one of the
lower rank is taken (`Close` before `Settle` before `Last` before `Price`); two of rank 0 are refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

REQUIRED_COLUMNS = ("Date", "Close")
UNUSED = ""
"""What a column of no use means."""

SPELLINGS: tuple[tuple[str, int, str], ...] = (
    ("Date", 0, "date day dates ds dt data datum fecha dato tradedate tradingdate tradingday quotedate pricedate"),
    ("Date", 0, "observationdate sessiondate businessdate marketdate asofdate datadate caldt trddt 日期 交易日期"),
    ("Date", 1, "datetime datetimes timestamp timestamps datetimestamp utctime gmttime localtime opentime bartime"),
    ("Date", 1, "starttime candletime dateutc dategmt datetimeutc timestamputc timeutc timegmt beginsat 时间"),
    ("Date", 2, "unix epoch unixtime unixtimestamp unixms unixs unixseconds epochtime epochms epochs closetime t"),
    ("Time", 0, "time hour clock czas zeit uhrzeit hora heure ora godzina hhmm hhmmss"),
    ("Open", 0, "open o opening openprice openingprice priceopen pxopen otwarcie eroffnung eroffnungskurs erster"),
    ("Open", 0, "ouverture apertura abertura 开盘 开盘价"),
    (
        "High",
        0,
        "high h hi highest max highprice highestprice pricehigh pxhigh najwyzszy hoch hochstkurs plushaut haut",
    ),
    ("High", 0, "maximo massimo maxima 最高 最高价"),
    ("Low", 0, "low l lo lowest min lowprice lowestprice pricelow pxlow najnizszy tief tiefstkurs plusbas bas"),
    ("Low", 0, "minimo minima 最低 最低价"),
    (
        "Close",
        0,
        "close c closing cls closeprice closingprice priceclose zamkniecie schluss schlusskurs cloture cierre",
    ),
    ("Close", 0, "chiusura fechamento 收盘 收盘价"),
    ("Close", 1, "settle settlement settleprice settlementprice"),
    ("Close", 2, "last lastprice pxlast closelast letzter dernier ultimo ltp"),
    ("Close", 3, "price value y kurs prc px nav rate target observation"),
    ("Volume", 0, "tickvol tickvolume"),
    (
        "Volume",
        1,
        "volume vol v volumes wolumen volumen volumi sharevolume shares tottrdqty totalvolume stucke stuecke",
    ),
    ("Volume", 1, "成交量"),
    ("Volume", 2, "volumebtc volumeusd volumeusdt tradedvolume realvolume basevolume"),
    (
        "Ticker",
        0,
        "ticker symbol uniqueid tic tickersymbol stocksymbol stock stockcode stockid tscode itemid instrument",
    ),
    ("Ticker", 0, "asset securityid seriesid permno isin sym 股票代码 证券代码"),
    ("Ticker", 1, "name code security company"),
    ("Period", 0, "per period"),
    ("Open Interest", 0, "openint openinterest"),
    ("Capital Gains", 0, "capitalgains"),
    ("Dividends", 0, "dividends dividend dividendamount divcash exdividend"),
    ("Stock Splits", 0, "stocksplits stocksplit splitcoefficient splitfactor splitratio splits split"),
    (UNUSED, 0, "vwap vw change changes chg pctchange pctchg changepercent amount turnover trades spread"),
)
"""What columns mean, their rank, and the keys of their names."""
RULES = (
    ("Adj Close", re.compile(r"(adj|adjd|adjusted|backadjusted)(c|cls|(close|closing|last|price|prc|nav)(price)?)")),
    ("Adj Close", re.compile(r"(close|closing|cls|price|last)(price)?(adj|adjusted)")),
    # parts of an adjustment that the close alone tells, and prices of another bar
    (UNUSED, re.compile(r"(adj|adjusted)(open|high|low|vol|volume|vwap)|(open|high|low|vol|volume)(adj|adjusted)")),
    (UNUSED, re.compile(r"(prev|previous|prior|pre)(day)?(close|closing|settle|open)\w*")),
)
"""The same by rule, where spellings are many."""
KNOWN = {key: (meaning, rank) for meaning, rank, keys in SPELLINGS for key in keys.split()}
CHANGES_MEANING = re.compile(r"adj|split|divid|factor|ratio|cfac|coeff|multipl|bonus")
"""A column of an unknown name that holds one of these may change what the prices mean."""
YFINANCE_KEYS = frozenset({"dividends", "stocksplits", "capitalgains"})


class ColumnsError(ValueError):
    """Columns that are no bars; the message follows the name of the file."""


class RepeatedColumnError(ColumnsError):
    """Two columns of one name."""


@dataclass(frozen=True)
class Columns:
    """What the columns of a table mean."""

    positions: Mapping[str, int]
    """Of the columns that are known, by the name used here."""
    names: Mapping[str, str]
    """What their owner calls them."""
    layout: str
    """yahoo, yfinance, stooq or plain; see `preprocessing.bars.BarsReport`."""
    unread: tuple[str, ...]
    """Columns of unknown names that may change the meaning of the others."""


def key_of(name: str) -> str:
    """What is compared of a name."""
    # NFKD takes accents off letters, but these two are letters of their own
    plain = unicodedata.normalize("NFKD", name.replace("ł", "l").replace("ß", "ss").lower())
    plain = re.sub(r"\([a-z$€£¥]{1,4}\)|^\d+[a-z]?\. ", "", plain.strip())
    return re.sub(r"[\W_]", "", plain)


@lru_cache(maxsize=1024)
def meaning_of(name: str) -> tuple[str | None, int]:
    """The name used here and its rank; (None, 0) for what is not known."""
    key = key_of(name)
    by_rule = next(((meaning, 0) for meaning, rule in RULES if rule.fullmatch(key)), (None, 0))
    return KNOWN.get(key, by_rule)


@lru_cache(maxsize=64)
def recognise(names: tuple[str, ...]) -> Columns:
    """What columns of these names mean.

    Raises:
        RepeatedColumnError: two are the same.
        ColumnsError: a required one is missing.
    """
    meanings = [meaning_of(name) for name in names]
    chosen: dict[str, tuple[int, int]] = {}  # rank and position
    for position, (meaning, rank) in enumerate(meanings):
        if not meaning:
            continue
        other = chosen.get(meaning)
        # two proper names of one column: taking either would be a guess
        if other and other[0] == rank == 0:
            raise RepeatedColumnError(f"names the column {meaning} twice; delete or rename one of them.")
        if other is None or rank < other[0]:
            chosen[meaning] = (rank, position)
    positions = {name: position for name, (_, position) in sorted(chosen.items(), key=lambda item: item[1][1])}
    _settle_dates_and_closes(positions, names, meanings)
    missing = [name for name in REQUIRED_COLUMNS if name not in positions]
    if missing:
        found = ", ".join(names)
        raise ColumnsError(
            f"lacks the column(s) {', '.join(missing)}; it has: {found[:100]}{'...' * (len(found) > 100)}. The first "
            "line must name Date and Close, and may name Open, High, Low, Adj Close, Volume and Ticker."
        )
    keys = [key_of(name) for name in names]
    return Columns(
        positions=positions,
        names={name: names[position] for name, position in positions.items()},
        layout=_layout(positions, keys),
        unread=tuple(
            name
            for name, key, (meaning, _) in zip(names, keys, meanings, strict=True)
            if meaning is None and CHANGES_MEANING.search(key)
        ),
    )


def _settle_dates_and_closes(
    positions: dict[str, int], names: Sequence[str], meanings: Sequence[tuple[str | None, int]]
) -> None:
    """Find the date and the close where no column is called so, but there is no doubt."""
    if "Date" not in positions and "Time" in positions:
        positions["Date"] = positions.pop("Time")
    unnamed = [i for i, name in enumerate(names) if name.startswith("__index_level_")]
    if names and (not names[0].strip() or names[0].startswith("Unnamed:")):
        unnamed = [0]
    if "Date" not in positions and unnamed:
        positions["Date"] = unnamed[0]
    if "Close" in positions:
        return
    # without other prices the adjusted close is all there is, and nothing has to be adjusted to it
    if "Adj Close" in positions and not {"Open", "High", "Low"} & positions.keys():
        positions["Close"] = positions.pop("Adj Close")
    # a date and one column of any other name: FRED's DATE,DEXUSEU
    others = [i for i, (meaning, _) in enumerate(meanings) if meaning is None and names[i].strip()]
    if len(others) == 1 and positions.keys() <= {"Date", "Ticker"} and "Date" in positions and len(names) <= 3:
        positions["Close"] = others[0]


def _layout(positions: Mapping[str, int], keys: Sequence[str]) -> str:
    if "Period" in positions or "Open Interest" in positions:
        return "stooq"
    if YFINANCE_KEYS & {*keys} or keys[positions["Date"]] == "datetime":
        return "yfinance"
    return "yahoo" if "Adj Close" in positions else "plain"
