"""A picture of one window: what may be seen at its origin, and what came after.

    python -m preprocessing.plots --stock AAPL --data-dir DIR --date 2016-05-02 --output window.png
    python -m preprocessing.plots --stock sim:ou --date 2003-03-03

Every number drawn or written is one that the windows files hold, made by the same code. Needs no display.

Letters: L window length, T bars.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from preprocessing.bars import MarketDataError
from preprocessing.command_line import parse_config
from preprocessing.config import DataConfig
from preprocessing.files import JsonObject, write_atomically
from preprocessing.indicators import compute_indicators
from preprocessing.market_data import load_stocks
from preprocessing.scaling import StandardNorm
from preprocessing.simulation import SimulationError
from preprocessing.statistics import TOP_LAGS
from preprocessing.stock_windows import make_contexts
from preprocessing.windows import Context

# Okabe and Ito (2008), told apart with any kind of colour vision; a falling bar is also the filled one.
_BLUE, _RED, _GREEN, _ORANGE, _PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
_FUTURE = "#ECECEC"
_LEGEND: JsonObject = {"fontsize": 9, "framealpha": 0.85, "edgecolor": "none"}
_DPI = 110


@dataclass(frozen=True, kw_only=True)
class PlotConfig(DataConfig):
    """One picture."""

    stock: str
    """A ticker, or a simulated stock (sim:ou)."""
    date: str
    """Origin of the window, its last bar that may be seen: YYYY-MM-DD, with the time for bars within a day."""
    output: Path = Path("window.png")
    """The picture to write, a PNG."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            np.datetime64(self.date, "ns")
        except ValueError as error:
            raise ValueError(f"date must be YYYY-MM-DD or YYYY-MM-DDTHH:MM; got '{self.date}'") from error
        if self.output.suffix.lower() != ".png":
            raise ValueError(f"output must end in .png; got {self.output}")


def find_origin(name: str, bars: pd.DataFrame, config: PlotConfig) -> int:
    """Row of the bar at `config.date`.

    Raises:
        MarketDataError: no window has its origin there; the message says why, and names the nearest that do.
    """
    times, wanted = bars.index.to_numpy(dtype="datetime64[ns]"), np.datetime64(config.date, "ns")
    row = int(np.searchsorted(times, wanted))
    if row < len(times) and times[row] == wanted and row >= config.first_origin:
        return row
    nearest = [r for r in (max(row - 1, config.first_origin), max(row, config.first_origin)) if r < len(times)]
    too_early = f"{config.first_origin} bars must lie before it"
    reason = too_early if row < config.first_origin else "there is no bar"
    there = " and ".join(dict.fromkeys(_time_text(times[r]) for r in nearest))
    raise MarketDataError(f"stock {name} has no window with origin {config.date}: {reason}; the nearest are {there}.")


def draw_window(name: str, bars: pd.DataFrame, origin: int, config: DataConfig) -> Figure:
    """The window of one stock that ends at row `origin`, with up to `config.horizon` bars of its future.

    Args:
        name: of the stock.
        bars: open, high, low, close, volume on one adjusted basis, indexed by ascending unique times.
        origin: row of the last bar that may be seen, not before `config.first_origin`.
        config: window, horizon, indicator periods.
    """
    known = bars.iloc[: origin + 1]  # nothing but the candles of the future comes from later bars
    # the picture has no training span: the scale is that of what may be seen
    norm = StandardNorm.fit(known["close"].to_numpy())
    context = make_contexts(name, known, config, norm, np.array([origin]))
    indicators = compute_indicators(known, config.indicators).iloc[-config.window :]
    days = np.arange(1 - config.window, 1)

    figure = Figure(figsize=(14, 11), layout="constrained")
    grid = figure.add_gridspec(6, 2, width_ratios=[4.2, 1], height_ratios=[4.2, 1, 1.2, 1.2, 1.2, 1.2])
    axes = [figure.add_subplot(grid[0, 0])]
    axes += [figure.add_subplot(grid[row, 0], sharex=axes[0]) for row in range(1, 6)]
    future = bars.iloc[origin + 1 : origin + 1 + config.horizon]
    _draw_prices(axes[0], known.iloc[-config.window :], future, indicators, days, config)
    _draw_volume(axes[1], known.iloc[-config.window :], days)
    _draw_oscillators(axes[2:], indicators, days, config)
    _label_times(axes, bars.index[origin + 1 - config.window : origin + 1 + len(future)], days[0], config.horizon)
    figure.suptitle(f"{name}: window with origin {_time_text(bars.index.to_numpy()[origin])}", fontsize=13)
    text = figure.add_subplot(grid[:, 1])
    text.axis("off")
    text.text(0, 1, describe(context), family="monospace", fontsize=9, va="top", transform=text.transAxes)
    return figure


