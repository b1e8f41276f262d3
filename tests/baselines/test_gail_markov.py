"""GAIL on a Markov chain whose transitions are known."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sb3_contrib")

from baselines.gail.config import GailConfig
from baselines.gail.demonstrations import TokenSequences
from baselines.gail.imitation import Imitation, imitate
from baselines.gail.pretraining import network_sizes, new_network, pretrain
from baselines.neural.learning_curves import LearningCurve
from tests.baselines.gail_toys import STATES, TOKENIZER, chains, take, transition_error

LENGTH = 8
SETTINGS = {
    "num_tokens": STATES, "criterion": "nll", "hidden_size": 16, "embedding_size": 4, "weight_decay": 0.01,
    "validate_every": 20, "patience": 8, "environments": 128, "discriminator_size": 16, "kl_weight": 0.0,
}  # fmt: skip


def imitated(
    config: GailConfig, start, demonstrations: TokenSequences, held_out: TokenSequences, *, seed: int, folder: Path
) -> tuple[Imitation, LearningCurve]:
    curve = LearningCurve()
    found = imitate(
        config, TOKENIZER, start, demonstrations, held_out, seed=seed, folder=folder, identity={}, curve=curve
    )
    return found, curve


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_few_demonstrations_teach_gail_more_than_behaviour_cloning(seed, tmp_path):
    """Ho & Ermon's protocol: cloning learns from 70 % of the demonstrations and stops by the rest."""
    demonstrations = chains(40, LENGTH, seed)
    config = GailConfig(**SETTINGS, iterations=120, validate_rounds=120, learning_rate=1e-3)
    cloned = pretrain(
        config, TOKENIZER, take(demonstrations, slice(28)), take(demonstrations, slice(28, None)),
        seed=seed, folder=tmp_path, identity={}, curve=LearningCurve(),
    )  # fmt: skip
    found, _ = imitated(config, cloned, demonstrations, demonstrations, seed=seed, folder=tmp_path)
    ours, theirs = transition_error(found.last, LENGTH), transition_error(cloned, LENGTH)
    assert ours < 0.25
    assert ours < 0.8 * theirs


@pytest.mark.slow
def test_from_nothing_it_learns_the_chain_until_the_discriminator_can_hardly_tell(tmp_path):
    demonstrations, held_out = chains(400, LENGTH, 0), chains(500, LENGTH, 1000)
    config = GailConfig(**SETTINGS, iterations=100, validate_rounds=10, learning_rate=3e-3)
    start = new_network(network_sizes(config, STATES, 0), STATES, seed=0)
    found, curve = imitated(config, start, demonstrations, held_out, seed=0, folder=tmp_path)
    assert transition_error(start, LENGTH) > 0.8
    assert transition_error(found.last, LENGTH) < 0.3
    looks = curve.table().query("phase == 'validation'")["auc"]
    assert looks.max() > 0.85
    assert looks.iloc[-3:].mean() < 0.6
