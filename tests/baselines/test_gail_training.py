"""Both sides together: an exact toy, going on after a kill, and the caller's random numbers."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

pytest.importorskip("sb3_contrib")

from baselines.gail.config import GailConfig
from baselines.gail.demonstrations import Demonstrations
from baselines.gail.two_stages import fit_networks

SMALL = GailConfig(
    num_tokens=5, hidden_size=8, embedding_size=4, context_size=4, pretrain_steps=20, validate_every=10, iterations=6,
    environments=16, batch=8, discriminator_steps=2, discriminator_size=8, validate_rounds=2, replay_size=40,
)  # fmt: skip


def demonstrations(seed: int, paths: int = 60) -> Demonstrations:
    random = torch.Generator().manual_seed(seed)
    returns = torch.randn(paths, 4, generator=random)
    return Demonstrations(torch.randn(paths, 2, generator=random), returns, np.ones(paths), np.full(paths, 100.0))


def fit(folder, *, seed=0):
    fitted = fit_networks(SMALL, demonstrations(1), demonstrations(2), seed=seed, folder=folder, title="test")
    fitted.discard_checkpoints()
    return fitted


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A fit, and what the caller's generators give after it that were seeded before it."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(1)
    fitted = fit(tmp_path_factory.mktemp("unbroken"))
    return fitted, drawn()


def drawn() -> tuple[float, ...]:
    return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002


def test_the_callers_random_numbers_stay_as_they_were(unbroken):
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(1)
    assert drawn() == unbroken[1]


def test_the_curve_tells_both_sides(unbroken):
    table = unbroken[0].curve.table()
    rounds = table[table["phase"] == "imitation"]
    for column in (
        "reward",
        "kl_to_pretrained",
        "discriminator_loss",
        "discriminator_accuracy",
        "entropy",
        "approx_kl",
    ):
        assert rounds[column].notna().all()
    looks = table[table["phase"] == "validation"]
    assert looks["step"].tolist() == [0, 2, 4, 6]
    assert looks["auc"].between(0, 1).all()
    # before any update the discriminator is undecided: every pair a tie, every reward log 2, no path called real
    assert (looks["auc"].iloc[0], looks["f1"].iloc[0]) == (0.5, 0)
    assert rounds["reward"].iloc[0] == pytest.approx(4 * np.log(2))
    assert rounds["kl_to_pretrained"].iloc[0] == pytest.approx(0, abs=1e-6)
