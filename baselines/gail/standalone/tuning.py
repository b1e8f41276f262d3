"""A search of settings by Optuna (Akiba et al. 2019), which goes on where it was cut short.

Every trial trains in a folder of its own; the journal holds which settings were tried and what they reached. The
lowest validation loss wins: test demonstrations play no part.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml

from baselines.building_blocks.packages import import_optional
from baselines.gail.config import TUNING, GailConfig
from baselines.gail.standalone.train import TrainConfig, load_demonstrations, spread_evenly
from baselines.gail.two_stages import fit_networks
from baselines.neural.seeds import number
from preprocessing.files import write_atomically

JOURNAL, BEST = "tuning.journal", "best.yaml"


def suggest(trial: Any, config: GailConfig) -> GailConfig:
    """The settings of a trial: those that are searched, and the rest from `config`."""
    return dataclasses.replace(
        config,
        hidden_size=trial.suggest_categorical("hidden_size", [16, 24, 48]),
        pretrain_learning_rate=trial.suggest_float("pretrain_learning_rate", 5e-4, 5e-3, log=True),
        weight_decay=trial.suggest_float("weight_decay", 0.01, 3.0, log=True),
        learning_rate=trial.suggest_float("learning_rate", 3e-5, 1e-3, log=True),
        kl_weight=trial.suggest_float("kl_weight", 0.01, 1.0, log=True),
        discriminator_learning_rate=trial.suggest_float("discriminator_learning_rate", 3e-4, 1e-2, log=True),
        gradient_penalty=trial.suggest_float("gradient_penalty", 0.1, 10.0, log=True),
    )


def tune(config: TrainConfig) -> tuple[int, float]:
    """Search until `config.tune` trials are complete, and write the best settings; gives how many are, and the best.

    Raises:
        MissingPackageError: optuna is not installed.
        UserError: the data are not there.
    """
    optuna = import_optional("optuna", needed_by="gail --tune", install="grpo-forecast[gail]")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = config.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    parts = load_demonstrations(config)
    looked_at = spread_evenly(parts["val"], config.gail.validation_steps // parts["val"].returns.shape[1])
    backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend), study_name="gail", direction="minimize", load_if_exists=True
    )

    def objective(trial: Any) -> float:
        settings = suggest(trial, config.gail)
        fitted = fit_networks(
            settings,
            parts["train"],
            looked_at,
            seed=config.seed,
            folder=folder / "trials" / str(trial.number),
            title=f"trial {trial.number}",
        )
        fitted.discard_checkpoints()
        assert fitted.imitation is not None
        return fitted.imitation.loss

    def complete() -> int:
        return len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE]))

    while complete() < config.tune:
        # a sampler begins anew with the process: its seed must differ from that of the trials before
        study.sampler = optuna.samplers.TPESampler(seed=number(config.seed, TUNING, len(study.trials)))
        study.optimize(objective, n_trials=1)
    best = suggest(optuna.trial.FixedTrial(study.best_params), config.gail)
    write_atomically(folder / BEST, yaml.safe_dump({"gail": dataclasses.asdict(best)}, sort_keys=False))
    return complete(), study.best_value
