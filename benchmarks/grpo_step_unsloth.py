"""One GRPO step of Unsloth's own trainer, on the model and prompts of grpo_step.py, which calls this for `--unsloth`.

    python -m benchmarks.grpo_step_unsloth qwen2.5-0.5b 512x48x8x8 cuda bfloat16 3

Arguments: model, prompt x completion x G x prompts per step, device, precision, rounds. Prints the median seconds of
each part as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from grpo.models.config import LoraSettings
from grpo.models.spec import ModelSpec
from grpo.models.unsloth import activate, load_model
from grpo.runs.log import stage_entry


def main(arguments: Sequence[str] | None = None) -> None:
    size, sizes, device, dtype, rounds = sys.argv[1:] if arguments is None else arguments
    shape = tuple(map(int, sizes.split("x")))
    activate(ModelSpec(backend="unsloth"), sampler="transformers")
    # only now: Unsloth must be imported before what it replaces
    import trl

    from benchmarks.grpo_step import DTYPES, RANK, Clock, make_model, make_trainer, watch
    from grpo.embedded.tokenizer import build_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "model")
        make_model(size, dtype).save_pretrained(weights)
        build_tokenizer(10).save_pretrained(weights)
        model = load_model(
            ModelSpec(base=str(weights), backend="unsloth"),
            LoraSettings(rank=RANK, alpha=2 * RANK),
            dtype=DTYPES[dtype],
            max_seq_length=shape[0] + shape[1],
            seed=0,
        )
        trainer, clock = make_trainer(trl.GRPOTrainer, model, None, shape, device, dtype, folder), Clock(device)
        watch(trainer, clock)
        for _ in range(int(rounds) + 1):
            trainer.train()
    print(json.dumps(clock.medians()))


if __name__ == "__main__":
    sys.exit(stage_entry(main))
