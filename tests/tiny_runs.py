"""Whole runs in a temporary folder with tiny settings, each stage called in this process."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grpo.config import RunConfig, parse_run_config
from grpo.runs.folder import RunPaths, resolve_paths
from grpo.runs.log import stage_entry
from grpo.runs.stages import stage_of

STOCK, SLUG = "sim:ou?rows=400", "sim_ou_rows-400"
STEPS, GROUP, PROMPTS = 4, 4, 2
WINDOWS, SAMPLES, KEPT = 12, 8, 4

GRPO_FLAGS = {
    "steps": STEPS,
    "num_generations": GROUP,
    "prompts_per_step": PROMPTS,
    "warmup_steps": 1,
    "eval_every": 2,
    "eval_windows": 4,
}
FLAGS: dict[str, dict[str, object]] = {
    "preprocess": {},
    "stage1": {f"stage1.{name}": value for name, value in GRPO_FLAGS.items()},
    "rejection": {"rejection.max_windows": WINDOWS, "rejection.num_samples": SAMPLES, "rejection.keep": KEPT},
    "stage2": {"stage2.batch_size": 8, "stage2.trl": "{save_steps: 2}"},
    "stage3": {f"stage3.{name}": value for name, value in GRPO_FLAGS.items()} | {"stage3.beta": 0.1},
    "compare": {"compare.max_windows": 8, "compare.num_samples": 10},
}


def paths_of(config: RunConfig) -> RunPaths:
    """The places of all files of a run."""
    return resolve_paths(config.paths, config.run_folder, config.stock_slug)


class TinyRun:
    """A run folder and a models folder; `stage` runs one stage and gives its exit code."""

    def __init__(self, root: Path):
        self.root, self.folder, self.models = root, root / "run", root / "models"

    def arguments(self, stage: str, *flags: object) -> list[str]:
        settings = {"stock": STOCK, "run_dir": self.folder, "models_dir": self.models, **FLAGS[stage]}
        return [str(part) for name, value in settings.items() for part in (f"--{name}", value)] + [*map(str, flags)]

    def config(self, stage: str, *flags: object) -> RunConfig:
        return parse_run_config(self.arguments(stage, *flags), prog=stage, description="")

    def stage(self, stage: str, *flags: object) -> int:
        module = importlib.import_module(stage_of(stage).module)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [stage, *self.arguments(stage, *flags)])
            return stage_entry(module.main)

    def stages(self, *names: str) -> TinyRun:
        """Run several stages, all of which must succeed."""
        for name in names:
            assert self.stage(name) == 0, name
        return self

    def place(self, stage: str) -> Path:
        return self.folder / stage_of(stage).folder


NEEDS_UNSLOTH = pytest.mark.skipif(
    importlib.util.find_spec("unsloth") is None, reason="Unsloth is not installed: tests/run_unsloth.sh"
)
UNSLOTH_ANYWHERE = """
import torch
from grpo.models import unsloth as unsloth_backend
if not torch.cuda.is_available():  # Unsloth then takes a slow path of its own, which the stages refuse
    unsloth_backend.cuda_devices = lambda: ["none, but the same calls"]
"""
UNSLOTH_STAGE = f"""{UNSLOTH_ANYWHERE}
import importlib, sys
from grpo.runs.log import stage_entry
from grpo.runs.stages import stage_of
raise SystemExit(stage_entry(importlib.import_module(stage_of(sys.argv.pop(1)).module).main))
"""


class UnslothRun(TinyRun):
    """Trains with Unsloth, in a process of its own, since it must be imported before all that is imported here."""

    def stage(self, stage: str, *flags: object) -> int:
        if not stage_of(stage).adapter:
            return super().stage(stage, *flags)
        command = [sys.executable, "-c", UNSLOTH_STAGE, stage, *self.arguments(stage, "--backend", "unsloth", *flags)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        # in a folder of its own, where Unsloth leaves what it compiles
        return subprocess.run(command, cwd=self.root, env=environment, check=False).returncode
