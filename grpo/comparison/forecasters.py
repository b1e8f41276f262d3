"""The forecasters of a comparison: which ones, what their forecasts depend on, and their answers, kept on disk.

A forecast is kept under the hash of all that it depends on (`grpo.evaluation.identity`), a fitted plugin likewise:
adding a forecaster asks one, changing an adapter asks that one, and a killed comparison goes on where it was.
"""

from __future__ import annotations

import gc
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from grpo.config import RunConfig
from grpo.evaluation.comparison import Comparison, Fold
from grpo.evaluation.contamination import SIMULATED, UNKNOWN, training_end
from grpo.evaluation.forecast_files import ForecastFileError, load_forecast, save_forecast
from grpo.evaluation.harness import Evaluation, predict
from grpo.evaluation.identity import context_hash, key_of, plugin_identity
from grpo.evaluation.leaderboard import OPTIMUM, REFERENCE
from grpo.evaluation.metrics import score_windows, training_scale
from grpo.evaluation.optimum import Optimum
from grpo.evaluation.protocol import (
    Forecast,
    Forecaster,
    concatenate_forecasts,
    forecaster_config,
    forecaster_names,
    forecaster_plugin,
    missing_packages,
)
from grpo.evaluation.source_code import source_hash
from grpo.evaluation.spread import split_calibration
from grpo.models.adapters import EMBEDDED_FOLDER, ModelError, prompt_format, read_record
from grpo.models.config import EMBEDDED
from grpo.runs.folder import RunPaths
from grpo.runs.stages import ADAPTER_STAGES
from preprocessing.command_line import plain
from preprocessing.errors import UserError
from preprocessing.files import sha256, write_atomically
from preprocessing.windows import Context, concatenate

LANGUAGE_MODEL = {"base": None, **{stage.forecaster: stage.adapter for stage in ADAPTER_STAGES}}
"""Names that mean the language model, and the path of the adapter that each one wears."""
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")


@dataclass(frozen=True)
class Choice:
    """Which forecasters are compared.

    Attributes:
        names: in the order in which they are asked, each once; the random walk is always there.
        notices: what was added or left out, one line each.
    """

    names: tuple[str, ...]
    notices: tuple[str, ...]


def choose_forecasters(config: RunConfig, paths: RunPaths) -> Choice:
    """Resolve `llm` and `all`, add the random walk, and check every name and setting before any work.

    Raises:
        UserError: an unknown name, or a plugin whose packages are not installed.
        SettingsError: settings that a plugin refuses.
    """
    names: list[str] = []
    notices: list[str] = []
    for asked in config.compare.names:
        if asked == "llm":
            names += [name for name in LANGUAGE_MODEL if _wanted(name, config, paths)]
        elif asked == "all":
            for name in forecaster_names():
                missing = missing_packages(_plugin(name))
                names += [] if missing else [name]
                notices += [f"{name} is left out: {', '.join(missing)} is not installed"] if missing else []
        else:
            names.append(asked)
    if REFERENCE not in names:
        names.append(REFERENCE)
        notices.append(f"{REFERENCE} is added: skill is measured against it")
    for name in names:
        if name not in LANGUAGE_MODEL and (missing := missing_packages(_plugin(name))):
            raise UserError(
                f"compare.forecasters: {name} needs {', '.join(missing)}, which is not installed; install what "
                f"README.md names for it, or leave {name} out"
            )
    for name, settings in config.baselines.items():
        forecaster_config(name, split_calibration(name, _plugin(name, place="baselines"), settings)[1])
    return Choice(tuple(dict.fromkeys(names)), tuple(notices))


def _wanted(name: str, config: RunConfig, paths: RunPaths) -> bool:
    """Whether `llm` means this one: the base model, or an adapter that is there or was asked for by its path."""
    adapter = LANGUAGE_MODEL[name]
    return adapter is None or getattr(config.paths, adapter) is not None or paths.adapters[adapter].exists()


def _plugin(name: str, *, place: str = "compare.forecasters") -> Any:
    try:
        return forecaster_plugin(name)
    except KeyError as error:
        llm = () if place == "baselines" else ("llm", *LANGUAGE_MODEL, "all")
        raise UserError(f"{place}: there is no '{name}'; there are {', '.join((*llm, *forecaster_names()))}") from error


