from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

from grpo.embedded.tokenizer import build_tokenizer
from grpo.models.adapters import ModelError
from grpo.sampling.completion_logits import cached_logits, packed_logits
from grpo.sampling.generation import _draw, sample_completions, trim_completions
from grpo.sampling.shared_attention import MODEL_TYPES
from grpo.sampling.vllm_engine import StaleWeightsError
from grpo.training.trainer import SharedPromptGRPOTrainer
from tests.tiny_models import ARCHITECTURES, tiny_model

GROUP, PROMPTS, LENGTH = 4, 3, 12


def reward(completion_ids, **_):
    return [0.1 * (len(ids) % 5) + 0.01 * (ids[0] % 7) for ids in completion_ids]


def make_trainer(trainer_class, architecture: str, folder, **arguments):
    model, tokenizer = tiny_model(architecture) if architecture in ARCHITECTURES else unfamiliar_model(architecture)
    numbers = [" ".join(str(7 * i + 13 * j) for j in range(10 + 3 * i)) for i in range(6)]  # ragged prompts
    rows = [
        {"prompt": [{"role": "user", "content": f"closes {text}"}], "window_id": i} for i, text in enumerate(numbers)
    ]
    values = {
        "output_dir": str(folder),
        "per_device_train_batch_size": GROUP * PROMPTS,
        "num_generations": GROUP,
        "max_completion_length": LENGTH,
        "max_steps": 2,
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "learning_rate": 1e-2,
        "gradient_checkpointing": False,
        "top_k": 0,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "seed": 3,
    }
    return trainer_class(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(**(values | arguments)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )


def unfamiliar_model(kind: str):
    """A tiny model of a kind that the sharing was not made for."""
    sizes = {
        "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 512},
        "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
        "qwen3_next": {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 8, "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4,
            "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_experts": 4,
            "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
        },
        "phi3": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    }  # fmt: skip
    torch.manual_seed(0)
    tokenizer = build_tokenizer(10)
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), pad_token_id=0, **sizes[kind])
    return AutoModelForCausalLM.from_config(config), tokenizer


