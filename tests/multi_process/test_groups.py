"""A group of completions stays in one process, because what one earns depends on the others."""

from __future__ import annotations

import numpy as np
import pytest

from grpo.language.rewards import REWARDS, group_rewards
from grpo.training.trainer import SharedPromptGRPOTrainer
from tests.training.test_trainer import GROUP, make_trainer


def test_half_a_group_would_earn_something_else():
    paths = np.arange(6.0)[:, None]  # the truth is 0
    whole = group_rewards(REWARDS["energy"], paths, np.zeros(1))
    half = group_rewards(REWARDS["energy"], paths[:3], np.zeros(1))
    assert whole[0] == pytest.approx(3.75)  # 5/4 (1 + 2 + 3 + 4 + 5) / 5
    assert half[0] == pytest.approx(3.0)  # 2/1 (1 + 2) / 2


def test_the_trainer_refuses_to_split_a_group(tmp_path, monkeypatch):
    # Two processes with half a group each are what TRL takes for one whole group.
    monkeypatch.setattr("trl.GRPOConfig.world_size", property(lambda self: 2))
    with pytest.raises(ValueError, match="num_generations 4 does not divide the 2 completions of a process"):
        make_trainer(SharedPromptGRPOTrainer, "llama", tmp_path, per_device_train_batch_size=GROUP // 2)