@dataclass
class Forecasters:
    """Asks forecasters by name and keeps what they say below a folder.

    Attributes:
        config: the run.
        paths: where its adapters lie.
        folder: forecasts go into forecasts/, fitted plugins into forecasters/.
        logger: is told what is used again.
    """

    config: RunConfig
    paths: RunPaths
    folder: Path
    logger: logging.Logger
    _language_model: tuple[str, Forecaster] | None = field(default=None, init=False)

    def adapter(self, name: str) -> Path | None:
        """Folder of the adapter that a language model wears; None for the base model."""
        adapter = LANGUAGE_MODEL[name]
        return self.paths.adapters[adapter] if adapter else None

    def identity(self, name: str) -> dict[str, Any]:
        """All that makes this forecaster different from another, apart from windows and seed, as plain JSON values."""
        if name == OPTIMUM:
            return {"name": name, "source": source_hash("grpo.evaluation.optimum")}
        if name not in LANGUAGE_MODEL:
            return plugin_identity(name, self.config.baselines.get(name, {}))
        adapter = self.adapter(name)
        return {
            "name": name,
            "version": metadata.version("grpo-forecast"),
            "source": source_hash("grpo.sampling.forecaster"),
            "model": self._base_model,
            "adapter": {file: _hash_if_there(adapter / file) for file in _ADAPTER_FILES} if adapter else None,
            "prompt": plain(self.config.prompt),
            "prompt_format": prompt_format(self.config.prompt.style),
            "generation": plain(self.config.generation),
            "loading": plain(self.config.loading),
        }

    def ask(self, name: str, folds: Sequence[Fold], seed: int) -> tuple[Forecast, float]:
        """The forecasts of the test windows of all folds, in their order, and the seconds that they took.

        A plugin is fitted on each fold's training windows; a language model is asked about all windows at once.
        """
        if name in LANGUAGE_MODEL:
            context = concatenate([fold.test for fold in folds]).context
            return self._ask(name, {}, context, folds[0].test.horizon, seed, lambda: self.language_model(name))
        if name == OPTIMUM:
            context = concatenate([fold.test for fold in folds]).context
            return self._ask_optimum(context, folds[0].test.horizon, seed)
        answers = [
            self._ask(
                name,
                {"trained_on": fold.training_hash},
                fold.test.context,
                fold.test.horizon,
                seed,
                lambda fold=fold: self._fit(name, fold, seed),
            )
            for fold in folds
        ]
        forecasts, seconds = zip(*answers, strict=True)
        return concatenate_forecasts(forecasts), sum(seconds)

    def trained_until(self, name: str, folds: Sequence[Fold]) -> str:
        """Last day whose price the forecaster was trained on: YYYY-MM-DD, `unknown`, or `simulated data`."""
        if name == OPTIMUM:
            return ""
        if name not in LANGUAGE_MODEL:
            return str(np.datetime_as_string(training_end(folds[-1]), unit="D"))
        adapter = self.adapter(name)
        if adapter is None:
            return SIMULATED if self.config.model == EMBEDDED else self.config.compare.base_cutoff or UNKNOWN
        try:
            return read_record(adapter).trained_until or UNKNOWN
        except ModelError as error:
            self.logger.warning("%s: the days of its training are not known: %s", name, error)
            return UNKNOWN

    def release(self) -> None:
        """Free the language model that was asked last."""
        self._language_model = None
        gc.collect()  # models hold reference cycles

    def _ask(
        self,
        name: str,
        training: Mapping[str, Any],
        context: Context,
        horizon: int,
        seed: int,
        make: Callable[[], Forecaster],
    ) -> tuple[Forecast, float]:
        num_samples = self.config.compare.num_samples
        settings = {"num_samples": num_samples, "seed": seed, "horizon": horizon}
        key = key_of({**self.identity(name), **training, **settings, "context": context_hash(context)})
        file = self.folder / "forecasts" / f"{name}-{key}.npz"
        if file.exists():
            try:
                kept = load_forecast(file)
                self.logger.info("%s: forecasts made before are used again", name)
                return kept
            except ForecastFileError as error:
                self.logger.warning("%s; it is made again", error)
        forecast, seconds = predict(make(), context, horizon=horizon, num_samples=num_samples, seed=seed)
        save_forecast(forecast, seconds, file)
        return forecast, seconds

    def _ask_optimum(self, context: Context, horizon: int, seed: int) -> tuple[Forecast, float]:
        """The optimum where it is known; elsewhere its samples are not valid."""
        items = np.array(context.item_id)
        known_items = [item for item in np.unique(items) if Optimum.knows(context.take(items == item))]
        known = np.isin(items, known_items)
        told, seconds = self._ask(OPTIMUM, {}, context.take(known), horizon, seed, Optimum)
        samples = np.full((len(context), *told.samples.shape[1:]), np.nan)
        samples[known] = told.samples
        valid = np.broadcast_to(known[:, None], samples.shape[:2]).copy()
        return Forecast(samples=samples, valid=valid), seconds

    def language_model(self, name: str) -> Forecaster:
        """The language model of that name; it stays loaded until another is asked for, or `release`."""
        if self._language_model is None or self._language_model[0] != name:
            from grpo.sampling.forecaster import (
                load_llm_forecaster,  # brings torch, which --help and plugins do not need
            )

            self.release()
            config = self.config
            self._language_model = (
                name,
                load_llm_forecaster(
                    config.spec(self.adapter(name)),
                    config.prompt,
                    config.generation,
                    name=name,
                    lora_rank=config.lora.rank,
                ),
            )
        return self._language_model[1]

    def _fit(self, name: str, fold: Fold, seed: int) -> Forecaster:
        """Fit a plugin and save it, or load it where it was fitted on the same before."""
        plugin, own = split_calibration(name, forecaster_plugin(name), self.config.baselines.get(name, {}))
        settings = {"trained_on": fold.training_hash, "seed": seed, "horizon": fold.test.horizon}
        folder = self.folder / "forecasters" / f"{name}-{key_of({**self.identity(name), **settings})}"
        if (folder / "fitted").exists():
            return plugin.load(folder)
        fitted = plugin.fit(
            forecaster_config(name, own),
            fold.train,
            fold.val,
            horizon=fold.test.horizon,
            seed=seed,
            out_dir=folder,
        )
        fitted.save(folder)
        write_atomically(folder / "fitted", "")  # last: a folder without it was cut short
        return fitted

    @cached_property
    def _base_model(self) -> str:
        """Hash of the base model's files, or the commit of a model on the Hub."""
        model = self.config.model
        if model == EMBEDDED:
            return sha256(EMBEDDED_FOLDER)
        return sha256(Path(model)) if Path(model).is_dir() else hub_commit(model)


