"""The command of predictions: every stock that the flags name, one after the other."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from tqdm import tqdm

from grpo.prediction.files import draw, to_json, to_table
from grpo.prediction.forecast import PredictConfig, PredictionError, forecast_csv, load_configured
from preprocessing.bars_files import StockFile
from preprocessing.command_line import parse_config
from preprocessing.config import BarRules, DataConfig
from preprocessing.files import slug, write_atomically
from preprocessing.market_data import MarketDataError, locate_stocks, tickers_of


def _stocks(config: PredictConfig) -> dict[str, StockFile]:
    """Each stock's file by the name that its forecast gets."""
    files = [StockFile(path, ticker) for path in config.csv for ticker in tickers_of(path) or (None,)]
    if config.data_dir is not None:
        if not config.data_dir.is_dir():
            raise PredictionError(f"--data-dir {config.data_dir} is no folder; correct the path")
        files += [file for file in locate_stocks("all", DataConfig(data_dir=config.data_dir)).values() if file]
    if not files:
        raise PredictionError("there is no CSV to forecast; give --csv FILE or --data-dir DIR with CSV files")
    by_name: dict[str, StockFile] = {}
    for file in files:
        name = slug(file.ticker or file.path.stem)
        other = by_name.setdefault(name, file)
        if other is not file:
            raise PredictionError(f"{other.path} and {file.path} would both write {name}.json; forecast one at a time")
    return by_name


def predict_all(config: PredictConfig) -> tuple[int, list[str]]:
    """Forecast every stock, print and write each as it is done.

    Returns:
        How many stocks there are, and one line for each that was refused.
    """
    # Before the model is loaded, which may take minutes, so that a wrong path is said at once.
    stocks = _stocks(config)
    forecaster = load_configured(config)
    errors = []
    rules = BarRules(timezone=config.timezone, outliers=config.outliers)
    for name, file in tqdm(stocks.items(), desc="forecast", unit="stock"):
        try:
            result = forecast_csv(
                forecaster,
                file.path,
                num_samples=config.num_samples,
                seed=config.seed,
                ticker=file.ticker,
                calendar=config.calendar,
                rules=rules,
            )
        except (MarketDataError, PredictionError) as error:
            errors.append(f"{file.ticker or file.path.name}: {error}")
            continue
        place = config.output_dir / name
        write_atomically(place.with_name(f"{place.name}.json"), to_json(result))
        draw(result, place.with_name(f"{place.name}.png"))
        tqdm.write(to_table(result), file=sys.stdout)
    return len(stocks), errors


def _join_csv(arguments: Sequence[str]) -> list[str]:
    """`--csv A B`, `--csv=A` and repetitions of them as the one list that the parser takes."""
    others: list[str] = []
    files: list[str] = []
    listing = False
    for argument in arguments:
        if argument == "--csv" or argument.startswith("--csv="):
            listing = True
            files += [argument.removeprefix("--csv=")] if "=" in argument else []
        elif listing and not argument.startswith("--"):
            files.append(argument)
        else:
            listing = False
            others.append(argument)
    return others + (["--csv", json.dumps(files)] if files else [])


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, forecast, name what was refused."""
    config = parse_config(
        PredictConfig,
        _join_csv(sys.argv[1:] if argv is None else argv),
        prog="python -m grpo.predict",
        description="Forecast the days after the last bar of each CSV.",
    )
    count, errors = predict_all(config)
    print(f"{count - len(errors)} forecast(s) written to {config.output_dir}")
    if errors:
        for line in errors:
            print(f"error: {line}", file=sys.stderr)
        raise PredictionError(f"{len(errors)} of {count} CSVs could not be forecast (see above)")
