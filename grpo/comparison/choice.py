"""Which forecasters are compared: what `compare.forecasters` asks for, checked before any work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from grpo.comparison.asked import BASE, Asked, read_asked
from grpo.comparison.contenders import Contender, ExactLaw, LanguageModel, Plugin
from grpo.config import RunConfig
from grpo.evaluation.contamination import UNKNOWN
from grpo.evaluation.leaderboard import OPTIMUM, REFERENCE
from grpo.evaluation.protocol import (
    ForecasterPlugin,
    forecaster_config,
    forecaster_names,
    forecaster_plugin,
    missing_packages,
)
from grpo.evaluation.spread import split_calibration
from grpo.language.config import PromptConfig
from grpo.models.adapters import ModelError, base_name, check_adapter, read_record
from grpo.models.config import EMBEDDED
from grpo.models.download import locate_adapter
from grpo.runs.folder import RunPaths, fetch_adapters
from grpo.runs.stages import ADAPTER_STAGES
from preprocessing.errors import UserError

SEVERAL = ("llm", "all")
"""Words that stand for more than one forecaster."""


@dataclass(frozen=True)
class Choice:
    """Which forecasters are compared.

    Attributes:
        contenders: in the order in which they are asked, each once; the random walk is always there.
        notices: what was added or left out, one line each.
    """

    contenders: tuple[Contender, ...]
    notices: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """How tables call them."""
        return tuple(contender.name for contender in self.contenders)


def choose(config: RunConfig, paths: RunPaths) -> Choice:
    """Resolve `llm` and `all`, add the random walk, and check every name and setting before any work.

    Raises:
        UserError: an unknown name, a word of another form, a name that is taken, or a plugin whose packages are not
            installed.
        ModelError: an adapter that is not there, or belongs to another base model.
        SettingsError: settings that a plugin refuses.
    """
    words, notices = _words(config, paths)
    # every test and every ratio is against it, so a table without it would hold no figure
    if REFERENCE not in words:
        words.append(REFERENCE)
        notices.append(f"{REFERENCE} is added: skill is measured against it")
    contenders: dict[str, Contender] = {}
    # each word once: `llm,sft` names sft twice and means it once
    for word in dict.fromkeys(words):
        asked = read_asked(word)
        if asked.name in contenders:
            raise UserError(f"compare.forecasters: two are called '{asked.name}'; name one of them otherwise, NAME=...")
        contenders[asked.name] = _contender(asked, config, paths)
    # settings of plugins that are not compared are checked too: a typing error should not wait for the next run
    for name in config.baselines:
        if not isinstance(contenders.get(name), Plugin):
            _check_settings(name, name, config.baselines[name], place="baselines")
    return Choice(tuple(contenders.values()), tuple(notices))


def _words(config: RunConfig, paths: RunPaths) -> tuple[list[str], list[str]]:
    """The words that were asked for, `llm` and `all` written out, and what there is to say of them."""
    words: list[str] = []
    notices: list[str] = []
    for word in config.compare.names:
        if word == "llm":
            words += [BASE, *_adapters_there(config, paths)]
        elif word == "all":
            for name in forecaster_names():
                missing = missing_packages(_plugin(name))
                words += [] if missing else [name]
                notices += [f"{name} is left out: {', '.join(missing)} is not installed"] if missing else []
        else:
            words.append(word)
    return words, notices


def _adapters_there(config: RunConfig, paths: RunPaths) -> Iterator[str]:
    """Names of the run's adapters that are there, or were asked for by their path."""
    for stage in ADAPTER_STAGES:
        if getattr(config.paths, stage.adapter) is not None or paths.adapters[stage.adapter].exists():
            yield stage.forecaster


