"""Several processes that train one model: that they have met, and who holds the weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from peft import PeftModel
from torch.distributed.fsdp import FSDPModule
from transformers import Trainer

from grpo.runs.processes import SHARDING, num_processes
from grpo.runs.resume import StageRun
from grpo.training.trl_seam import gathered_model
from preprocessing.errors import UserError


def run_training(trainer: Trainer, stage: StageRun) -> None:
    """Train from the start or from the stage's checkpoint, until every process has ended.

    Raises:
        UserError: the processes were started together, but have not met, or would not shard what they were asked to.
    """
    # Processes that have not met train a model each, and all of them write to one folder.
    met = trainer.accelerator.num_processes
    if met != num_processes():
        raise UserError(
            f"{num_processes()} processes were started, but each trains with {met}; on a CPU start them with "
            "ACCELERATE_USE_CPU=true"
        )
    for sharding, variable in SHARDING.items():
        running = trainer.accelerator.distributed_type.value
        if os.environ.get(variable) == "true" and running != sharding:
            raise UserError(
                f"--accelerate-config asks for {sharding}, in place of which accelerate runs {running} without a GPU; "
                "take configs/accelerate/ddp.yaml"
            )
    _load_onto_numbered_cpus()
    trainer.train(resume_from_checkpoint=str(stage.resume_from) if stage.resume_from else None)
    trainer.accelerator.wait_for_everyone()


@contextmanager
def whole_model(trainer: Trainer) -> Iterator[PeftModel]:
    """The trained model as one process has it: without its wrappers, and with all weights where ZeRO-3 or FSDP2 shards.

    Every process must enter and leave, since gathering is done together; within, each may go its own way.
    """
    with gathered_model(trainer) as model, unsharded(model):
        yield model


@contextmanager
def unsharded(model: torch.nn.Module) -> Iterator[None]:
    """Keep the weights that FSDP2 shards whole while the block runs; nothing for other models.

    After it every shard is freed after its forward, also one that FSDP2 would have kept: slower, and nothing else.
    """
    shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for shard in shards:
        shard.set_reshard_after_forward(False, recurse=False)
        shard.unshard()
    try:
        yield
    finally:
        for shard in shards:
            shard.set_reshard_after_forward(True, recurse=False)
            shard.reshard()


@cache
def _load_onto_numbered_cpus() -> None:
    """Let `torch.load` put tensors onto "cpu:0", as accelerate calls the CPU where there are several processes.

    Without this a resumed run of several processes on a CPU stops at its optimizer's state (torch 2.13, transformers
    5.17). Remove when torch.load knows numbered CPUs.
    """
    torch.serialization.register_package(
        15, lambda storage: None, lambda storage, location: storage if location.startswith("cpu:") else None
    )