def perturb_adapter(trainer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in trainer.model.named_parameters():
        if "lora_" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def loss_and_gradient(trainer, batch):
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradient_equal_stock_trl_on_the_same_batch(architecture, beta, checkpointing, tmp_path):
    # Three numbers end a completion, so that lengths differ; num_iterations 2 makes old log-probs part of the loss.
    trainer = make_trainer(
        SharedPromptGRPOTrainer,
        architecture,
        tmp_path,
        beta=beta,
        num_iterations=2,
        gradient_checkpointing=checkpointing,
    )
    assert trainer.share_prompts
    trainer.current_gradient_accumulation_steps = 1
    perturb_adapter(trainer, seed=1)
    trainer.eos_token_ids = list(range(5, 400, 3))
    trainer.model.train()
    if checkpointing:
        trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
    assert trainer.model.is_gradient_checkpointing == checkpointing
    rows = [trainer.train_dataset[i] for i in range(PROMPTS) for _ in range(GROUP)]
    torch.manual_seed(0)
    batch = trainer._prepare_inputs(rows)
    lengths = batch["completion_mask"].sum(1)
    assert lengths.min() < lengths.max()
    assert batch["prompt_mask"].sum(1).unique().numel() == PROMPTS
    perturb_adapter(trainer, seed=2)  # the policy moves away from the one that sampled: ratios are live
    shared_loss, shared_gradient = loss_and_gradient(trainer, batch)
    trainer.share_prompts = False
    stock_loss, stock_gradient = loss_and_gradient(trainer, batch)
    assert shared_loss == pytest.approx(stock_loss, abs=1e-5)
    assert max(g.abs().max() for g in stock_gradient.values()) > 1e-4
    for name, gradient in stock_gradient.items():
        torch.testing.assert_close(shared_gradient[name], gradient, rtol=1e-3, atol=2e-5)


def both_ways(architecture: str, folder, *, use_cpu: bool, bfloat16: bool = False):
    """Loss and gradient of one batch with the prompt shared, and of the same batch as stock TRL computes them."""
    trainer = make_trainer(SharedPromptGRPOTrainer, architecture, folder, use_cpu=use_cpu, num_iterations=2)
    assert trainer.share_prompts
    trainer.current_gradient_accumulation_steps = 1
    perturb_adapter(trainer, seed=1)
    trainer.model.train()
    rows = [trainer.train_dataset[i] for i in range(PROMPTS) for _ in range(GROUP)]
    torch.manual_seed(0)
    batch = trainer._prepare_inputs(rows)
    perturb_adapter(trainer, seed=2)
    results = []
    for shared in (True, False):
        trainer.share_prompts = shared
        with torch.autocast(trainer.model.device.type, torch.bfloat16, enabled=bfloat16):
            results.append(loss_and_gradient(trainer, batch))
    return results, trainer, batch


def distance(gradients, others) -> float:
    return sum(float((gradients[name] - others[name]).float().square().sum()) for name in gradients) ** 0.5


def assert_bfloat16_rounds_alike(architecture: str, folder, *, use_cpu: bool) -> None:
    """Ours and stock's gradient in bfloat16 are no further apart than rounding puts stock's from float32."""
    ((_, gradient), (_, stock)), trainer, batch = both_ways(architecture, folder, use_cpu=use_cpu, bfloat16=True)
    _, exact = loss_and_gradient(trainer, batch)  # in float32
    rounding = distance(stock, exact)
    assert rounding > 0
    assert distance(gradient, stock) < 3 * rounding  # a completion placed one position off: 4 to 16 times


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma"])
def test_bfloat16_rounds_as_stock_trl_does(architecture, tmp_path):
    assert_bfloat16_rounds_alike(architecture, tmp_path, use_cpu=True)


def test_stored_log_probs_equal_stock_trl(tmp_path):
    trainer = make_trainer(SharedPromptGRPOTrainer, "llama", tmp_path, beta=0.1, num_iterations=2)
    perturb_adapter(trainer, seed=1)
    trainer.model.train()
    rows = [trainer.train_dataset[i] for i in range(PROMPTS) for _ in range(GROUP)]
    torch.manual_seed(0)
    batch = trainer._prepare_inputs(rows)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    keep = batch["completion_ids"].shape[1]
    with torch.no_grad():
        stock, _, _ = GRPOTrainer._get_per_token_logps_and_entropies(trainer, trainer.model, ids, mask, keep)
        with trainer.model.disable_adapter():
            reference, _, _ = GRPOTrainer._get_per_token_logps_and_entropies(trainer, trainer.model, ids, mask, keep)
    torch.testing.assert_close(batch["old_per_token_logps"] * batch["completion_mask"], stock, rtol=0, atol=1e-4)
    torch.testing.assert_close(batch["ref_per_token_logps"] * batch["completion_mask"], reference, rtol=0, atol=1e-4)
    assert (stock - reference).abs().max() > 0.1


def test_micro_batches_hold_whole_groups_and_add_up_to_stock_trls_gradient(tmp_path):
    trainer = make_trainer(
        SharedPromptGRPOTrainer,
        "llama",
        tmp_path,
        per_device_train_batch_size=GROUP,
        gradient_accumulation_steps=PROMPTS,
        max_steps=1,
    )
    assert trainer.args.steps_per_generation == PROMPTS
    perturb_adapter(trainer, seed=1)
    seen = []
    compute = trainer._compute_loss

    def both_ways(model, inputs):
        seen.append(inputs)
        return compute(model, inputs)

    trainer._compute_loss = both_ways
    trainer.train()
    assert len(seen) == PROMPTS
    prompts = [torch.unique(inputs["prompt_ids"], dim=0) for inputs in seen]
    assert [len(rows) for rows in prompts] == [1] * PROMPTS
    assert len({tuple(rows[0].tolist()) for rows in prompts}) == PROMPTS
    gradients = []
    for share in (True, False):
        trainer.share_prompts = share
        trainer.model.zero_grad()
        for inputs in seen:
            compute(trainer.model, inputs).backward()
        gradients.append({n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None})
    assert max(g.abs().max() for g in gradients[1].values()) > 1e-4
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_a_wrong_position_would_be_seen(architecture):
    # Guards the guards: on these models a shift of the completion by one position changes the logits.
    model, _ = tiny_model(architecture)
    ids = torch.randint(5, 900, (2, 20), generator=torch.Generator().manual_seed(0))
    right = model(input_ids=ids).logits[:, -1]
    shifted = torch.arange(20).repeat(2, 1)
    shifted[:, 10:] += 1
    assert (model(input_ids=ids, position_ids=shifted).logits[:, -1] - right).abs().max() > 1e-2


@pytest.mark.parametrize("logits", [cached_logits, packed_logits])
def test_shared_logits_do_not_depend_on_row_order(logits):
    model, _ = tiny_model("llama")
    prompts = torch.randint(5, 900, (2, 9), generator=torch.Generator().manual_seed(0))
    completions = torch.randint(5, 900, (6, 5), generator=torch.Generator().manual_seed(1))
    ids = torch.cat([prompts[[0, 1, 0, 0, 1, 0]], completions], 1)  # four of one prompt, two of the other
    mask = torch.ones_like(ids)
    mask[[1, 4], :3] = 0  # the second prompt is shorter
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    straight = logits(model, ids, mask, 5)
    torch.testing.assert_close(logits(model, ids[order], mask[order], 5), straight[order], rtol=1e-4, atol=1e-5)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    stock = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -6:-1]
    torch.testing.assert_close(straight, stock, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_greedy_samples_equal_generate(architecture):
    model, _ = tiny_model(architecture)
    model.eval()
    prompts = [[5, 6, 7, 8, 9, 10], [100, 200, 300]]
    ours = sample_completions(model, prompts, num_samples=2, max_new_tokens=8, eos_ids=[2000], pad_id=0, temperature=0)
    for row, prompt in enumerate(prompts):
        theirs = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=None)
        assert ours[2 * row].tolist() == theirs[0, len(prompt) :].tolist()
        assert ours[2 * row + 1].tolist() == ours[2 * row].tolist()


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_samples_with_an_adapter_equal_those_of_a_cache_with_a_copy_per_sample(architecture, monkeypatch):
    model, _ = tiny_model(architecture)
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)).eval()
    prompts = [list(range(5, 15)), [100, 200, 300]]

    def sample():
        return sample_completions(
            model, prompts, num_samples=6, max_new_tokens=8, eos_ids=[2000], pad_id=0,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip

    before = model.config._attn_implementation
    shared = sample()
    assert model.config._attn_implementation == before
    assert set(ARCHITECTURES) >= MODEL_TYPES
    monkeypatch.setattr("grpo.sampling.shared_attention.MODEL_TYPES", frozenset())
    monkeypatch.setattr("grpo.sampling.shared_attention._MERGED_BYTES", 0)
    torch.testing.assert_close(shared, sample(), rtol=0, atol=0)
    with model.disable_adapter():
        assert not torch.equal(shared, sample())


def test_sampled_frequencies_equal_the_models_probabilities():
    model, _ = tiny_model("llama")
    model.eval()
    prompt = [5, 6, 7, 8]
    with torch.no_grad():
        expected = torch.softmax(model(torch.tensor([prompt])).logits[0, -1] / 0.7, -1)
    draws = sample_completions(
        model, [prompt], num_samples=20_000, max_new_tokens=1, eos_ids=[2000], pad_id=0, temperature=0.7,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    observed = torch.bincount(draws[:, 0], minlength=len(expected)) / len(draws)
    noise = (2 * expected * (1 - expected) / (torch.pi * len(draws))).sqrt()  # mean absolute multinomial deviation
    assert (observed - expected).abs().sum() < 1.15 * noise.sum()
    flatter = torch.softmax(expected.log() * 0.9, -1)
    assert (observed - flatter).abs().sum() > 1.15 * noise.sum()  # a temperature 10 % off would be seen


@pytest.mark.parametrize("vocabulary", [5, 32, 100, 1407])
def test_draws_invert_the_distribution_function(vocabulary, monkeypatch):
    logits = 3 * torch.randn(400, vocabulary, generator=torch.Generator().manual_seed(0))
    logits[:, [0, -1]] = -torch.inf  # impossible tokens stand where rounding would lead
    uniform = torch.rand(400, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    uniform[0], uniform[1] = 0, 1 - 2**-53
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: uniform)
    drawn = _draw(logits, 0.7, None)
    assert not torch.isinf(logits[torch.arange(400), drawn]).any()
    distribution = torch.softmax(logits.double() / 0.7, -1).cumsum(-1)
    assert (distribution[torch.arange(400), drawn] > uniform[:, 0] - 1e-6).all()
    before = torch.where(drawn > 0, distribution[torch.arange(400), drawn - 1], 0)
    assert (before < uniform[:, 0] + 1e-6).all()


def test_completions_end_at_the_first_end_token():
    assert trim_completions(torch.tensor([[4, 9, 4, 0], [1, 2, 3, 4]]), [9, 8]) == [[4, 9], [1, 2, 3, 4]]


def test_whole_training_equals_stock_trl(tmp_path):
    """Same seed, sampling by the same path, two optimizer steps: equal weights, so only the loss could differ."""
    weights = []
    for share in (True, False):
        trainer = make_trainer(SharedPromptGRPOTrainer, "qwen2", tmp_path / str(share), beta=0.05)
        if not share:
            trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (
                GRPOTrainer._get_per_token_logps_and_entropies(trainer, *args, **kwargs)  # noqa: B023
            )
        torch.manual_seed(5)
        trainer.train()
        weights.append({n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad})
    start = make_trainer(SharedPromptGRPOTrainer, "qwen2", tmp_path / "start", beta=0.05).model.named_parameters()
    moved = [(weights[0][n] - p).abs().max() for n, p in start if p.requires_grad]
    assert max(moved) > 1e-3
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"top_k": 5}, "top_k"),
        ({"top_p": 0.9}, "top_p"),
    ],
)
def test_where_sharing_does_not_apply_it_says_so_and_still_trains(arguments, said, tmp_path, capsys):
    trainer = make_trainer(SharedPromptGRPOTrainer, "llama", tmp_path, **arguments)
    assert not trainer.share_prompts
    assert said in capsys.readouterr().out
    trainer.train()
    assert trainer.state.global_step == 2


