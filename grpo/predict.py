"""Forecast the days after the last bar of a CSV, from the command line or from Python.

    python -m grpo.predict --adapter models/embedded/AAPL/grpo_lora_2nd --csv AAPL.csv

    forecaster = load_forecaster("models/embedded/AAPL/grpo_lora_2nd")
    result = forecast_csv(forecaster, "AAPL.csv")
    result.dates, result.median, result.quantile(0.9), result.samples

What both do stands in `grpo.prediction.forecast`.
"""

from __future__ import annotations

import sys

from grpo.prediction.command import main
from grpo.prediction.forecast import StockForecaster, forecast_bars, forecast_csv, load_forecaster
from grpo.runs.log import stage_entry

__all__ = ["StockForecaster", "forecast_bars", "forecast_csv", "load_forecaster"]

if __name__ == "__main__":
    sys.exit(stage_entry(main))
