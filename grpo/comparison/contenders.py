"""Who can stand in a comparison's table: a plugin, a language model, the optimum. All are asked in one way.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Protocol

import numpy as np

from grpo.evaluation.comparison import Fold
from grpo.evaluation.contamination import SIMULATED, UNKNOWN, training_end
from grpo.evaluation.identity import plugin_identity
from grpo.evaluation.leaderboard import OPTIMUM
from grpo.evaluation.optimum import Optimum
from grpo.evaluation.protocol import Forecaster, forecaster_config, forecaster_plugin
from grpo.evaluation.source_code import source_hash
from grpo.evaluation.spread import split_calibration
from grpo.language.config import PromptConfig
from grpo.models.adapters import EMBEDDED_FOLDER, ModelError, prompt_format, read_record
from grpo.models.config import EMBEDDED
from grpo.models.spec import ModelSpec
from grpo.sampling.config import GenerationConfig
from preprocessing.command_line import plain
from preprocessing.errors import UserError
from preprocessing.files import sha256, write_atomically

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")

logger = logging.getLogger("grpo")


class Contender(Protocol):
    """One row of a table: who is asked, and what the answers depend on."""

    @property
    def name(self) -> str:
        """How tables call it."""
        ...

    @property
    def fits(self) -> bool:
        """Whether it is fitted on the training windows of each fold; if not, one forecaster answers for all folds."""
        ...

    @property
    def inputs(self) -> Mapping[str, Path]:
        """Files and folders that it needs, by name."""
        ...

    def identity(self) -> dict[str, object]:
        """All that makes it different from another, apart from windows and seed, as plain JSON values."""
        ...

    def trained_until(self, folds: Sequence[Fold]) -> str:
        """Last day whose price it was trained on: YYYY-MM-DD, `unknown`, `simulated data`, or empty for none."""
        ...

    def make(self, fold: Fold, seed: int, folder: Path) -> Forecaster:
        """Make it ready to answer.

        Args:
            fold: what it may be fitted on; and whose windows it will be asked about.
            seed: of the fit.
            folder: where it keeps what it fitted; equal fits get the same folder, different ones never share one.
        """
        ...


@dataclass(frozen=True)
class Plugin:
    """A forecaster that is fitted on training windows.

    Attributes:
        name: how tables call it.
        reference: a registered name, `package.module:name`, or `file.py:name`.
        settings: of its Config.
    """

    name: str
    reference: str
    settings: Mapping[str, object]
    fits = True
    inputs: Mapping[str, Path] = field(default_factory=dict, init=False)

    def identity(self) -> dict[str, object]:
        """Package or reference, code and settings."""
        return plugin_identity(self.name, self.settings, self.reference)

    def trained_until(self, folds: Sequence[Fold]) -> str:
        """The last target before the last fold."""
        return str(np.datetime_as_string(training_end(folds[-1]), unit="D"))

    def make(self, fold: Fold, seed: int, folder: Path) -> Forecaster:
        """Fit and save it, or load it where it was fitted on the same before."""
        plugin, settings = split_calibration(self.name, forecaster_plugin(self.reference), self.settings)
        # the folder's name holds the hash of code, settings, windows and seed: what is there is the same fit
        if (folder / "fitted").exists():
            return plugin.load(folder)
        config = forecaster_config(self.name, settings, self.reference)
        fitted = plugin.fit(config, fold.train, fold.val, horizon=fold.test.horizon, seed=seed, out_dir=folder)
        folder.mkdir(parents=True, exist_ok=True)
        fitted.save(folder)
        write_atomically(folder / "fitted", "")  # last: a folder without it was cut short
        return fitted


@dataclass(frozen=True)
class LanguageModel:
    """A base model, alone or with an adapter, as it was trained.

    Attributes:
        name: how tables call it.
        spec: the model.
        prompt: how it is asked.
        generation: what samples.
        lora_rank: largest rank of the adapters that one vLLM engine is to serve in turn.
        inputs: the folder of its adapter.
        read_until: day up to which the base model may have read prices, or `unknown`.
        sizes: days shown and days ahead that its adapter was trained with, or None where it is asked as the run is.
    """

    name: str
    spec: ModelSpec
    prompt: PromptConfig
    generation: GenerationConfig
    lora_rank: int
    inputs: Mapping[str, Path] = field(default_factory=dict)
    read_until: str = UNKNOWN
    sizes: tuple[int, int] | None = None
    fits = False

    def identity(self) -> dict[str, object]:
        """Code, weights, prompts, and how they are sampled."""
        adapter = self.spec.adapter
        return {
            "name": self.name,
            "version": metadata.version("grpo-forecast"),
            # code counts too: a change in how answers are sampled or read changes the forecast
            "source": source_hash("grpo.sampling.forecaster"),
            "model": base_fingerprint(self.spec.base),
            "adapter": {file: _hash_if_there(adapter / file) for file in ADAPTER_FILES} if adapter else None,
            "prompt": plain(self.prompt),
            "prompt_format": prompt_format(self.prompt),
            "generation": plain(self.generation),
            "loading": plain(self.spec.loading),
        }

    def trained_until(self, folds: Sequence[Fold]) -> str:
        """What its adapter's record says; without an adapter, what is known of the base model."""
        # the record of an adapter is of its own training; what the base model read before is another question
        if self.spec.adapter is None:
            return SIMULATED if self.spec.base == EMBEDDED else self.read_until
        try:
            return read_record(self.spec.adapter).trained_until or UNKNOWN
        except ModelError as error:
            logger.warning("%s: the days of its training are not known: %s", self.name, error)
            return UNKNOWN

    def make(self, fold: Fold, seed: int, folder: Path) -> Forecaster:
        """Load it.

        Raises:
            UserError: its adapter was trained on windows of another size.
        """
        from grpo.sampling.forecaster import load_llm_forecaster  # brings torch, which --help does not need

        asked = fold.test.context.past.shape[1], fold.test.horizon
        if self.sizes not in (None, asked):
            raise UserError(
                "{}: its adapter was trained to read {} days and forecast {}, but these windows have {} and {}; "
                "compare it with --data.window and --data.horizon of its own".format(self.name, *self.sizes, *asked)
            )
        return load_llm_forecaster(self.spec, self.prompt, self.generation, name=self.name, lora_rank=self.lora_rank)


@dataclass(frozen=True)
class ExactLaw:
    """The best forecast there can be, where the law of a simulated stock is known."""

    name: str = OPTIMUM
    fits = False
    inputs: Mapping[str, Path] = field(default_factory=dict, init=False)

    def identity(self) -> dict[str, object]:
        """Its code alone: the stock's name holds the law."""
        return {"name": self.name, "source": source_hash("grpo.evaluation.optimum")}

    def trained_until(self, folds: Sequence[Fold]) -> str:
        """It is trained on nothing."""
        return ""

    def make(self, fold: Fold, seed: int, folder: Path) -> Forecaster:
        """There is nothing to prepare."""
        return Optimum()


@cache
def base_fingerprint(model: str) -> str:
    """Hash of a base model's files, or the commit of a model on the Hub."""
    if model == EMBEDDED:
        return sha256(EMBEDDED_FOLDER)
    # a commit on the Hub says as much as a hash of gigabytes of weights, and costs one request
    return sha256(Path(model)) if Path(model).is_dir() else hub_commit(model)


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
        # offline, transformers would load what this file names
        reference = folder / "refs" / "main"
        if reference.is_file():
            return reference.read_text().strip()
        reason = " ".join(str(error).split())
        raise UserError(f"model {model} is neither on the Hub nor kept in {folder.parent}: {reason}") from error


def _hash_if_there(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
