"""What runs inside the processes: a stage of a tiny run, with what a test wants to see of it recorded per rank."""

from __future__ import annotations

import json
import os
import signal
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import safetensors.torch
import torch

from grpo.runs.processes import rank
from grpo.sampling.completion_logits import unwrapped
from grpo.training.trainer import SharedPromptGRPOTrainer
from grpo.training.validation_guard import StageProgress
from tests.tiny_runs import TinyRun


def run_stage(root: Path, stage: str, flags: list[str]) -> None:
    """The stage as it is; ends with its exit code."""
    sys.exit(TinyRun(root).stage(stage, *flags))


def recorded_stage(root: Path, stage: str, record: Path, flags: list[str]) -> None:
    """The stage with completions from a table; leaves record/rankN.pt with gradients, and rankN.json with windows."""
    torch.set_num_threads(1)
    record.mkdir(parents=True, exist_ok=True)
    seen: dict[str, list[Any]] = {"windows": [], "rewards": []}
    gradients: list[dict[str, torch.Tensor]] = []
    SharedPromptGRPOTrainer._generate_single_turn = answers_of_the_table  # type: ignore[method-assign]
    calculate: Callable[..., Any] = SharedPromptGRPOTrainer._calculate_rewards

    def calculate_rewards(self: Any, inputs: Any, *arguments: Any) -> Any:
        rewards = calculate(self, inputs, *arguments)
        seen["windows"].append([row["window_id"] for row in inputs])
        seen["rewards"].append(rewards.tolist())
        return rewards

    def on_pre_optimizer_step(self: Any, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        named = unwrapped(model).named_parameters()
        gradients.append({name: value.grad.clone() for name, value in named if value.grad is not None})

    SharedPromptGRPOTrainer._calculate_rewards = calculate_rewards  # type: ignore[method-assign]
    StageProgress.on_pre_optimizer_step = on_pre_optimizer_step  # type: ignore[method-assign]
    code = TinyRun(root).stage(stage, *flags)
    torch.save(gradients, record / f"rank{rank()}.pt")
    (record / f"rank{rank()}.json").write_text(json.dumps(seen))
    sys.exit(code)


def answers_of_the_table(self: Any, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
    """A walk for each prompt and each of its copies, told by the prompt alone; some are cut short."""
    copies: dict[tuple[int, ...], int] = {}
    answers = []
    for prompt in prompt_ids:
        copy = copies[tuple(prompt)] = copies.get(tuple(prompt), -1) + 1
        noise = np.random.default_rng([zlib.crc32(np.array(prompt).tobytes()), copy])
        levels = np.clip(500 + np.cumsum(noise.normal(0, 20, self._horizon)), 1, 999)
        ids = self._tokenizer(self._form.render(levels), add_special_tokens=False)["input_ids"]
        answers.append([*ids, self.eos_token_ids[0]] if copy % 4 else ids[: len(ids) // 2])
    return answers, None


def watched_stage(root: Path, stage: str, flags: list[str], record: Path) -> None:
    """The stage; leaves record/rankN.json with every path under the run that this process wrote, moved or removed."""
    record.mkdir(parents=True, exist_ok=True)
    touched: list[str] = []

    def note(path: Any) -> None:
        if isinstance(path, (str, os.PathLike)) and Path(path).is_relative_to(root):
            touched.append(str(Path(path).relative_to(root)))

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & writing
        if opened or event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.truncate"):
            note(arguments[0])

    def noting(save: Callable[..., Any]) -> Callable[..., Any]:
        def saved(content: Any, file: Any, *arguments: Any, **settings: Any) -> Any:
            note(file)
            return save(content, file, *arguments, **settings)

        return saved

    sys.addaudithook(audit)
    # These two write from C++ and Rust, past the interpreter's audit.
    torch.save = noting(torch.save)
    peft.peft_model.safe_save_file = noting(safetensors.torch.save_file)
    code = TinyRun(root).stage(stage, *flags)
    (record / f"rank{rank()}.json").write_text(json.dumps(sorted(set(touched))))
    sys.exit(code)


def killed_stage(root: Path, stage: str, flags: list[str], victim: int, step: int) -> None:
    """The stage, in which one rank is killed before a step."""

    def on_step_begin(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == step and rank() == victim:
            os.kill(os.getpid(), signal.SIGKILL)

    StageProgress.on_step_begin = on_step_begin  # type: ignore[method-assign]
    run_stage(root, stage, flags)


if __name__ == "__main__":  # under a real launcher: ROOT STAGE RECORD FLAGS...
    recorded_stage(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
