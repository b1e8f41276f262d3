from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy import stats

from baselines.foundation.models import Chronos, ChronosConfig, MissingWeightsError, TimesFm, TimesFmConfig
from tests.baselines.fake_models import MODULES, SPREAD, FakeChronos
from tests.baselines.series import fit, random_walk, windows_of

WINDOWS = windows_of({"A": random_walk(60, seed=1)}, length=30, horizon=4)


@pytest.fixture
def stand_ins(monkeypatch):
    for name, module in MODULES.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("plugin, batch", [(Chronos, 256), (Chronos, 7), (TimesFm, 7)])
def test_deciles_of_a_random_walk_become_its_paths(plugin, batch):
    pytest.importorskip("torch")
    forecaster = fit(plugin, WINDOWS, plugin.Config(batch_size=batch))
    samples = forecaster.predict(WINDOWS.context, horizon=4, num_samples=2000, seed=0).samples
    steps = np.diff(np.log(samples / WINDOWS.context.last_price[:, None, None]), axis=-1, prepend=0) / SPREAD
    pooled = steps.reshape(-1, 4)
    # cumulative deviations of sqrt(h) and correlations of sqrt(s/t): the daily steps are independent and standard
    np.testing.assert_allclose(np.cov(pooled.T), np.eye(4), atol=4 * np.sqrt(2 / len(pooled)))
    assert stats.kstest(pooled[::7, 3], "norm").pvalue > 1e-3


@pytest.mark.usefixtures("stand_ins")
def test_the_checkpoint_is_loaded_by_name_when_fitted_and_when_loaded(tmp_path):
    FakeChronos.loaded.clear()
    fit(Chronos, WINDOWS, ChronosConfig(model="org/some-bolt", device="cuda:1")).save(tmp_path)
    assert FakeChronos.loaded == [("org/some-bolt", "cuda:1")]
    again = Chronos.load(tmp_path)
    assert again.config == ChronosConfig(model="org/some-bolt", device="cuda:1")
    assert len(FakeChronos.loaded) == 1  # a saved forecaster loads the weights when it is asked to forecast
    assert again.pipeline is again.pipeline
    assert len(FakeChronos.loaded) == 2


@pytest.mark.usefixtures("stand_ins")
def test_a_price_of_zero_makes_a_path_invalid(monkeypatch):
    forecaster = fit(TimesFm, WINDOWS)

    def deciles(closes, horizon):
        return closes[:, -1, None, None] * np.linspace(-0.1, 2, 9) * np.ones((1, horizon, 1))

    monkeypatch.setattr(TimesFm, "_deciles", lambda self, closes, horizon: deciles(closes, horizon))
    forecast = forecaster.predict(WINDOWS.context, horizon=2, num_samples=50, seed=0)
    assert 0 < forecast.valid.mean() < 1


@pytest.mark.usefixtures("stand_ins")
def test_missing_weights_are_one_line(monkeypatch):
    def refuse(name, device_map):
        raise OSError("We couldn't connect to the Hub\nto load the files")

    monkeypatch.setattr(FakeChronos, "from_pretrained", refuse)
    with pytest.raises(MissingWeightsError, match="the checkpoint 'amazon/chronos-bolt-small' cannot be") as missed:
        fit(Chronos, WINDOWS)
    assert "\n" not in str(missed.value)


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        TimesFmConfig(batch_size=0)


def tiny_chronos_bolt(folder) -> None:
    """A Chronos-Bolt checkpoint with random weights."""
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    config = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2, vocab_size=2)
    config.decoder_start_token_id = 0
    config.chronos_pipeline_class = "ChronosBoltPipeline"
    config.chronos_config = {
        "context_length": 64,
        "prediction_length": 16,
        "input_patch_size": 8,
        "input_patch_stride": 8,
        "quantiles": [level / 10 for level in range(1, 10)],
        "use_reg_token": False,
    }
    ChronosBoltModelForForecasting(config).save_pretrained(folder)


def test_a_real_chronos_bolt_checkpoint_is_read(tmp_path):
    pytest.importorskip("chronos", reason="chronos-forecasting is not installed")
    torch = pytest.importorskip("torch")
    tiny_chronos_bolt(tmp_path)
    forecaster = fit(Chronos, WINDOWS, ChronosConfig(model=str(tmp_path)))
    samples = forecaster.predict(WINDOWS.context, horizon=4, num_samples=4000, seed=0).samples
    closes = torch.from_numpy(WINDOWS.context.past[:, :, 0])
    answer = forecaster.pipeline.predict(closes, prediction_length=4).numpy()  # [B, 9, H], crossing as it is untrained
    for index, level in enumerate(np.sort(answer, axis=1).swapaxes(0, 1), start=1):
        share = (samples <= level[:, None]).mean(axis=(0, 1))
        # a window's samples are independent, and windows do not share them
        deviation = np.sqrt(0.1 * index * (1 - 0.1 * index) / samples[:, :, 0].size)
        np.testing.assert_allclose(share, 0.1 * index, atol=4 * deviation)
