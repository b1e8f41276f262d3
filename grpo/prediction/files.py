"""What a forecast of the next days looks like on screen, as JSON and as a picture. No torch.

Letters: S valid samples, H horizon.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from preprocessing.files import write_atomically

QUANTILES = (0.01, 0.025, 0.05, *(round(0.05 * step, 2) for step in range(2, 19)), 0.95, 0.975, 0.99)
"""Levels written to the JSON file."""
BAR_NAMES = {"1d": "trading day", "1wk": "week", "1mo": "month", "3mo": "quarter", "1h": "hourly bar"}
_BANDS = ((0.025, 0.975, "95 % interval", 0.16), (0.1, 0.9, "80 % interval", 0.32), (0.25, 0.75, "50 % interval", 0.55))
_COLOUR, _MEDIAN_COLOUR = "#0072B2", "#08306B"


@dataclass(frozen=True, kw_only=True)
class PriceForecast:
    """The days after the last bar of one stock.

    Attributes:
        stock: its name.
        origin: last observed day, YYYY-MM-DD (with THH:MM where bars lie within a day).
        past: [L] closes that the forecaster saw, oldest first, on the basis of the adjusted close.
        dates: [H] the days (or times) ahead, in the same form, or None where the bars do not say which follow.
        samples: [S, H] sampled paths of prices, the valid answers alone.
        num_samples: answers asked for.
        seed: of the sampling.
        model: the base model.
        adapter: the adapter, or None.
        adapter_sha256: hash of the adapter's folder, or None.
        source: the file of the bars, or None.
        source_sha256: its hash, or None.
        first_date: first bar, in the same form.
        rows: number of bars.
        interval: of the bars: 1d, 1h, 1mo.
    """

    stock: str
    origin: str
    past: np.ndarray
    dates: tuple[str, ...] | None
    samples: np.ndarray
    num_samples: int
    seed: int
    model: str
    adapter: str | None
    adapter_sha256: str | None
    source: str | None
    source_sha256: str | None
    first_date: str
    rows: int
    interval: str | None = "1d"

    @property
    def bar(self) -> str:
        """What a bar is called: a day, a week, a 5min bar."""
        return BAR_NAMES.get(self.interval or "", f"{self.interval} bar" if self.interval else "bar")

    @property
    def last_close(self) -> float:
        """The close at the origin."""
        return float(self.past[-1])

    @property
    def median(self) -> np.ndarray:
        """[H] median price of each day."""
        return np.median(self.samples, axis=0)

    def quantile(self, level: float) -> np.ndarray:
        """[H] quantile of each day: the order statistic at level * (S + 1), which is unbiased in coverage."""
        return np.quantile(self.samples, level, axis=0, method="weibull")

    @property
    def quantiles(self) -> dict[float, np.ndarray]:
        """[H] each of `QUANTILES`."""
        return {level: self.quantile(level) for level in QUANTILES}


def price_text(price: float) -> str:
    """A price with two decimals, and below 10 with five digits, so that 1.10345 and 0.0000123 can be told."""
    decimals = 2 if abs(price) >= 10 or price == 0 else 4 - math.floor(math.log10(abs(price)))
    return f"{price:.{decimals}f}"


def to_table(forecast: PriceForecast) -> str:
    """The last close, then a line per day: date, median, 80 % interval and change of the median."""
    dates = forecast.dates or ("",) * forecast.samples.shape[1]
    wide = max(10, *map(len, dates))
    title = "day" if forecast.interval == "1d" else "bar"
    lines = [
        f"{forecast.stock}: last close {price_text(forecast.last_close)} on {forecast.origin}",
        f"{title:>4}  {'date':<{wide}}  {'median':>10}  {'80 % interval':>23}  {'change':>8}",
    ]
    rows = zip(dates, forecast.median, forecast.quantile(0.1), forecast.quantile(0.9), strict=True)
    for day, (date, *prices) in enumerate(rows, start=1):
        median, low, high = map(price_text, prices)
        change = prices[0] / forecast.last_close - 1
        lines.append(f"{day:>4}  {date:<{wide}}  {median:>10}  {low:>10} to {high:>9}  {change:>+8.2%}")
    valid = len(forecast.samples)
    if valid < forecast.num_samples:
        lines.append(
            f"{forecast.num_samples - valid} of {forecast.num_samples} answers were no forecast and are left out"
        )
    return "\n".join(lines)


def to_json(forecast: PriceForecast) -> str:
    """All quantiles and samples, and what they were made of."""
    values = {
        "stock": forecast.stock,
        "origin": forecast.origin,
        "last_close": forecast.last_close,
        "dates": forecast.dates,
        "median": forecast.median.tolist(),
        "quantiles": {f"{level:g}": values.tolist() for level, values in forecast.quantiles.items()},
        "samples": forecast.samples.tolist(),
        "valid_samples": len(forecast.samples),
        "num_samples": forecast.num_samples,
        "seed": forecast.seed,
        "price_basis": "adjusted close",
        "model": forecast.model,
        "adapter": forecast.adapter,
        "adapter_sha256": forecast.adapter_sha256,
        "source": forecast.source,
        "source_sha256": forecast.source_sha256,
        "first_date": forecast.first_date,
        "rows": forecast.rows,
        "interval": forecast.interval,
    }
    return json.dumps(values, indent=1, allow_nan=False) + "\n"


def draw(forecast: PriceForecast, path: Path) -> None:
    """The closes that were seen and the fan of what may follow, as PNG."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    horizon = forecast.samples.shape[1]
    days = np.arange(horizon + 1)
    for low, high, label, shade in _BANDS:
        # The last close belongs to the past and to the bands, so that they meet in the picture.
        lower, upper = (np.append(forecast.last_close, forecast.quantile(level)) for level in (low, high))
        axis.fill_between(days, lower, upper, color=_COLOUR, alpha=shade, linewidth=0, label=label)
    past = np.arange(1 - len(forecast.past), 1)
    axis.plot(past, forecast.past, color="#444444", linewidth=1.2, label="past closes")
    axis.plot(
        days, np.append(forecast.last_close, forecast.median), color=_MEDIAN_COLOUR, linewidth=1.8, label="median"
    )
    until = f", to {forecast.dates[-1]}" if forecast.dates else ""
    axis.set_title(f"{forecast.stock}: the {horizon} {forecast.bar}s after {forecast.origin}{until}", fontsize=11)
    axis.set_xlabel(f"{forecast.bar}s from the last close")
    axis.set_ylabel("price (adjusted close)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=5, frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=130)
    write_atomically(path, image.getvalue())
