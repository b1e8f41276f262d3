"""The picture of a window draws the numbers of the windows files, and nothing of the future but its candles."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from preprocessing.config import DataConfig
from preprocessing.indicators import compute_indicators
from preprocessing.plots import PlotConfig, describe, draw_window, find_origin, main
from preprocessing.scaling import StandardNorm
from preprocessing.simulation import parse_simulated_stock
from preprocessing.stock_windows import make_windows

STOCK = "sim:gbm?rows=300&seed=1"
BARS = parse_simulated_stock(STOCK).bars()
CONFIG = DataConfig()
ORIGIN = 200
LINES = {
    "SMA 20": "sma", "EMA 20": "ema", "RSI 14": "rsi", "MACD 12, 26": "macd", "signal 9": "macd_signal",
    "%K 14": "stoch_k", "%D 3": "stoch_d", "ADX 14": "adx", "CCI 20 (right)": "cci",
}  # fmt: skip


def lines_of(figure: Figure) -> dict[str, np.ndarray]:
    """The values of every line that a legend names."""
    lines = [line for axis in figure.axes for line in axis.lines]
    return {str(line.get_label()): np.asarray(line.get_xydata()) for line in lines}


def bodies_of(axis: Axes) -> dict[float, tuple[float, float]]:
    """The bottom and top of the body of each candle, by its day."""
    boxes = [bar.get_bbox() for container in axis.containers for bar in container]  # type: ignore
    return {round(box.x0 + box.width / 2, 6): (box.y0, box.y1) for box in boxes}


def test_the_lines_are_the_indicators_of_the_window() -> None:
    figure = draw_window(STOCK, BARS, ORIGIN, CONFIG)
    table, lines = compute_indicators(BARS).iloc[ORIGIN - 29 : ORIGIN + 1], lines_of(figure)
    for label, name in LINES.items():
        np.testing.assert_array_equal(lines[label][:, 0], np.arange(-29, 1))
        np.testing.assert_allclose(lines[label][:, 1], table[name], rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(lines["%R 14 (right)"][:, 1] - 100, table["willr"], atol=1e-9)


def test_candles_show_the_window_and_then_its_future() -> None:
    figure = draw_window(STOCK, BARS, ORIGIN, CONFIG)
    bodies = bodies_of(figure.axes[0])
    assert sorted(bodies) == list(range(-29, 11))
    for day, (bottom, top) in bodies.items():
        bar = BARS.iloc[ORIGIN + int(day)]
        assert (bottom, top) == pytest.approx(sorted((bar["open"], bar["close"])), rel=1e-12)


def test_at_the_end_there_is_less_future() -> None:
    for rows, last_day in ((ORIGIN + 4, 3), (ORIGIN + 1, 0)):
        assert max(bodies_of(draw_window(STOCK, BARS.iloc[:rows], ORIGIN, CONFIG).axes[0])) == last_day


def test_the_future_moves_nothing_but_its_own_candles() -> None:
    changed = BARS.copy()
    changed.iloc[ORIGIN + 1 :, :4] *= 1.5
    changed.iloc[ORIGIN + 1 :, 4] *= 9
    before, after = (draw_window(STOCK, bars, ORIGIN, CONFIG) for bars in (BARS, changed))
    for label, values in lines_of(before).items():
        np.testing.assert_array_equal(lines_of(after)[label], values, err_msg=label)
    text_before, text_after = (figure.axes[-1].texts[0].get_text() for figure in (before, after))
    assert text_before == text_after
    assert "VOLATILITY" in text_before
    past_before, past_after = ({d: b for d, b in bodies_of(f.axes[0]).items() if d <= 0} for f in (before, after))
    assert past_before == past_after
    assert bodies_of(before.axes[0])[1] != bodies_of(after.axes[0])[1]


def test_the_text_states_the_features() -> None:
    windows = make_windows(STOCK, BARS, CONFIG, StandardNorm(0.0, 1.0)).take(np.array([ORIGIN - CONFIG.first_origin]))
    lines = describe(windows.context).splitlines()

    def number(label: str) -> float:
        return float(next(line for line in lines if line.startswith(label))[len(label) :].split()[0])

    closes = BARS["close"].to_numpy()[ORIGIN - 29 : ORIGIN + 1]
    assert number("min") == pytest.approx(closes.min(), abs=0.005)
    assert number("last") == pytest.approx(closes[-1], abs=0.005)
    assert number("slope") == pytest.approx(np.polyfit(np.arange(30), closes, 1)[0], abs=0.0005)
    assert number("Yang-Zhang") == pytest.approx(100 * windows.context.feature("yang_zhang_volatility")[0], abs=0.005)
    assert number("rsi") == pytest.approx(compute_indicators(BARS)["rsi"].iloc[ORIGIN], abs=0.05)


def test_the_command_writes_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pictures" / "window.png"
    day = str(BARS.index[ORIGIN].date())
    assert main(["--stock", STOCK, "--date", day, "--output", str(path)]) == 0
    assert capsys.readouterr().out == f"written to {path}\n"
    pixels = imread(path)
    assert pixels.shape[:2] == (1210, 1540)
    assert 0.03 < (pixels[..., :3].min(axis=2) < 0.9).mean() < 0.5  # drawn, and mostly white


def test_bars_within_a_day_are_named_by_their_time() -> None:
    bars = BARS.set_index(pd.date_range("2020-01-01", periods=300, freq="h", name="date"))
    figure = draw_window("X", bars, ORIGIN, CONFIG)
    assert figure.get_suptitle() == "X: window with origin 2020-01-09T08:00"
    config = PlotConfig(stock="X", date="2020-01-09T08:00")
    assert find_origin("X", bars, config) == ORIGIN


FIRST, LAST = (str(BARS.index[row].date()) for row in (84, 299))


@pytest.mark.parametrize(
    ("day", "message"),
    [
        ("2000-10-08", "there is no bar; the nearest are 2000-10-06 and 2000-10-09."),
        ("2000-01-10", f"84 bars must lie before it; the nearest are {FIRST}."),
        ("1990-01-01", f"84 bars must lie before it; the nearest are {FIRST}."),
        ("2030-01-01", f"there is no bar; the nearest are {LAST}."),
    ],
)
def test_a_day_without_a_window_names_the_nearest(capsys: pytest.CaptureFixture[str], day: str, message: str) -> None:
    assert date.fromisoformat("2000-10-08").weekday() == 6
    assert main(["--stock", STOCK, "--date", day]) == 1
    assert capsys.readouterr().err == f"error: stock {STOCK} has no window with origin {day}: {message}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--stock", "sim:ou,sim:gbm", "--date", "2001-01-01"), 1, "stands for 2 stocks; a picture shows one."),
        (("--stock", "sim:xx", "--date", "2001-01-01"), 1, "unknown process 'xx'"),
        (("--stock", "A", "--data-dir", "nowhere", "--date", "2001-01-01"), 1, "data folder nowhere does not exist"),
        (("--stock", "sim:ou", "--date", "yesterday"), 2, "date must be YYYY-MM-DD or"),
        (("--stock", "sim:ou", "--date", "2001-01-01", "--output", "x.pdf"), 2, "output must end in .png; got x.pdf"),
    ],
)
def test_wrong_use_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(main(list(arguments)))
    assert stop.value.code == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
