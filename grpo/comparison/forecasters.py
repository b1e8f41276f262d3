"""Asks the forecasters of a comparison, and keeps their answers on disk.

A forecast is kept under the hash of all that it depends on (`grpo.evaluation.identity`), a fitted plugin likewise:
adding a forecaster asks one, changing an adapter asks that one, and a killed comparison goes on where it was.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from grpo.comparison.contenders import Contender
from grpo.evaluation.comparison import Comparison, Fold
from grpo.evaluation.forecast_files import ForecastFileError, load_forecast, save_forecast
from grpo.evaluation.harness import Evaluation, predict
from grpo.evaluation.identity import context_hash, key_of
from grpo.evaluation.metrics import score_windows, training_scale
from grpo.evaluation.protocol import Forecast, Forecaster, concatenate_forecasts
from preprocessing.windows import concatenate


@dataclass
class Forecasters:
    """Asks contenders and keeps what they say below a folder.

    Attributes:
        folder: forecasts go into forecasts/, fitted plugins into forecasters/.
        num_samples: sample paths per window, S.
        logger: is told what is used again.
    """

    folder: Path
    num_samples: int
    logger: logging.Logger
    _ready: tuple[Contender, Forecaster] | None = field(default=None, init=False)

    def ask(self, contender: Contender, folds: Sequence[Fold], seed: int) -> tuple[Forecast, float]:
        """The forecasts of the test windows of all folds, in their order, and the seconds that they took."""
        # one that is fitted may see only what came before its block; one that is not answers for all blocks in one go
        blocks = [[fold] for fold in folds] if contender.fits else [list(folds)]
        forecasts, seconds = zip(*(self._ask(contender, block, seed) for block in blocks), strict=True)
        return concatenate_forecasts(forecasts), sum(seconds)

    def forecaster(self, contender: Contender, fold: Fold, seed: int) -> Forecaster:
        """The contender, ready to answer; one that is not fitted stays loaded until another is asked for."""
        if self._ready is not None and self._ready[0] == contender:
            return self._ready[1]
        # free the last model before the next is loaded: two of them may not fit the memory
        self.release()
        settings = {**_training(contender, fold), "seed": seed, "horizon": fold.test.horizon}
        key = key_of({**contender.identity(), **settings})
        ready = contender.make(fold, seed, self.folder / "forecasters" / f"{contender.name}-{key}")
        if not contender.fits:
            self._ready = contender, ready
        return ready

    def release(self) -> None:
        """Free the model that was asked last."""
        self._ready = None
        gc.collect()  # models hold reference cycles

    def _ask(self, contender: Contender, folds: Sequence[Fold], seed: int) -> tuple[Forecast, float]:
        context, horizon = concatenate([fold.test for fold in folds]).context, folds[0].test.horizon
        settings = {"num_samples": self.num_samples, "seed": seed, "horizon": horizon, "context": context_hash(context)}
        # the context and not the truth is hashed: an answer cannot depend on what comes after the origin
        key = key_of({**contender.identity(), **_training(contender, folds[0]), **settings})
        file = self.folder / "forecasts" / f"{contender.name}-{key}.npz"
        if file.exists():
            try:
                kept = load_forecast(file)
                self.logger.info("%s: forecasts made before are used again", contender.name)
                return kept
            except ForecastFileError as error:
                self.logger.warning("%s; it is made again", error)
        forecaster = self.forecaster(contender, folds[0], seed)
        forecast, seconds = predict(forecaster, context, horizon=horizon, num_samples=self.num_samples, seed=seed)
        save_forecast(forecast, seconds, file)
        return forecast, seconds


def _training(contender: Contender, fold: Fold) -> dict[str, str]:
    """What the answers depend on besides the contender and what it is asked."""
    return {"trained_on": fold.training_hash} if contender.fits else {}


def ask_all(
    forecasters: Forecasters,
    contenders: Sequence[Contender],
    folds: Sequence[Fold],
    *,
    seeds: Sequence[int],
    title: str,
) -> Comparison:
    """Ask every contender with every seed about the test windows of all folds, and score what it says.

    Args:
        forecasters: who asks.
        contenders: whom.
        folds: about what.
        seeds: how often.
        title: of the progress bar.
    """
    # all windows once per seed, one seed after the other: a mean over these rows is a mean over seeds, and a mean per
    # date the seed-averaged loss that the tests need
    tests = concatenate([fold.test for fold in folds])
    windows = concatenate([tests for _ in seeds])
    # each fold by its own training windows: the scale must not know the days of its test block
    mase_scale = np.tile(np.concatenate([_mase_scale(fold) for fold in folds]), len(seeds))
    evaluations = []
    with tqdm(total=len(contenders) * len(seeds), desc=title, unit="forecast") as bar:
        for contender in contenders:
            answers = []
            for seed in seeds:
                asking = f"{title}: {contender.name}"
                bar.set_description(f"{asking}, seed {seed}" if len(seeds) > 1 else asking)
                answers.append(forecasters.ask(contender, folds, seed))
                bar.update()
            forecasters.release()
            forecasts, seconds = zip(*answers, strict=True)
            forecast = concatenate_forecasts(forecasts)
            scores = score_windows(forecast, windows, mase_scale)
            evaluations.append(Evaluation(name=contender.name, forecast=forecast, scores=scores, seconds=sum(seconds)))
    return Comparison(
        windows=windows,
        evaluations=tuple(evaluations),
        seed=np.repeat(np.array(seeds), len(tests)),
        fold=np.tile(np.repeat([fold.number for fold in folds], [len(fold.test) for fold in folds]), len(seeds)),
    )


def _mase_scale(fold: Fold) -> np.ndarray:
    """[B] `training_scale` of the fold's test windows; NaN for a stock without training windows."""
    known = np.isin(fold.test.context.item_id, np.unique(fold.train.context.item_id))
    scale = np.full(len(fold.test), np.nan)
    scale[known] = training_scale(fold.train, fold.test.take(known))
    return scale