def _draw_prices(
    axis: Axes, past: pd.DataFrame, future: pd.DataFrame, lines: pd.DataFrame, days: np.ndarray, config: DataConfig
) -> None:
    p = config.indicators
    axis.fill_between(days, lines["bbands_lower"], lines["bbands_upper"], color=_BLUE, alpha=0.08, linewidth=0)
    for edge in ("bbands_lower", "bbands_upper"):
        axis.plot(days, lines[edge], color=_BLUE, linewidth=0.8, linestyle=":")
    axis.plot([], [], color=_BLUE, linewidth=0.8, linestyle=":", label=f"Bollinger {p.bbands}, 2 sd")
    axis.plot(days, lines["sma"], color=_ORANGE, linewidth=1.6, label=f"SMA {p.sma}")
    axis.plot(days, lines["ema"], color=_GREEN, linewidth=1.6, linestyle="--", label=f"EMA {p.ema}")
    _draw_candles(axis, past, days, alpha=1.0)
    _draw_candles(axis, future, np.arange(1, len(future) + 1), alpha=0.55)
    axis.axhline(past["close"].iloc[-1], color="#444444", linewidth=0.8, linestyle=(0, (1, 3)), label="last close")
    axis.margins(y=0.12)  # the legend lies below
    axis.set_ylabel("adjusted price")
    axis.legend(loc="lower left", ncols=4, **_LEGEND)
    for x, side, text in ((0.3, "right", "may be seen"), (0.7, "left", "came after")):
        axis.text(x, 1.01, text, transform=axis.get_xaxis_transform(), ha=side, fontsize=10, color="#444444")
    hint = "hollow: close at or above open, filled: below"
    axis.text(0, 1.01, hint, transform=axis.transAxes, fontsize=9, color="#444444")


def _draw_candles(axis: Axes, bars: pd.DataFrame, days: np.ndarray, *, alpha: float) -> None:
    """Wicks and bodies: hollow and blue where the close is not below the open, else filled and red."""
    rises = (bars["close"] >= bars["open"]).to_numpy()
    for chosen, colour, fill in ((rises, _BLUE, "white"), (~rises, _RED, _RED)):
        part, x = bars[chosen], days[chosen]
        axis.vlines(x, part["low"], part["high"], color=colour, linewidth=1, alpha=alpha, zorder=3)
        axis.bar(
            x,
            np.abs(part["close"] - part["open"]),
            bottom=part[["open", "close"]].min(axis=1),
            width=0.6,
            facecolor=fill,
            edgecolor=colour,
            alpha=alpha,
            zorder=3,
        )


def _draw_volume(axis: Axes, past: pd.DataFrame, days: np.ndarray) -> None:
    rises = past["close"] >= past["open"]
    colours = [_BLUE if rise else _RED for rise in rises]
    faces = ["white" if rise else _RED for rise in rises]
    axis.bar(days, past["volume"], width=0.6, color=faces, edgecolor=colours)
    axis.set_ylabel("volume")
    axis.yaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_oscillators(axes: Sequence[Axes], lines: pd.DataFrame, days: np.ndarray, config: DataConfig) -> None:
    p = config.indicators
    rsi, macd, stochastic, strength = axes
    rsi.plot(days, lines["rsi"], color=_PURPLE, label=f"RSI {p.rsi}")
    _bounds(rsi, 30, 70)

    macd.bar(days, lines["macd_histogram"], width=0.6, color="#BBBBBB", label="histogram")
    macd.plot(days, lines["macd"], color=_BLUE, label=f"MACD {p.macd_fast}, {p.macd_slow}")
    macd.plot(days, lines["macd_signal"], color=_RED, linestyle="--", label=f"signal {p.macd_signal}")
    macd.axhline(0, color="#888888", linewidth=0.6)

    # Williams %R is %K less 100 where their periods are equal, so its scale is shifted and its line lies behind
    stochastic.plot(days, lines["willr"] + 100, color=_ORANGE, linewidth=4, alpha=0.4, label=f"%R {p.willr} (right)")
    stochastic.plot(days, lines["stoch_k"], color=_BLUE, linewidth=1.2, label=f"%K {p.stoch}")
    stochastic.plot(days, lines["stoch_d"], color=_RED, linestyle="--", label=f"%D {p.stoch_d}")
    _bounds(stochastic, 20, 80)
    stochastic.secondary_yaxis("right", functions=(_minus_100, _plus_100)).set_yticks([-80, -20])

    strength.plot(days, lines["adx"], color=_GREEN, label=f"ADX {p.adx}")
    strength.set_ylim(bottom=0)
    other = strength.twinx()
    other.plot(days, lines["cci"], color=_ORANGE, linestyle="--", label=f"CCI {p.cci} (right)")
    other.axhline(0, color="#888888", linewidth=0.6)
    handles, labels = (a + b for a, b in zip(*(x.get_legend_handles_labels() for x in (strength, other)), strict=True))
    for axis in axes[:-1]:
        axis.legend(loc="center left", **_LEGEND)
    other.legend(handles, labels, loc="center left", **_LEGEND)
    for axis, name in zip(axes, ("RSI", "MACD", "stochastic", "ADX, CCI"), strict=True):
        axis.set_ylabel(name)


