"""Forecast the days after the last bar of a CSV, with a trained adapter or with a base model alone.

    python -m grpo.predict --adapter models/embedded/AAPL/grpo_lora_2nd --csv AAPL.csv
    python -m grpo.predict --adapter user/aapl-grpo-2nd --data-dir DIR --num-samples 200

Prints the last close and, for each day ahead, the median and the 80 % interval; writes OUTPUT_DIR/STOCK.json (all
quantiles and samples) and OUTPUT_DIR/STOCK.png. The adapter's folder says what it needs. The same from Python:

    from grpo.predict import load_forecaster, forecast_csv
    forecaster = load_forecaster("models/embedded/AAPL/grpo_lora_2nd")
    result = forecast_csv(forecaster, "AAPL.csv")
    result.dates, result.median, result.quantile(0.9), result.samples

A CSV that is refused does not stop the others; it is named at the end, and the exit code is then 1.

Letters: S samples, H horizon.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from grpo.evaluation.protocol import Forecaster
from grpo.language.config import PromptConfig
from grpo.models.adapters import AdapterRecord, ModelError, describe_adapter, read_record
from grpo.models.config import EMBEDDED, LoadingConfig
from grpo.models.download import locate_adapter
from grpo.models.spec import ModelSpec
from grpo.prediction.files import PriceForecast
from grpo.sampling.config import GenerationConfig
from grpo.sampling.endpoint import EndpointForecaster
from preprocessing.bars_files import StockFile, frame_bars
from preprocessing.calendars import next_times
from preprocessing.checks.bars import WHOLE
from preprocessing.checks.times import interval_name
from preprocessing.combined_preprocessor import make_contexts
from preprocessing.config import BarRules, DataConfig
from preprocessing.errors import UserError
from preprocessing.files import sha256
from preprocessing.market_data import read_bars
from preprocessing.notices import notices_of
from preprocessing.scaling import StandardNorm
from preprocessing.windows import Context

logger = logging.getLogger(__name__)

FEWEST_VALID = 20
"""Fewest valid answers that quantiles are made of (all, where fewer are asked for)."""


class PredictionError(UserError):
    """A forecast that cannot be made; the message is one line that names the place and a way out."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """One prediction command."""

    adapter: str | None = None
    """Adapter folder, or a Hub id user/name[@revision]; null: the model alone."""
    model: str | None = None
    """`embedded`, a Hub model id, or a local folder; null: the adapter's base model, or `embedded` without one."""
    csv: list[Path] = field(default_factory=list)
    """Files of bars, as preprocessing reads them: --csv A.csv B.csv."""
    data_dir: Path | None = None
    """Folder whose stocks are all forecast."""
    calendar: str = "auto"
    """Days ahead, as data.calendar: auto, 24/7, weekdays, or an exchange as XNYS."""
    timezone: str | None = None
    """Time zone of times without an offset, as data.timezone."""
    outliers: Literal["warn", "refuse", "repair"] = "warn"
    """What becomes of moves that no market makes, as data.outliers."""
    num_samples: int = 100
    """Sample paths per stock."""
    seed: int = 0
    """Seed of the sampling; a stock's forecast does not depend on the other stocks."""
    output_dir: Path = Path("predictions")
    """Folder for STOCK.json and STOCK.png."""
    window: int | None = None
    """Days that the prompt shows; null: the adapter's, or 30 without one."""
    horizon: int | None = None
    """Days to forecast; null: the adapter's, or 10 without one."""
    style: str | None = None
    """Prompt style; null: the adapter's, or the one that a run would take without one."""
    endpoint: str | None = None
    """Address of an OpenAI-compatible server that samples in place of this process: http://localhost:8000/v1."""
    served_model: str | None = None
    """Name under which that server offers the model or adapter."""
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    trust_remote_code: bool = False
    """Let a Hub model run its own Python code; off unless you trust its authors."""

    def __post_init__(self) -> None:
        if self.num_samples < 2:
            raise ValueError(f"num_samples must be at least 2; got {self.num_samples}")
        if (self.endpoint is None) != (self.served_model is None):
            raise ValueError("--endpoint and --served-model belong together; give both or none")


