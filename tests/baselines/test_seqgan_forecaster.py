"""The plugins `seqgan` and `seqgan_mle`; what every forecaster must do is in test_contract.py."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from baselines.building_blocks.tensor_files import SavedFileError
from baselines.neural.early_stopping import scaled_crps
from baselines.seqgan.forecaster import SeqGan, SeqGanConfig, SeqGanMle, SeqGanMleConfig
from baselines.seqgan.three_stages import TRAINING_FILE
from baselines.statistical.naive import RandomWalk, RandomWalkConfig
from preprocessing.config import DataConfig
from preprocessing.errors import UserError
from preprocessing.simulation import parse_simulated_stock
from preprocessing.stock_windows import split_windows

SHORT = {"pretraining_steps": 20, "evaluate_every": 10, "validation_windows": 20}
PLAY = {"adversarial_batches": 2, "discriminator_pretraining_sets": 1, "adversarial_every": 1, "rollouts": 2}


@pytest.fixture(scope="module")
def splits():
    name = "sim:ou?half_life=5&seed=3&rows=2000"
    return split_windows({name: parse_simulated_stock(name).bars()}, DataConfig(window=30, horizon=5))[0]


def fit(plugin, config, splits, folder, *, seed=0):
    return plugin.fit(config, splits["train"], splits["val"], horizon=5, seed=seed, out_dir=folder)


def samples(forecaster, splits, num_samples=20):
    return forecaster.predict(splits["test"].context, horizon=5, num_samples=num_samples, seed=1).samples


def test_likelihood_learns_the_pull_back_to_the_mean(splits, tmp_path):
    fitted = fit(SeqGanMle, SeqGanMleConfig(pretraining_steps=150, validation_windows=150), splits, tmp_path)
    walk = RandomWalk.fit(RandomWalkConfig(), splits["train"], splits["val"], horizon=5, seed=0, out_dir=tmp_path)
    assert scaled_crps(fitted, splits["test"]) < 0.96 * scaled_crps(walk, splits["test"])


def test_without_a_batch_the_adversarial_forecaster_is_that_of_likelihood(splits, tmp_path):
    mle = fit(SeqGanMle, SeqGanMleConfig(**SHORT), splits, tmp_path / "mle")
    gan = fit(SeqGan, SeqGanConfig(**SHORT, **{**PLAY, "adversarial_batches": 0}), splits, tmp_path / "gan")
    np.testing.assert_array_equal(samples(gan, splits), samples(mle, splits))


def test_it_writes_curves_and_leaves_no_training_checkpoint(splits, tmp_path):
    fit(SeqGan, SeqGanConfig(**SHORT, **PLAY), splits, tmp_path)
    curve = pd.read_csv(tmp_path / "learning_curves.csv")
    assert curve["phase"].unique().tolist() == ["pretraining", "discriminator", "adversarial"]
    generator = curve[curve["phase"] != "discriminator"]
    assert generator["step"].tolist() == [0, 10, 20, 1, 2]
    assert generator["validation_crps"].notna().all()
    assert not (tmp_path / TRAINING_FILE).exists()


def test_the_temperature_is_the_variance_of_a_step(splits, tmp_path):
    fitted = fit(SeqGanMle, SeqGanMleConfig(**SHORT), splits, tmp_path)
    fitted.save(tmp_path)
    warm = SeqGanMle(SeqGanMleConfig(**SHORT, temperature=4.0), fitted.scaling, 5, fitted.generator)
    first = np.log(samples(fitted, splits, 200)[:, :, 0])
    assert np.log(samples(warm, splits, 200)[:, :, 0]).std(axis=1) == pytest.approx(2 * first.std(axis=1), rel=1e-6)


def test_the_file_of_the_other_is_refused(splits, tmp_path):
    fit(SeqGanMle, SeqGanMleConfig(**SHORT), splits, tmp_path).save(tmp_path)
    with pytest.raises(SavedFileError, match=r"does not hold a fitted seqgan \(it is of seqgan_mle\)"):
        SeqGan.load(tmp_path)


def test_without_validation_windows_it_says_so(splits, tmp_path):
    empty = splits["val"].take(np.arange(0))
    with pytest.raises(UserError, match="seqgan_mle is tuned on validation windows"):
        SeqGanMle.fit(SeqGanMleConfig(), splits["train"], empty, horizon=5, seed=0, out_dir=tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 0}, "hidden must be at least 1; got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2; got 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive; got nan"),
        ({"rollouts": 0}, "rollouts must be at least 1; got 0"),
        ({"rollout_keep": 1.1}, "dropout_keep and rollout_keep are shares"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"context_dropout": 1.0}, "context_dropout must be at least 0 and below 1; got 1.0"),
        ({"decay": 1.0}, "decay must lie between 0 and 1"),
        ({"adversarial_every": 0}, "adversarial_every must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SeqGanConfig(**settings)