def ask_all(
    forecasters: Forecasters, names: Sequence[str], folds: Sequence[Fold], *, seeds: Sequence[int], title: str
) -> Comparison:
    """Ask every forecaster with every seed about the test windows of all folds, and score what it says.

    Args:
        forecasters: who asks.
        names: whom.
        folds: about what.
        seeds: how often.
        title: of the progress bar.
    """
    tests = concatenate([fold.test for fold in folds])
    windows = concatenate([tests for _ in seeds])
    mase_scale = np.tile(np.concatenate([_mase_scale(fold) for fold in folds]), len(seeds))
    evaluations = []
    with tqdm(total=len(names) * len(seeds), desc=title, unit="forecast") as bar:
        for name in names:
            answers = []
            for seed in seeds:
                bar.set_description(f"{title}: {name}, seed {seed}" if len(seeds) > 1 else f"{title}: {name}")
                answers.append(forecasters.ask(name, folds, seed))
                bar.update()
            forecasters.release()
            forecasts, seconds = zip(*answers, strict=True)
            forecast = concatenate_forecasts(forecasts)
            scores = score_windows(forecast, windows, mase_scale)
            evaluations.append(Evaluation(name=name, forecast=forecast, scores=scores, seconds=sum(seconds)))
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


def knows_optimum(context: Context) -> bool:
    """Whether the exact law of any of the windows is known."""
    items = np.array(context.item_id)
    return any(Optimum.knows(context.take(items == item)) for item in np.unique(items))


def hub_commit(model: str) -> str:
    """Commit of the model that would be loaded: the Hub's newest, or without the Hub the one that is kept here.

    Raises:
        UserError: the Hub does not answer, and nothing is kept.
    """
    from huggingface_hub import constants, model_info
    from huggingface_hub.file_download import repo_folder_name

    try:
        return str(model_info(model, timeout=10).sha)
    except OSError as error:
        folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=model, repo_type="model"))
        reference = folder / "refs" / "main"
        if reference.is_file():
            return reference.read_text().strip()
        reason = " ".join(str(error).split())
        raise UserError(f"--model {model} is neither on the Hub nor kept in {folder.parent}: {reason}") from error


def _hash_if_there(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