@dataclass(frozen=True, kw_only=True)
class StockForecaster:
    """A forecaster with all that turns bars into its context.

    Attributes:
        forecaster: samples paths.
        record: window, horizon and indicators.
        model: the base model.
        adapter: the adapter as it was named, or None.
        adapter_sha256: hash of the adapter's folder, or None.
    """

    forecaster: Forecaster
    record: AdapterRecord
    model: str
    adapter: str | None
    adapter_sha256: str | None


def load_forecaster(adapter: str | Path | None = None, *, model: str | None = None) -> StockForecaster:
    """The forecaster of an adapter (folder or Hub id), or of a base model alone.

    Raises:
        ModelError: the adapter or the model cannot be used, or do not belong together.
    """
    return load_configured(PredictConfig(adapter=None if adapter is None else str(adapter), model=model))


def forecast_csv(
    forecaster: StockForecaster,
    csv: str | Path,
    *,
    num_samples: int = 100,
    seed: int = 0,
    ticker: str | None = None,
    calendar: str = "auto",
    rules: BarRules = WHOLE,
) -> PriceForecast:
    """Forecast the bars after the last one of a file.

    Args:
        forecaster: of `load_forecaster`.
        csv: a text or Parquet file of bars.
        num_samples: S.
        seed: of the sampling.
        ticker: which of several stocks in the file.
        calendar: of the days ahead, as `DataConfig.calendar`.
        rules: which bars are used, and how.

    Raises:
        MarketDataError: the file is refused.
        PredictionError: too few bars, or too few valid answers.
    """
    bars, report = read_bars(StockFile(Path(csv), ticker), rules)
    name = ticker or Path(csv).stem
    for line in notices_of(name, report):
        logger.warning(line)
    result = _forecast(forecaster, name, bars, num_samples=num_samples, seed=seed, calendar=calendar)
    return dataclasses.replace(result, source=str(csv), source_sha256=sha256(Path(csv)))


def forecast_bars(
    forecaster: StockForecaster,
    stock: str,
    bars: pd.DataFrame,
    *,
    num_samples: int = 100,
    seed: int = 0,
    calendar: str = "auto",
) -> PriceForecast:
    """Forecast the bars after the last one of a data frame, which is read by the rules of a file.

    Args:
        forecaster: of `load_forecaster`.
        stock: name of the stock; the forecast does not depend on it.
        bars: of one stock, as `preprocessing.market_data.read_frame` takes them.
        num_samples: S.
        seed: of the sampling.
        calendar: of the days ahead, as `DataConfig.calendar`.

    Raises:
        MarketDataError: the frame is refused.
        PredictionError: it holds several stocks, too few bars, or too few answers are valid.
    """
    stocks = frame_bars(bars, name=stock)
    if len(stocks) > 1:
        raise PredictionError(
            f"{stock}: the frame holds several stocks ({', '.join([*stocks][:5])}); give those of one"
        )
    checked, report = next(iter(stocks.values()))
    for line in notices_of(stock, report):
        logger.warning(line)
    return _forecast(forecaster, stock, checked, num_samples=num_samples, seed=seed, calendar=calendar)


def _forecast(
    forecaster: StockForecaster, stock: str, bars: pd.DataFrame, *, num_samples: int, seed: int, calendar: str
) -> PriceForecast:
    record = forecaster.record
    context = latest_context(stock, bars, record)
    answer = forecaster.forecaster.predict(context, horizon=record.horizon, num_samples=num_samples, seed=seed)
    # [1, S, H] to [valid, H]: the context has one window.
    samples = answer.samples[0][answer.valid[0]]
    if len(samples) < min(FEWEST_VALID, num_samples):
        example = f"; the first: {answer.texts[0][0][:80]!r}" if answer.texts else ""
        raise PredictionError(
            f"{stock}: {len(samples)} of {num_samples} answers were a forecast{example}. Take an adapter trained for "
            "this, or raise --num-samples"
        )
    times = bars.index.to_numpy(dtype="datetime64[ns]")
    ahead = next_times(times, record.horizon, calendar)
    return PriceForecast(
        stock=stock,
        origin=_time(context.origin[0]),
        past=context.past[0, :, 0],
        dates=None if ahead is None else tuple(map(_time, ahead)),
        samples=samples,
        num_samples=num_samples,
        seed=seed,
        model=forecaster.model,
        adapter=forecaster.adapter,
        adapter_sha256=forecaster.adapter_sha256,
        source=None,
        source_sha256=None,
        first_date=_time(times[0]),
        interval=interval_name(times),
        rows=len(bars),
    )