def _contender(asked: Asked, config: RunConfig, paths: RunPaths) -> Contender:
    # a word alone is a name of this run first, then of a plugin
    own = {stage.forecaster: stage.adapter for stage in ADAPTER_STAGES}
    if asked.plugin is None and asked.adapter is None:
        if asked.name == OPTIMUM:
            return ExactLaw()
        if asked.name == BASE:
            return _base_model(asked, config)
        if asked.name in own:
            adapter = fetch_adapters(paths, own[asked.name]).adapters[own[asked.name]]
            return replace(_base_model(asked, config), spec=config.spec(adapter), inputs={own[asked.name]: adapter})
        return _checked(Plugin(asked.name, asked.name, config.baselines.get(asked.name, {})))
    taken = (*SEVERAL, OPTIMUM, BASE, *own, *forecaster_names())
    # a row that is called base and is not would be believed
    if asked.name in taken:
        raise UserError(f"compare.forecasters: '{asked.name}=': there is a forecaster of that name; take another name")
    if asked.plugin is not None:
        return _checked(Plugin(asked.name, asked.plugin, config.baselines.get(asked.name, {})))
    return _base_model(asked, config) if asked.adapter == BASE else _with_adapter(asked, config)


def _base_model(asked: Asked, config: RunConfig) -> LanguageModel:
    model = asked.model or config.model
    return LanguageModel(
        asked.name,
        replace(config.spec(), base=model),
        _prompt_for(model, config),
        config.generation,
        lora_rank=config.lora.rank,
        # the day in the settings is that of the run's model, and says nothing of another
        read_until=(config.compare.base_cutoff if model == config.model else None) or UNKNOWN,
    )


def _prompt_for(model: str, config: RunConfig) -> PromptConfig:
    """The run's prompt, in the usual style where the run's own model is embedded and this one is not, or the reverse.

    The embedded model was made for one wording, which others are not asked in.
    """
    embedded = model == EMBEDDED
    if embedded == (config.model == EMBEDDED):
        return config.prompt
    return replace(config.prompt, style=None).for_model(embedded=embedded)


def _with_adapter(asked: Asked, config: RunConfig) -> LanguageModel:
    """An adapter from anywhere, asked as its own record says.

    Raises:
        ModelError: it is not there, has no record, or belongs to another base model.
    """
    try:
        adapter = locate_adapter(str(asked.adapter))
        record = read_record(adapter)
        # the model that the word says, else the one that the adapter's own record names
        spec = replace(config.spec(adapter), base=asked.model or _base_of(record.base_model, config))
        check_adapter(adapter, spec)
    except ModelError as error:
        raise ModelError(f"compare.forecasters: '{asked.name}': {error}") from error
    return replace(
        _base_model(asked, config),
        spec=spec,
        # asked in the words that it was trained on, not in the run's
        prompt=record.prompt,
        inputs={asked.name: adapter},
        sizes=(record.window, record.horizon),
    )


def _base_of(recorded: str, config: RunConfig) -> str:
    """Where a base model that a record names is found: a Hub id, `embedded`, or the run's own folder of that name."""
    if recorded == base_name(config.model):
        return config.model
    # a record keeps only the name of a folder, which lies elsewhere on another machine
    if recorded != EMBEDDED and "/" not in recorded:
        raise ModelError(
            f"its adapter was trained on '{recorded}', which was a folder; say where it lies: NAME=ADAPTER@./{recorded}"
        )
    return recorded


def _checked(plugin: Plugin) -> Plugin:
    """The plugin, if it can be used with its settings."""
    missing = missing_packages(_plugin(plugin.reference))
    if missing:
        raise UserError(
            f"compare.forecasters: {plugin.name} needs {', '.join(missing)}, which is not installed; install what "
            f"README.md names for it, or leave {plugin.name} out"
        )
    _check_settings(plugin.name, plugin.reference, plugin.settings)
    return plugin


def _check_settings(name: str, reference: str, settings: Mapping[str, object], **place: str) -> None:
    _, own = split_calibration(name, _plugin(reference, **place), settings)
    forecaster_config(name, own, reference)


def _plugin(reference: str, *, place: str = "compare.forecasters") -> ForecasterPlugin:
    try:
        return forecaster_plugin(reference)
    except KeyError as error:
        more = ("llm", BASE, *(stage.forecaster for stage in ADAPTER_STAGES), "all") if place != "baselines" else ()
        there = ", ".join((*more, *forecaster_names()))
        raise UserError(f"{place}: there is no '{reference}'; there are {there}") from error


def language_models(contenders: Sequence[Contender]) -> list[LanguageModel]:
    """Those that answer in text."""
    return [contender for contender in contenders if isinstance(contender, LanguageModel)]