@pytest.mark.parametrize(
    ("kind", "checkpointing", "said"),
    [
        ("mpt", True, r"changes this model's log-probabilities by 0\.\d+ per token"),  # ALiBi counts a row's places
        ("bloom", True, r"ValueError: too many values"),  # takes no mask but one of padding
        ("qwen3_next", False, "recurrent layers"),
        ("mpt", False, None),
        ("phi3", True, None),
    ],
)
def test_a_model_that_does_not_answer_alike_shares_no_prompts(kind, checkpointing, said, tmp_path, capsys):
    trainer = make_trainer(SharedPromptGRPOTrainer, kind, tmp_path, gradient_checkpointing=checkpointing, max_steps=1)
    trainer.train()
    assert trainer.share_prompts == (said is None)
    note = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note:")]
    assert len(note) == (said is not None)
    assert said is None or re.search(said, note[0])


def test_recurrent_models_are_not_sampled_by_a_cache():
    model, _ = unfamiliar_model("qwen3_next")
    with pytest.raises(ModelError, match=r"qwen3_next keep a recurrent state .*vllm"):
        sample_completions(model, [[5, 6, 7]], num_samples=2, max_new_tokens=2, eos_ids=[1], pad_id=0)


class Server:
    """Answers as a `trl vllm-serve` does, from the weights that it was sent last."""

    def __init__(self, trainer) -> None:
        self.trainer, self.listens = trainer, True
        self.model, _ = tiny_model("llama")
        self.model = get_peft_model(self.model, trainer.model.peft_config["default"]).eval()

    def sync_weights(self) -> None:
        if self.listens:
            self.model.load_state_dict(self.trainer.model.state_dict())

    @torch.no_grad()
    def generate(self, prompts, **kwargs):
        completions, log_probs = [], []
        for prompt in prompts:
            ids = torch.tensor([[*prompt, 7, 8, 9]])
            own = torch.log_softmax(self.model(ids).logits[0] / self.trainer.temperature, -1)
            completions.append([7, 8, 9])
            log_probs.append([[own[len(prompt) - 1 + i, token].item()] for i, token in enumerate((7, 8, 9))])
        return None, completions, log_probs, None


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_server_that_keeps_old_weights_stops_the_run(temperature, tmp_path):
    trainer = make_trainer(SharedPromptGRPOTrainer, "llama", tmp_path, temperature=temperature)
    trainer.use_vllm, trainer._last_loaded_step = True, -1
    trainer.vllm_generation = server = Server(trainer)
    prompts = [[5, 6, 7, 10], [8, 9, 11], [8, 9, 11]]

    def roll_out(step: int):
        trainer.state.global_step = step
        perturb_adapter(trainer, seed=step)
        return trainer._generate_single_turn(prompts, None, {}, GROUP)

    completions, log_probs = roll_out(0)
    assert completions == [[7, 8, 9]] * 3
    assert np.shape(log_probs) == (3, 3)
    assert trainer._pending_metrics["sampling/canary"][-1] < 1e-5
    server.listens = False
    with pytest.raises(StaleWeightsError, match="samples from other weights"):
        roll_out(1)


def test_prompts_in_any_order_get_their_own_completions(tmp_path):
    trainer = make_trainer(SharedPromptGRPOTrainer, "llama", tmp_path)
    prompts = [[5, 6, 7], [8, 9], [5, 6, 7], [8, 9], [8, 9]]
    torch.manual_seed(0)
    completions, _ = trainer._generate_single_turn(prompts, None, {}, GROUP)
    assert len(completions) == 5
    assert all(completions)
    assert all(a != b for a, b in itertools.combinations([tuple(c) for c in completions], 2))