def latest_context(stock: str, bars: pd.DataFrame, record: AdapterRecord) -> Context:
    """What may be seen at the last bar: one window, whose scale is fitted on all closes up to it.

    Raises:
        PredictionError: the indicators have not warmed up, or the window is longer than the bars.
    """
    config = DataConfig(window=record.window, horizon=record.horizon, indicators=record.indicators)
    if len(bars) <= config.first_origin:
        raise PredictionError(
            f"{stock} has {len(bars)} rows, but a forecast needs {config.first_origin + 1} (indicator warm-up "
            f"{record.indicators.warm_up}, window {record.window}); give a longer history"
        )
    # All closes may be used: the last of them is the day of the forecast.
    norm = StandardNorm.fit(bars["close"].to_numpy(dtype=np.float64))
    return make_contexts(stock, bars, config, norm, np.array([len(bars) - 1]))


def _time(time: np.datetime64) -> str:
    """A day as YYYY-MM-DD, a time within a day as YYYY-MM-DDTHH:MM."""
    return str(np.datetime_as_string(time, unit="m")).removesuffix("T00:00")


def load_configured(config: PredictConfig) -> StockForecaster:
    """The forecaster that the flags ask for; see `load_forecaster`."""
    folder = locate_adapter(config.adapter) if config.adapter else None
    record = _record(config, folder)
    if config.endpoint and config.served_model:
        forecaster: Forecaster = EndpointForecaster(config.endpoint, config.served_model, record.prompt)
    else:
        forecaster = _load_model(config, record, folder)
    return StockForecaster(
        forecaster=forecaster,
        record=record,
        model=config.model or record.base_model,
        adapter=config.adapter,
        adapter_sha256=sha256(folder) if folder else None,
    )


def _record(config: PredictConfig, folder: Path | None) -> AdapterRecord:
    """The adapter's record; for a model alone, what the flags say."""
    asked = {"window": config.window, "horizon": config.horizon, "style": config.style}
    if folder is None:
        data = DataConfig(window=config.window or 30, horizon=config.horizon or 10)
        base = config.model or EMBEDDED
        prompt = PromptConfig(style=config.style, max_seq_length=4096).for_model(embedded=base == EMBEDDED)
        return describe_adapter(base, "base", stock="", prompt=prompt, data=data, seed=config.seed)
    record = read_record(folder)
    trained = {"window": record.window, "horizon": record.horizon, "style": record.prompt.style}
    for name, value in asked.items():
        if value not in (None, trained[name]):
            raise ModelError(
                f"--{name} {value}: adapter {config.adapter} was trained with {trained[name]}; leave the flag out"
            )
    return record


def _load_model(config: PredictConfig, record: AdapterRecord, folder: Path | None) -> Forecaster:
    # Brings torch, which --help and an endpoint do not need.
    from grpo.sampling.forecaster import load_llm_forecaster

    spec = ModelSpec(
        base=config.model or record.base_model,
        adapter=folder,
        loading=config.loading,
        trust_remote_code=config.trust_remote_code,
    )
    try:
        forecaster = load_llm_forecaster(spec, record.prompt, GenerationConfig(), name=record.stage)
    except ModelError as error:
        # A record names a local base by its folder alone, which cannot be found from here.
        if config.model is None and "/" not in record.base_model and record.base_model != EMBEDDED:
            raise ModelError(
                f"adapter {config.adapter} was trained on '{record.base_model}'; where that was a folder, name it with "
                f"--model DIR ({error})"
            ) from error
        raise
    # The command has a bar of its own, which counts the stocks.
    forecaster.progress = False
    return forecaster