def _minus_100(y: Any) -> Any:
    return y - 100


def _plus_100(y: Any) -> Any:
    return y + 100


def _bounds(axis: Axes, low: float, high: float) -> None:
    """An oscillator of range 0 to 100 with the lines beyond which it is called low or high."""
    axis.set_ylim(0, 100)
    axis.set_yticks([low, high])
    axis.axhspan(low, high, color="#888888", alpha=0.1, linewidth=0)


def _label_times(axes: Sequence[Axes], times: pd.Index, first: int, horizon: int) -> None:
    """Mark the future in every panel, leave room for the legends, and write times below the last."""
    room = 0.18 * len(times)
    for axis in axes:
        axis.set_xlim(first - room, horizon + 0.7)
        axis.axvspan(0.5, horizon + 0.7, color=_FUTURE, linewidth=0, zorder=0)
        axis.axvline(0.5, color="black", linewidth=1)
        axis.grid(axis="both", alpha=0.25)
        axis.tick_params(labelbottom=axis is axes[-1])
    every = max(1, len(times) // 9)
    shown = [day for day in range(first, first + len(times)) if day % every == 0]  # the origin is one of them
    axes[-1].set_xticks(shown, [_time_text(times.to_numpy()[day - first]) for day in shown], rotation=30, ha="right")


def describe(context: Context) -> str:
    """The statistics and volatilities of the first window as lines of text."""

    def value(name: str) -> float:
        return float(context.feature(name)[0])

    direction = {1.0: "up", -1.0: "down", 0.0: "level"}[value("trend_direction")]
    lines = [f"WINDOW OF {context.past.shape[1]} BARS", ""]
    for name in ("min", "max", "median"):
        lines.append(f"{name:9}{value(name):10.2f}  bar {value(f'{name}_timestep'):.0f}")
    lines += [f"mean     {value('mean'):10.2f}", f"last     {context.last_price[0]:10.2f}"]
    lines += ["         (bar 0 is the oldest)", "", "TREND", ""]
    lines += [f"slope    {value('trend'):10.3f}  per bar", f"R2       {value('trend_r2'):10.2f}"]
    lines += [f"direction{direction:>10}", "", "AUTOCORRELATION OF CLOSES", ""]
    for rank in range(1, TOP_LAGS + 1):
        lines.append(f"lag {value(f'top_lag_{rank}'):<5.0f}{value(f'top_lag_{rank}_correlation'):10.2f}")
    lines += ["", "VOLATILITY, % PER BAR", ""]
    names = {"volatility": "window", "yang_zhang_volatility": "Yang-Zhang", "ewma_volatility": "RiskMetrics"}
    for name, label in (names | {"past_volatility": "whole past"}).items():
        lines.append(f"{label:11}{100 * value(name):8.2f}")
    lines += ["", "WHOLE PAST", "", f"mean     {value('past_mean'):10.2f}"]
    lines += [f"sd       {100 * value('past_std'):10.2f}  %", f"AR(1)    {value('past_ar1'):10.3f}"]
    lines += [f"drift    {100 * value('past_drift'):10.3f}  % per bar"]
    for title, chosen in (("AVERAGES", ("sma", "ema")), ("MOMENTUM", ("mom", "macd", "macd_signal"))):
        lines += ["", title, "", *(f"{name:11}{value(name):8.2f}" for name in chosen)]
    lines += ["", "OSCILLATORS", ""]
    lines += [f"{name:11}{value(name):8.1f}" for name in ("rsi", "stoch_k", "stoch_d", "willr", "cci", "adx")]
    return "\n".join(lines)


def _time_text(time: np.datetime64) -> str:
    """YYYY-MM-DD, and the time of day unless it is midnight."""
    return np.datetime_as_string(time, unit="m").removesuffix("T00:00")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    config = parse_config(
        PlotConfig,
        argv,
        prog="python -m preprocessing.plots",
        description="Draw one window of one stock: prices, indicators, statistics, and what came after.",
        aliases={"root_path": "data_dir"},
    )
    try:
        stocks, _ = load_stocks(config.stock, config)
        if len(stocks) != 1:
            raise MarketDataError(f"stock '{config.stock}' stands for {len(stocks)} stocks; a picture shows one.")
        [(name, bars)] = stocks.items()
        figure = draw_window(name, bars, find_origin(name, bars, config), config)
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=_DPI)
        write_atomically(config.output, image.getvalue())
    except (MarketDataError, SimulationError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written to {config.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
