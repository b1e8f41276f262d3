"""The oracle benchmark: its scores by enumeration, a run that goes on where it was killed, and its command."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from baselines.building_blocks.tensor_files import SavedFileError
from baselines.seqgan.toys.oracle import (
    ADVERSARIAL,
    MLE,
    OracleBenchmark,
    Schedule,
    make_oracle,
    negative_log_likelihood,
    uniform_negative_log_likelihood,
)
from baselines.seqgan.toys.tokens import TokenLstm, sample

ROOT = Path(__file__).parents[2]
TINY = Schedule(
    vocabulary=8,
    length=4,
    sequences=128,
    batch=32,
    mle_epochs=2,
    discriminator_refreshes=1,
    refreshes_per_round=1,
    discriminator_sequences=64,
    discriminator_epochs=1,
    rounds=2,
    rollouts=2,
    evaluated=50,
    evaluated_last=100,
    evaluate_every=1,
)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_scores_of_all_sequences_of_a_tiny_vocabulary():
    oracle = TokenLstm(3, embedding=4, hidden=5, std=1.0).double()
    every = torch.tensor(list(itertools.product(range(3), repeat=3)))
    log_probs = oracle.log_probs(every).sum(dim=1).detach()
    assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-12)
    found, error = negative_log_likelihood(oracle, every)
    assert found == pytest.approx(-log_probs.mean().item() / 3, abs=1e-12)
    assert error == pytest.approx((log_probs / 3).std().item() / math.sqrt(27), abs=1e-12)
    # uniform tokens: the mean over all sequences, sampled here over all but the last token
    sampled = uniform_negative_log_likelihood(oracle, length=3, count=4000)
    assert sampled == pytest.approx(found, abs=4 * error * math.sqrt(27 / 4000))
    # tokens of the oracle itself: its entropy
    entropy = -(log_probs.exp() * log_probs).sum().item() / 3
    own, own_error = negative_log_likelihood(oracle, sample(oracle.float(), 4000, 3))
    assert own == pytest.approx(entropy, abs=4 * own_error)


def test_oracle_of_the_paper_scores_uniform_tokens_by_its_logits_variance():
    oracle, real, fresh = make_oracle(dataclasses.replace(Schedule(), sequences=200, evaluated=200, evaluated_last=200))
    assert {name: tuple(tensor.shape) for name, tensor in oracle.state_dict().items()} == {
        "embedding.weight": (5000, 32),
        "lstm.weight_ih_l0": (128, 32),
        "lstm.weight_hh_l0": (128, 32),
        "lstm.bias_ih_l0": (128,),
        "lstm.bias_hh_l0": (128,),
        "output.weight": (5000, 32),
        "output.bias": (5000,),
    }
    assert oracle.output.weight.std().item() == pytest.approx(1, abs=0.01)
    assert not oracle.lstm.get_parameter("bias_hh_l0").any()
    assert real.shape == (200, 20)
    assert fresh.shape == (200, 20)
    # Gaussian logits of variance s^2 over V tokens: log V + s^2 / 2 from the uniform, log V - s^2 / 2 from its own
    rows = torch.randint(5000, (100, 20))
    variance = oracle(rows).var(dim=2).mean().item()
    uniform = uniform_negative_log_likelihood(oracle, length=20, count=100)
    assert uniform == pytest.approx(math.log(5000) + variance / 2, abs=0.1)
    own, _ = negative_log_likelihood(oracle, fresh)
    assert own == pytest.approx(math.log(5000) - variance / 2, abs=0.3)


def test_a_killed_run_ends_like_one_that_was_not(tmp_path):
    whole = OracleBenchmark(TINY, tmp_path / "whole")
    assert whole.run()
    parts = OracleBenchmark(TINY, tmp_path / "parts")
    while not parts.run(steps=1):
        done, parts = parts.done, OracleBenchmark(TINY, tmp_path / "parts")
        assert parts.done == done
    for name, tensor in whole.generator.state_dict().items():
        assert torch.equal(tensor, parts.generator.state_dict()[name])
    tables = [pd.read_csv(tmp_path / name / "oracle_nll.csv").drop(columns="seconds") for name in ("whole", "parts")]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert tables[0]["phase"].tolist() == [MLE, MLE, ADVERSARIAL, ADVERSARIAL]
    with pytest.raises(SavedFileError, match=r"with other rounds \(2, not 3\), rollouts \(2, not 4\); restore"):
        OracleBenchmark(dataclasses.replace(TINY, rounds=3, rollouts=4), tmp_path / "whole")


def test_rollout_policy_starts_as_a_copy_of_the_generator(tmp_path):
    benchmark = OracleBenchmark(TINY, tmp_path)
    benchmark.run(steps=TINY.mle_epochs + TINY.discriminator_refreshes)
    before = {name: tensor.clone() for name, tensor in benchmark.generator.state_dict().items()}
    benchmark.run(steps=1)
    after = benchmark.generator.state_dict()
    assert not torch.equal(after["output.weight"], before["output.weight"])
    for name, own in benchmark.policy.state_dict().items():
        copied = name == "embedding.weight"
        torch.testing.assert_close(own, after[name] if copied else 0.8 * before[name] + 0.2 * after[name])


def test_training_leaves_the_callers_random_numbers_alone(tmp_path):
    before = torch.get_rng_state()
    OracleBenchmark(TINY, tmp_path).run()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_maximum_likelihood_approaches_the_oracle(tmp_path):
    schedule = dataclasses.replace(
        TINY,
        sequences=4000,
        mle_epochs=12,
        discriminator_refreshes=0,
        rounds=0,
        evaluate_every=12,
        evaluated_last=4000,
    )
    benchmark = OracleBenchmark(schedule, tmp_path)
    start = benchmark.likelihoods(4000)
    benchmark.run()
    entropy, _ = negative_log_likelihood(benchmark.oracle, benchmark.fresh)
    end = benchmark.likelihoods(4000)
    # cross-entropy is never below the entropy; most of what was above it is gone
    assert entropy < end.data < entropy + 0.15 * (start.data - entropy)
    assert abs(end.oracle - entropy) < 0.2 * (start.oracle - entropy)


@pytest.mark.slow
def test_the_command_of_the_page(tmp_path):
    command = [
        sys.executable,
        "-P",
        str(ROOT / "benchmarks" / "seqgan_oracle.py"),
        "--quick",
        "--folder",
        str(tmp_path),
    ]
    small = ["--vocabulary", "8", "--length", "4", "--mle-epochs", "2", "--rounds", "2", "--sequences", "64"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *small], capture_output=True, text=True, env=environment, check=True)
    for row in (
        "| uniform tokens |",
        "| maximum likelihood, epoch 2 |",
        "| SeqGAN, round 2 |",
        "| the oracle itself |",
    ):
        assert row in re.sub(" +", " ", done.stdout)  # cells are padded to one width
    again = subprocess.run([*command, *small, "--rounds", "3"], capture_output=True, text=True, env=environment)
    assert again.returncode == 1
    assert "is of a training with other rounds (2, not 3); restore that" in again.stderr
    assert "Traceback" not in again.stderr
