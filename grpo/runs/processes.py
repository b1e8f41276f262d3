"""Which of the launcher's processes this is, and how many there are.

`torchrun` and `accelerate launch` start the processes and number them in the environment. All of them sample, train
and take part in validation; rank 0 alone decides and writes.
"""

from __future__ import annotations

import os
import sys

from preprocessing.errors import UserError

ASKED = "GRPO_NUM_PROCESSES"
"""Environment variable in which run_pipeline.sh says how many processes it asked the launcher for."""


SHARDING = {"DEEPSPEED": "ACCELERATE_USE_DEEPSPEED", "FSDP": "ACCELERATE_USE_FSDP"}
"""Kinds of sharded training, and the variable in which `accelerate launch` asks for each."""


def rank() -> int:
    """This process's number among those that the launcher started; 0 writes."""
    return int(os.environ.get("RANK", "0"))


def barrier() -> None:
    """Wait for the other processes, if the body has started a process group."""
    # Looked up and not imported, since a stage without torch should not load it to wait for nobody.
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def num_processes() -> int:
    """Processes that train together, as the launcher says; their number decides the global batch.

    Raises:
        UserError: the launcher was asked for another number. `accelerate launch` starts one process, without a word,
            for a file whose distributed_type is "NO" or MULTI_CPU, and for `--cpu`.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    # Whoever calls the launcher without run_pipeline.sh has asked for what it started.
    asked = int(os.environ.get(ASKED, started))
    if asked != started:
        raise UserError(
            f"--num-processes {asked}: the launcher started {started}; give an --accelerate-config whose "
            "distributed_type joins processes, such as configs/accelerate/ddp.yaml"
        )
    return started
