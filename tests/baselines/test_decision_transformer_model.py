"""The Decision Transformer's network: what each head may see, its cache, its loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from baselines.decision_transformer.model import DecisionTransformer, ModelConfig, Predictions, losses

BATCH, BARS, SIZE = 3, 7, 4
SMALL = ModelConfig(d_model=16, num_layers=2, num_heads=2, dropout=0.0, context=BARS, state_size=SIZE)
CLONE = ModelConfig(
    d_model=16, num_layers=2, num_heads=2, dropout=0.0, context=BARS, state_size=SIZE, use_returns=False
)


def network(config: ModelConfig = SMALL) -> DecisionTransformer:
    """Weights far from their small start, so that what a token may do to a head shows."""
    torch.manual_seed(0)
    net = DecisionTransformer(config).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return net


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(BATCH, BARS, SIZE, generator=generator, dtype=torch.float64)
    actions = torch.randint(5, (BATCH, BARS), generator=generator)
    return states, actions, 0.01 * torch.randn(BATCH, BARS, generator=generator, dtype=torch.float64)


def changed_bars(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    different = (before != after).reshape(BATCH, BARS, -1).any(dim=2).any(dim=0)
    return different.nonzero().flatten().tolist()


@pytest.mark.parametrize("config", [SMALL, CLONE], ids=["returns", "clone"])
def test_an_action_changes_only_the_action_logits_after_it(batch, config):
    states, actions, returns = batch
    net = network(config)
    other = actions.clone()
    other[:, 3] = (other[:, 3] + 1) % 5
    before, after = net(states, actions, returns), net(states, other, returns)
    assert changed_bars(before.action_logits, after.action_logits) == [4, 5, 6]
    if config.use_returns:
        assert changed_bars(before.next_returns, after.next_returns) == [3, 4, 5, 6]


def test_a_return_to_go_changes_no_prediction_of_itself_and_the_action_of_its_own_bar(batch):
    states, actions, returns = batch
    other = returns.clone()
    other[:, 3] += 0.02
    net = network()
    before, after = net(states, actions, returns), net(states, actions, other)
    assert changed_bars(before.next_returns, after.next_returns) == [3, 4, 5, 6]  # bar 2 predicts that of bar 3
    assert changed_bars(before.action_logits, after.action_logits) == [3, 4, 5, 6]


def test_a_state_changes_the_predictions_from_its_own_bar_on(batch):
    states, actions, returns = batch
    other = states.clone()
    other[:, 3] += 1
    net = network()
    before, after = net(states, actions, returns), net(other, actions, returns)
    assert changed_bars(before.action_logits, after.action_logits) == [3, 4, 5, 6]
    assert changed_bars(before.next_returns, after.next_returns) == [3, 4, 5, 6]


def test_bars_that_pad_do_nothing_to_the_valid_ones_and_to_the_loss(batch):
    states, actions, returns = batch
    mask = torch.arange(BARS) < 4
    padded = [torch.where(mask[:, None], states, 9e3), torch.where(mask, actions, 4), torch.where(mask, returns, -7.0)]
    net = network()
    whole, short = net(states, actions, returns), net(*padded)
    assert torch.equal(whole.action_logits[:, :4], short.action_logits[:, :4])
    assert torch.equal(whole.next_returns[:, :4], short.next_returns[:, :4])
    masks = mask.expand(BATCH, BARS)
    expected = losses(whole, actions, returns, masks, 100.0)
    assert torch.equal(torch.stack(losses(short, padded[1], padded[2], masks, 100.0)), torch.stack(expected))


@pytest.mark.parametrize("config", [SMALL, CLONE], ids=["returns", "clone"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bar_by_bar_with_a_cache_equals_all_at_once(batch, config, dtype):
    states, actions, returns = (x.to(dtype) if x.is_floating_point() else x for x in batch)
    net = network(config).to(dtype)
    expected = net(states, actions, returns).action_logits
    cache = net.new_cache(BATCH)
    for bar in range(BARS):
        logits = net.step(cache, states[:, bar], returns[:, bar], actions[:, bar - 1] if bar else None)
        torch.testing.assert_close(
            logits, expected[:, bar], rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12, check_dtype=True
        )
    with pytest.raises(ValueError, match="8 bars are more than the context of 7"):
        net.step(cache, states[:, 0], returns[:, 0], actions[:, 0])


def test_the_blocks_are_torch_pre_norm_encoder_layers(batch):
    states, actions, returns = batch
    net = network()
    reference = nn.ModuleList(
        nn.TransformerEncoderLayer(16, 2, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        for _ in net.blocks
    ).double()
    names = {
        "self_attn.in_proj_": "query_key_value.",
        "self_attn.out_proj.": "attention_out.",
        "linear1.": "mlp_in.",
        "linear2.": "mlp_out.",
        "norm1.": "attention_norm.",
        "norm2.": "mlp_norm.",
    }
    for layer, block in zip(reference, net.blocks, strict=True):
        weights = block.state_dict()
        layer.load_state_dict(
            {f"{a}{end}": weights[f"{b}{end}"] for a, b in names.items() for end in ("weight", "bias")}
        )
    where = net.position_encoder.weight
    tokens = []
    for bar in range(BARS):
        tokens.append(net.return_encoder(100 * returns[:, bar, None]) + where[bar])
        tokens.append(net.state_encoder(states[:, bar]) + where[bar])
        tokens.append(net.action_encoder.weight[actions[:, bar]] + where[bar])
    x = net.input_norm(torch.stack(tokens, dim=1))
    for layer in reference:
        x = layer(x, src_mask=nn.Transformer.generate_square_subsequent_mask(3 * BARS, dtype=torch.float64))
    x = net.output_norm(x)
    found = net(states, actions, returns)
    torch.testing.assert_close(found.action_logits, net.action_head(x[:, 1::3]))
    torch.testing.assert_close(found.next_returns, 100 * returns - net.return_head(x[:, 2::3])[..., 0])


def test_a_clone_knows_nothing_of_returns(batch):
    states, actions, returns = batch
    net = network(CLONE)
    assert torch.equal(net(states, actions).action_logits, net(states, actions, returns).action_logits)
    assert net(states, actions).next_returns is None


def test_losses_by_hand():
    logits = torch.zeros(1, 3, 5)
    logits[0, 0, 2] = math.log(6)  # six parts in ten
    found = losses(
        Predictions(logits, torch.tensor([[1.0, 7.0, 9.0]])),
        torch.tensor([[2, 0, 4]]),
        torch.tensor([[0.5, 0.03, 0.08]]),
        torch.tensor([[True, True, False]]),
        100.0,
    )
    # bar 0 has probability .6, bar 1 has .2; the return predicted on bar 0 is that of bar 1: (1 - 3)^2
    np.testing.assert_allclose([float(part) for part in found], [-(math.log(0.6) + math.log(0.2)) / 2, 4.0], rtol=1e-6)


def test_the_default_size_is_that_of_the_trader():
    config = ModelConfig()
    assert (config.d_model, config.num_layers, config.context, config.return_scale) == (128, 6, 128, 100)
    block = 128 * 384 + 384 + 128 * 128 + 128 + 2 * 128 * 512 + 512 + 128 + 4 * 128
    ends = 2 * 128 + 17 * 128 + 128 + 5 * 128 + 128 * 128 + 4 * 128 + 5 * 128 + 5 + 129
    assert sum(p.numel() for p in DecisionTransformer(config).parameters()) == 6 * block + ends


def test_wrong_input_is_refused(batch):
    states, actions, returns = batch
    net = network()
    with pytest.raises(ValueError, match="14 bars are more than the context of 7"):
        net(torch.cat([states, states], dim=1), torch.cat([actions, actions], dim=1), torch.cat([returns, returns], 1))
    with pytest.raises(ValueError, match="conditioned on returns to go"):
        net(states, actions)
    with pytest.raises(ValueError, match="needs the action taken on the bar before"):
        net.step(net.new_cache(BATCH), states[:, 0], returns[:, 0], actions[:, 0])
    with pytest.raises(ValueError, match="num_heads must divide d_model; got 3 and 16"):
        ModelConfig(d_model=16, num_heads=3)
    for wrong in ({"num_layers": 0}, {"dropout": 1.0}, {"num_actions": 1}, {"return_scale": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ModelConfig(**wrong)
