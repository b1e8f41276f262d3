"""The trader's Decision Transformer against transformers' DecisionTransformerModel of the same size.

    .venv/bin/python benchmarks/decision_transformer.py                       # CPU, d_model 128, 6 layers, 128 bars
    .venv/bin/python benchmarks/decision_transformer.py --batch 8 --rounds 5
    .venv/bin/python benchmarks/decision_transformer.py --device cuda --batch 256

Both have the same width, depth, heads, context, dropout and MLP, and random weights; both read the same windows. Ours
drops no attention weights, and by default transformers' model does not either.

    training step   forward, CE(actions) + .1 MSE(next returns), backward, AdamW
    forward         all bars at once, without gradients
    roll-out        one bar after another, each action fed back; transformers' model has no cache for this and reads
                    the whole history again at each bar, as its documentation shows

transformers' model also predicts states, with one matrix of 17 x 128. After a round that warms up, the two are timed in
alternation; CPU times are CPU seconds of one thread, which other programs disturb least, on a GPU they are seconds on
the clock. The ratio is the median over the rounds of their seconds over ours in the same round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DecisionTransformerConfig, DecisionTransformerModel
from transformers.utils import logging

from baselines.decision_transformer.model import DecisionTransformer, ModelConfig, losses

Data = tuple[Tensor, Tensor, Tensor]
"""States [B, T, 17], actions [B, T], returns to go [B, T]."""


def reference(config: ModelConfig, attention_dropout: float) -> DecisionTransformerModel:
    return DecisionTransformerModel(
        DecisionTransformerConfig(
            state_dim=config.state_size,
            act_dim=config.num_actions,
            hidden_size=config.d_model,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            n_inner=4 * config.d_model,
            n_positions=3 * config.context,
            max_ep_len=config.context,
            activation_function="gelu",
            action_tanh=False,
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=attention_dropout,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def call_reference(model: DecisionTransformerModel, data: Data, scale: float) -> tuple[Tensor, Tensor]:
    """Action logits [B, T, A] and next returns [B, T]."""
    states, actions, returns = data
    batch, bars = actions.shape
    found = model(
        states=states,
        actions=functional.one_hot(actions, model.config.act_dim).float(),
        rewards=None,
        returns_to_go=scale * returns[..., None],
        timesteps=torch.arange(bars, device=states.device).expand(batch, -1),
        attention_mask=torch.ones(batch, bars, device=states.device),
    )
    return found.action_preds, found.return_preds[..., 0]


def our_training_step(model: DecisionTransformer, data: Data) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    mask = torch.ones_like(data[1], dtype=torch.bool)

    def step() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        entropy, error = losses(model(*data), data[1], data[2], mask, model.config.return_scale)
        (entropy + 0.1 * error).backward()
        optimizer.step()

    return step


def their_training_step(model: DecisionTransformerModel, data: Data, scale: float) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        logits, returns = call_reference(model, data, scale)
        entropy = functional.cross_entropy(logits.flatten(0, 1), data[1].flatten())
        error = (returns[:, :-1] - scale * data[2][:, 1:]).square().mean()
        (entropy + 0.1 * error).backward()
        optimizer.step()

    return step


@torch.no_grad()
def our_rollout(model: DecisionTransformer, data: Data) -> None:
    states, actions, returns = data
    model.eval()
    cache, taken = model.new_cache(len(states)), None
    for bar in range(actions.shape[1]):
        taken = model.step(cache, states[:, bar], returns[:, bar], taken).argmax(dim=-1)


@torch.no_grad()
def their_rollout(model: DecisionTransformerModel, data: Data, scale: float) -> None:
    states, actions, returns = data
    model.eval()
    taken = torch.zeros_like(actions)
    for bar in range(1, actions.shape[1] + 1):
        logits, _ = call_reference(model, (states[:, :bar], taken[:, :bar], returns[:, :bar]), scale)
        taken[:, bar - 1] = logits[:, -1].argmax(dim=-1)


def seconds(work: Callable[[], object], device: str) -> float:
    if device == "cpu":
        began = time.process_time()
        work()
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int, device: str) -> None:
    both = {"ours": ours, "theirs": theirs}
    taken: dict[str, list[float]] = {key: [] for key in both}
    for number in range(rounds + 1):
        for key in sorted(both, reverse=bool(number % 2)):
            spent = seconds(both[key], device)
            if number:
                taken[key].append(spent)
    ratios = [b / a for a, b in zip(taken["ours"], taken["theirs"], strict=True)]
    medians = {key: statistics.median(values) for key, values in taken.items()}
    print(
        f"| {name} | {medians['ours']:.3f} s | {medians['theirs']:.3f} s | {statistics.median(ratios):.2f} | "
        f"{min(ratios):.2f} to {max(ratios):.2f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32, help="windows of the training step and the forward pass")
    parser.add_argument("--rollout-batch", type=int, default=1, help="markets that are acted in side by side")
    parser.add_argument(
        "--attention-dropout", type=float, default=0.0, help="of transformers' model; its default is .1"
    )
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config, device = ModelConfig(), arguments.device

    def windows(count: int) -> Data:
        shape = (count, config.context)
        data = torch.randn(*shape, config.state_size), torch.randint(5, shape), 0.01 * torch.randn(shape)
        return data[0].to(device), data[1].to(device), data[2].to(device)

    ours, theirs = DecisionTransformer(config).to(device), reference(config, arguments.attention_dropout).to(device)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    print(f"{sizes[0]:,} parameters, transformers' {sizes[1]:,}; {arguments.batch} windows of {config.context} bars\n")
    print("| | ours | transformers | theirs / ours | range over rounds |\n|---|---|---|---|---|")
    many, few, scale = windows(arguments.batch), windows(arguments.rollout_batch), config.return_scale

    def forward(model: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            ours.eval(), theirs.eval()
            with torch.no_grad():
                model()

        return run

    compare(
        "training step",
        our_training_step(ours, many),
        their_training_step(theirs, many, scale),
        arguments.rounds,
        device,
    )
    compare(
        "forward",
        forward(lambda: ours(*many)),
        forward(lambda: call_reference(theirs, many, scale)),
        arguments.rounds,
        device,
    )
    compare(
        f"roll-out of {config.context} bars",
        lambda: our_rollout(ours, few),
        lambda: their_rollout(theirs, few, scale),
        arguments.rounds,
        device,
    )


if __name__ == "__main__":
    main()
