"""The parts that the neural baselines share."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch

from baselines.building_blocks.features import SCALE_FREE, scale_free_features
from baselines.building_blocks.tensor_files import SavedFileError
from baselines.neural.checkpoints import (
    load_training,
    load_weights,
    read_tensors,
    save_training,
    write_tensors,
)
from baselines.neural.early_stopping import BestWeights, scaled_crps
from baselines.neural.inputs import InputScaling
from baselines.neural.learning_curves import LearningCurve
from grpo.evaluation.protocol import Forecast
from preprocessing.config import DataConfig
from preprocessing.returns import VolatilityConfig, daily_volatility
from preprocessing.simulation import parse_simulated_stock
from preprocessing.stock_windows import split_windows

DATA = DataConfig(window=30, horizon=5)


@pytest.fixture(scope="module")
def splits():
    return split_windows({"A": parse_simulated_stock("sim:gbm?rows=500&seed=1").bars()}, DATA)[0]


@pytest.fixture(scope="module")
def scaling(splits):
    return InputScaling.fit(splits["train"].context, VolatilityConfig())


def test_inputs_are_returns_and_features_in_units_of_their_own(splits, scaling):
    context = splits["train"].context
    inputs = scaling.inputs(context)
    assert inputs.returns.shape == (len(context), 29)
    assert inputs.features.shape == (len(context), len(SCALE_FREE))
    expected = np.log(context.past[3, 7, 0] / context.past[3, 6, 0]) / daily_volatility(context, VolatilityConfig())[3]
    assert inputs.returns[3, 6].item() == pytest.approx(expected, rel=1e-5)
    raw = scale_free_features(context)
    column = SCALE_FREE.index("rsi")
    expected = (raw[:, column] - raw[:, column].mean()) / raw[:, column].std()
    np.testing.assert_allclose(inputs.features[:, column], np.clip(expected, -5, 5), atol=1e-5)
    assert inputs.take(torch.tensor([3])).returns[0, 6] == inputs.returns[3, 6]
    assert len(inputs) == len(context)


def test_a_forecast_of_the_targets_is_the_future(splits, scaling):
    windows = splits["train"]
    forecast = scaling.forecast(windows.context, scaling.targets(windows).double().numpy()[:, None])
    np.testing.assert_allclose(forecast.samples[:, 0], windows.truth.future, rtol=1e-6)


def test_scaling_is_kept_as_tensors(splits, scaling):
    again = InputScaling.from_state(scaling.state(), VolatilityConfig())
    assert torch.equal(again.inputs(splits["test"].context).features, scaling.inputs(splits["test"].context).features)
    with pytest.raises(ValueError, match="scaling of 2 features"):
        InputScaling.from_state({"mean": torch.zeros(2), "std": torch.ones(2)}, VolatilityConfig())


def train(steps: int, network, optimizer, losses: list[float]) -> None:
    for _ in range(steps):
        loss = (network(torch.randn(4, 3)) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())


def pair():
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    return network, torch.optim.AdamW(network.parameters(), lr=0.1)


def test_a_resumed_training_takes_the_steps_that_an_unbroken_one_takes(tmp_path):
    network, optimizer = pair()
    losses: list[float] = []
    train(6, network, optimizer, losses)

    broken, its_optimizer = pair()
    again: list[float] = []
    train(3, broken, its_optimizer, again)
    file = tmp_path / "training.safetensors"
    kept = {"modules": {"net": broken}, "optimizers": {"adam": its_optimizer}}
    save_training(file, **kept, progress={"step": 3}, tensors={"buffer": torch.arange(3)})
    torch.manual_seed(99)
    fresh = torch.nn.Linear(3, 2)
    fresh_optimizer = torch.optim.AdamW(fresh.parameters(), lr=0.5)
    progress, tensors = load_training(file, modules={"net": fresh}, optimizers={"adam": fresh_optimizer})
    assert progress == {"step": 3}
    assert tensors["buffer"].tolist() == [0, 1, 2]
    train(3, fresh, fresh_optimizer, again)
    assert again == losses


class OnSecondDevice(torch.nn.Linear):
    """Says that it lies on cuda:1, where there may be none."""

    def parameters(self, recurse: bool = True):
        yield SimpleNamespace(device=torch.device("cuda", 1))


def test_the_random_numbers_of_the_modules_own_device_are_kept(tmp_path, monkeypatch):
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    states = {first: 1, second: 2}  # by device, cuda:0 the current one
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device=first: torch.tensor([states[device]]))
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device=first: states.update({device: int(state.item())})
    )
    file = tmp_path / "training.safetensors"
    modules = {"on_cpu": torch.nn.Linear(1, 1), "net": OnSecondDevice(1, 1)}
    save_training(file, modules=modules, optimizers={}, progress={})
    states |= {first: 3, second: 4}
    load_training(file, modules=modules, optimizers={})
    assert states == {first: 3, second: 2}


def test_a_checkpoint_that_does_not_fit_is_one_line_that_names_it(tmp_path):
    file = tmp_path / "training.safetensors"
    network, optimizer = pair()
    save_training(file, modules={"net": network}, optimizers={"adam": optimizer}, progress={})
    with pytest.raises(SavedFileError, match=r"training\.safetensors is not of this training") as error:
        load_training(file, modules={"net": torch.nn.Linear(4, 2)}, optimizers={})
    assert "\n" not in str(error.value)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(SavedFileError, match=r"training\.safetensors cannot be read"):
        read_tensors(file)
    with pytest.raises(SavedFileError, match="cannot be read"):
        read_tensors(tmp_path / "missing.safetensors")


def test_tensors_and_header_come_back(tmp_path):
    file = tmp_path / "weights.safetensors"
    network = torch.nn.Linear(3, 2)
    write_tensors(file, {f"net.{k}": v for k, v in network.state_dict().items()}, {"name": "x", "sizes": [1, 2]})
    tensors, header = read_tensors(file)
    assert header == {"name": "x", "sizes": [1, 2]}
    other = torch.nn.Linear(3, 2)
    load_weights(file, other, tensors, "net.")
    assert torch.equal(other.weight, network.weight)
    with pytest.raises(SavedFileError, match=r"weights\.safetensors does not fit this network"):
        load_weights(file, torch.nn.Linear(5, 2), tensors, "net.")


class OneMove:
    """Every path rises by the same factor each day."""

    name = "one_move"

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def predict(self, context, *, horizon, num_samples, seed):
        path = context.last_price[:, None, None] * self.factor ** np.arange(1, horizon + 1)
        samples = np.broadcast_to(path, (len(context), num_samples, horizon)).copy()
        return Forecast(samples=samples, valid=np.ones(samples.shape[:2], bool))

    def save(self, path):
        raise NotImplementedError


def test_scaled_crps_of_equal_paths_is_the_mean_error_in_random_walk_deviations(splits):
    windows = splits["val"]
    sigma = windows.context.last_price * daily_volatility(windows.context, VolatilityConfig())
    error = np.abs(windows.truth.future - windows.context.last_price[:, None])
    expected = (error / sigma[:, None] / np.sqrt([1, 2, 3, 4, 5])).mean()
    assert scaled_crps(OneMove(1.0), windows, num_samples=4) == pytest.approx(expected, rel=1e-9)
    assert scaled_crps(OneMove(1.05), windows, num_samples=4) > 1.5 * expected


def test_the_best_weights_are_kept_and_put_back():
    network = torch.nn.Linear(1, 1)
    best = BestWeights(patience=2)
    for step, loss in enumerate([3.0, 1.0, 2.0, float("nan")]):
        torch.nn.init.constant_(network.weight, step)
        assert not best.exhausted
        assert best.offer(loss, step, network) == (step < 2)
    assert best.exhausted
    assert (best.loss, best.step) == (1.0, 1)
    best.restore(network)
    assert network.weight.item() == 1


def test_a_curve_is_written_as_table_and_picture(tmp_path):
    curve = LearningCurve([{"phase": "first", "step": 0, "loss": 2.0}])
    curve.add("first", 1, loss=1.0)
    curve.add("second", 0, reward=0.5, entropy=0.1)
    curve.write(tmp_path, title="a training")
    table = pd.read_csv(tmp_path / "learning_curves.csv")
    assert table["loss"].tolist()[:2] == [2.0, 1.0]
    assert table.columns.tolist() == ["phase", "step", "loss", "reward", "entropy"]
    assert matplotlib.image.imread(tmp_path / "learning_curves.png").std() > 0.01
    LearningCurve().write(tmp_path / "empty", title="nothing")
    assert not (tmp_path / "empty").exists()
