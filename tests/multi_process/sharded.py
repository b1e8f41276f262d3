"""What runs in each process of the FSDP2 tests: a tiny model as a whole, and the same sharded over the processes."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch.distributed import barrier, destroy_process_group, init_process_group
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from grpo.runs.processes import rank
from grpo.sampling.completion_logits import completion_logits
from grpo.sampling.generation import sample_completions
from grpo.training.launcher import unsharded
from tests.tiny_models import tiny_model

LENGTH = 5


def make_model():
    model, _ = tiny_model("llama")
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)).eval()


def make_sharded(count: int):
    model, mesh = make_model(), init_device_mesh("cpu", (count,))
    for layer in model.base_model.model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def loss_of(model, of_rank: int) -> torch.Tensor:
    """Of two prompts with two completions each, which differ between the ranks."""
    noise = torch.Generator().manual_seed(of_rank)
    prompts = torch.randint(5, 900, (2, 9), generator=noise).repeat_interleave(2, 0)
    ids = torch.cat([prompts, torch.randint(5, 900, (4, LENGTH), generator=noise)], 1)
    logits = completion_logits(model, ids, torch.ones_like(ids), LENGTH)
    return -torch.log_softmax(logits, -1).gather(2, ids[:, -LENGTH:, None]).mean()


def compare_with_the_whole(count: int, record: Path) -> None:
    """Leaves record/rankN.pt: samples, weights and gradients of the sharded model, and those of the whole one."""
    init_process_group("gloo")
    whole, model = make_model(), make_sharded(count)

    def sample(of: torch.nn.Module) -> torch.Tensor:
        # each process for a different number of steps, as where answers end early
        noise = torch.Generator().manual_seed(rank())
        prompts = [list(range(5, 15 + rank())), [100, 200, 300]]
        return sample_completions(
            of, prompts, num_samples=3, max_new_tokens=4 + 3 * rank(), eos_ids=[2000], pad_id=0, generator=noise
        )

    with unsharded(model):
        samples = sample(model)
        weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    sharded = {name: tuple(value.to_local().shape) for name, value in model.named_parameters()}  # type: ignore[operator]
    for module in (model, whole):
        module.train()
    loss_of(model, rank()).backward()
    gradients = {name: value.grad.full_tensor() for name, value in model.named_parameters() if value.grad is not None}
    (sum(loss_of(whole, other) for other in range(count)) / count).backward()
    expected = {name: value.grad for name, value in whole.named_parameters() if value.grad is not None}
    record.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "samples": (samples, sample(whole.eval())),
            "weights": (weights, {name: value.detach() for name, value in whole.named_parameters()}),
            "gradients": (gradients, expected),
            "sharded": sharded,
        },
        record / f"rank{rank()}.pt",
    )
    barrier()
    destroy_process_group()
