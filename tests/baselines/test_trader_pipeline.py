"""The whole step: files of a known trader to rows; nothing of the future in them; what is wrong is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from baselines.decision_transformer.__main__ import main
from baselines.trader import simulation
from baselines.trader.actions import Action
from baselines.trader.dataset import load_dataset, load_fitted, scaling_of
from baselines.trader.features import PERIODS, WARM_UP
from baselines.trader.ingestion import TraderDataError
from baselines.trader.pipeline import PipelineConfig, run_pipeline
from baselines.trader.simulation import SimulationConfig, rsi_policy, simulate_market, write_markets
from baselines.trader.states import STATE_NAMES
from preprocessing.indicators import compute_indicators

ROOT = Path(__file__).parents[2]
MARKETS, BARS = 20, 220


def simulate(folder: Path, **settings) -> SimulationConfig:
    config = SimulationConfig(output_dir=folder / "files", **{"markets": MARKETS, "bars": BARS} | settings)
    write_markets(config)
    return config


def process(folder: Path, **settings) -> tuple[pd.DataFrame, dict]:
    output = folder / "out" / "data.parquet"
    report = run_pipeline(PipelineConfig(data_dir=folder / "files", output=output, **settings))
    return pd.read_parquet(output), report


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noisy")
    config = simulate(folder, policy="noisy_rsi")
    rows, report = process(folder)
    return folder, config, rows, report


# A known policy comes through


@pytest.mark.parametrize(
    "settings",
    [
        {"policy": "rsi", "seed": 0},
        {"policy": "rsi", "seed": 1, "bar_seconds": 60},
        {"policy": "noisy_rsi", "seed": 2},
        {"policy": "noisy_rsi", "noise": 0.3, "seed": 3},
    ],
    ids=str,
)
def test_the_labels_are_what_the_trader_meant_to_do(tmp_path, settings):
    config = simulate(tmp_path, **settings)
    rows, _ = process(tmp_path, bar_seconds=config.bar_seconds)
    compared = 0
    for number in range(MARKETS):
        market = simulate_market(config, number)
        found = rows[rows["market"] == f"{config.policy}/{market.slug}"]
        if len(found):
            assert found["action"].tolist() == market.actions.tolist()
            compared += 1
    assert compared >= MARKETS - 4
    assert set(rows["action"]) == set(range(5))


@pytest.mark.parametrize("policy", ["rsi", "noisy_rsi"])
def test_the_policy_can_be_read_off_the_states_that_a_model_sees(tmp_path, policy):
    config = simulate(tmp_path, policy=policy)
    process(tmp_path)
    path = tmp_path / "out" / "data.parquet"
    scaling = scaling_of(load_fitted(path))
    right = count = 0
    for data in load_dataset(path).values():
        states = data.states[data.mask].astype(float) * scaling.std + scaling.mean
        columns = (states[:, STATE_NAMES.index(name)] for name in ("rsi", "inventory", "pnl_percent"))
        guess = [rsi_policy(*features) for features in zip(*columns, strict=True)]
        right += (np.array(guess) == data.actions[data.mask]).sum()
        count += data.mask.sum()
    if policy == "rsi":
        assert right == count
    else:  # five standard deviations of a share
        best = simulation.bayes_accuracy(config.noise)
        assert best == pytest.approx(0.84)
        assert abs(right / count - best) < 5 * np.sqrt(best * (1 - best) / count)


def test_the_trader_sees_the_same_rsi_as_the_pipeline():
    closes = np.random.default_rng(0).uniform(0.3, 0.7, 120)
    rsi, values = simulation._Rsi(), [50.0]
    for change in np.diff(closes):
        values.append(rsi.value(change))
        rsi.add(change)
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), closes))
    expected = compute_indicators(bars, PERIODS)["rsi"].to_numpy()
    assert values[WARM_UP:] == pytest.approx(expected[WARM_UP:], rel=1e-10)


def test_the_files_of_a_seed_are_always_the_same(tmp_path):
    for name in ("a", "b"):
        simulate(tmp_path / name, markets=2, policy="noisy_rsi")
    simulate(tmp_path / "c", markets=2, policy="noisy_rsi", seed=1)
    contents = {
        name: [path.read_bytes() for path in sorted((tmp_path / name).rglob("*_prices.json"))] for name in "abc"
    }
    assert contents["a"] == contents["b"] != contents["c"]
    told = json.loads((tmp_path / "a" / "files" / "policy.json").read_text())
    assert (told["policy"], told["noise"], told["bayes_accuracy"]) == ("noisy_rsi", 0.2, pytest.approx(0.84))


def test_a_simulation_does_not_mix_with_other_files(tmp_path):
    simulate(tmp_path, markets=1)
    with pytest.raises(TraderDataError, match="holds trade files already"):
        simulate(tmp_path, markets=1)


# Rows


def test_rewards_are_the_profit_of_the_files_over_the_capital(noisy):
    folder, _, rows, report = noisy
    capital = report["fitted_on_train"]["capital"]
    for market, part in list(rows.groupby("market", sort=False))[::5]:
        events = json.loads((folder / "files" / f"{market}_prices.json").read_text())["prices"]

        def equity(time, events=events):
            seen = [event for event in events if event["t"] < time]
            signed = [
                (event["size"] * {"BUY": 1, "SELL": -1}[event["side"]], event["price"])
                for event in seen
                if event["type"] == "trade"
            ]
            return sum(size * (seen[-1]["price"] - price) for size, price in signed)

        times = [time.value // 10**6 for time in part["time"]]
        values = [equity(time) for time in [*times, times[-1] + 900_000]]
        assert part["reward"].to_numpy() == pytest.approx(np.diff(values) / capital, abs=1e-9)
        assert part["return_to_go"].to_numpy() == pytest.approx(
            [(values[-1] - value) / capital for value in values[:-1]], abs=1e-9
        )


def test_splits_are_whole_markets_in_order_of_time(noisy):
    _, config, rows, report = noisy
    spans = rows.groupby("split", observed=True)["time"].agg(["min", "max"])
    gap = pd.Timedelta(seconds=config.bar_seconds * 128)
    assert spans.loc["val", "min"] - spans.loc["train", "max"] > gap
    assert spans.loc["test", "min"] - spans.loc["val", "max"] > gap
    assert len(rows[["market", "split"]].drop_duplicates()) == rows["market"].nunique()
    assert (rows.groupby("market").size() == BARS - 1 - WARM_UP).all()
    left_out = set(report["markets_across_a_cut"])
    assert len(left_out) + rows["market"].nunique() == MARKETS
    assert not left_out & set(rows["market"])
    assert np.isfinite(rows[[*STATE_NAMES, "reward", "return_to_go"]].to_numpy()).all()
    counts = rows.loc[rows["split"] == "train", "action"].value_counts()
    assert report["splits"]["train"]["actions"] == {action.name: counts[action] for action in Action}


def test_barrier_labels_look_ahead_and_no_further_than_the_limit(noisy):
    _, config, rows, report = noisy
    limit = report["fitted_on_train"]["barriers"]["limit"]
    ahead = (rows["barrier_time"] - rows["time"]) / pd.Timedelta(seconds=config.bar_seconds)
    assert ahead.between(1, limit).all()
    assert set(rows["barrier_label"]) == {-1, 0, 1}


# Nothing of the future


def change_future(path: Path, time: int) -> None:
    """Other prices and other trades from a time on."""
    content = json.loads(path.read_text())
    random = np.random.default_rng(0)
    for event in content["prices"]:
        if event["t"] >= time:
            event["price"] = round(float(random.uniform(0.1, 0.9)), 4)
            event.pop("usdc", None)
            if event["type"] == "trade":
                event["size"] = float(random.integers(1, 200))
                event["side"] = str(random.choice(["BUY", "SELL"]))
            elif random.random() < 0.3:
                event |= {"type": "trade", "side": "SELL", "size": 7.0}
    path.write_text(json.dumps(content))


def test_changing_the_future_changes_nothing_before(tmp_path):
    config = simulate(tmp_path, policy="noisy_rsi")
    before, _ = process(tmp_path)
    market = before.loc[before["split"] == "test", "market"].iloc[0]
    own = before[before["market"] == market]
    time = own["time"].iloc[60]
    change_future(tmp_path / "files" / f"{market}_prices.json", time.value // 10**6)
    after, _ = process(tmp_path)

    others = before["market"] != market
    pd.testing.assert_frame_equal(after[others], before[others])
    changed = after[after["market"] == market]
    seen = own["time"] <= time  # a state at its close
    past = ["open", "high", "low", "close", "volume", "sma", "ema", *STATE_NAMES, "entry_price", "realised_pnl"]
    pd.testing.assert_frame_equal(changed.loc[seen, past], own.loc[seen, past])
    acted = own["time"] < time  # what was done in the bar that closes at `time`, and what it earned
    told = ["action", "net_size", "reward"]
    pd.testing.assert_frame_equal(changed.loc[acted, told], own.loc[acted, told])
    settled = own["barrier_time"] <= time
    pd.testing.assert_frame_equal(changed.loc[settled, ["barrier_label"]], own.loc[settled, ["barrier_label"]])
    for name in ("close", "rsi", "inventory", "fracdiff_price", "unrealised_pnl"):  # and it does change what follows
        assert (changed.loc[~seen, name].to_numpy() != own.loc[~seen, name].to_numpy()).mean() > 0.9, name
    assert changed.loc[own["time"] == time, "reward"].item() != own.loc[own["time"] == time, "reward"].item()
    assert config.markets == MARKETS


def test_what_is_fitted_does_not_know_validation_and_test(tmp_path):
    folder = tmp_path / "before"
    simulate(folder, policy="noisy_rsi")
    rows, report = process(folder, strong_quantile=0.9)  # the larger sizes of other splits would move it
    path = tmp_path / "files"
    for source in (folder / "files").rglob("*_prices.json"):
        market = source.relative_to(folder / "files").as_posix().removesuffix("_prices.json")
        copy = path / source.relative_to(folder / "files")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
        if market not in set(rows.loc[rows["split"] == "train", "market"]):
            change_future(copy, 0)
    after, changed = process(tmp_path, strong_quantile=0.9)
    assert changed["fitted_on_train"] == report["fitted_on_train"]
    train = rows["split"] == "train"
    pd.testing.assert_frame_equal(after[after["split"] == "train"], rows[train])
    assert not after[~train].equals(rows[~train])


def test_scaling_is_of_train(noisy):
    _, _, rows, report = noisy
    train = rows.loc[rows["split"] == "train"]
    scaling = report["fitted_on_train"]["scaling"]
    for i in (0, 3, 12, 14):
        assert scaling["mean"][i] == pytest.approx(train[STATE_NAMES[i]].mean())
        assert scaling["std"][i] == pytest.approx(train[STATE_NAMES[i]].std(ddof=0))


# What is wrong is named


def test_two_workers_write_the_same_rows(noisy, tmp_path):
    folder, _, rows, _ = noisy
    output = tmp_path / "two.parquet"
    run_pipeline(PipelineConfig(data_dir=folder / "files", output=output, num_workers=2))
    pd.testing.assert_frame_equal(pd.read_parquet(output), rows)


def test_the_report_names_what_was_not_used(tmp_path, capsys):
    config = simulate(tmp_path)
    files = sorted((tmp_path / "files").rglob("*_prices.json"))
    content = json.loads(files[0].read_text())
    content["prices"].insert(5, {"t": 1, "type": "price", "price": 0.5})
    content["prices"].append("nonsense")
    files[0].write_text(json.dumps(content))  # lost what may have been a trade
    content = json.loads(files[1].read_text())
    content["prices"].insert(7, {"t": 1, "type": "price", "price": 0.5})
    files[1].write_text(json.dumps(content))  # lost a price
    (files[2].parent / "a_copy_prices.json").write_bytes(files[2].read_bytes())
    (files[2].parent / "broken_prices.json").write_text("{")
    short = {
        "slug": "short",
        "prices": [{"t": 1_767_225_600_000 + 60_000 * i, "type": "price", "price": 0.5} for i in (0, 14)],
    }
    (files[2].parent / "short_prices.json").write_text(json.dumps(short))
    out = tmp_path / "out" / "data.parquet"
    assert main(["pipeline", "--data-dir", str(tmp_path / "files"), "--output", str(out)]) == 0
    report = json.loads((out.parent / "data_report.json").read_text())
    refused = report["files"]["refused"]
    assert set(refused) == {
        f"rsi/{name}" for name in (files[0].name, "broken_prices.json", files[2].name, "short_prices.json")
    }
    assert "--malformed-trades skip" in refused[f"rsi/{files[0].name}"]
    assert refused[f"rsi/{files[2].name}"] == "is of the same market as rsi/a_copy_prices.json"
    assert refused["rsi/short_prices.json"].startswith("spans 840 s, 1 bars of 900 s, but one row needs 86")
    assert report["files"]["not_trade_files"] == ["policy.json"]
    assert report["events"]["malformed"] == {"t is no time in milliseconds": 2, "is not an object": 1}
    positions = report["events"]["malformed_positions"]
    count = len(json.loads(files[0].read_text())["prices"])
    assert positions == {
        f"rsi/{files[0].name}": {"t is no time in milliseconds": [5], "is not an object": [count - 1]},
        f"rsi/{files[1].name}": {"t is no time in milliseconds": [7]},
    }
    assert report["files"]["used"] == MARKETS - 1
    printed = capsys.readouterr()
    assert "4 of 23 files not used" in printed.err
    assert "malformed events left out: 2 t is no time in milliseconds, 1 is not an object" in printed.err
    assert printed.out.startswith(f"{out}: rows train ")
    assert config.markets == MARKETS


def test_markets_of_minutes_are_told_the_length_of_a_bar_that_fits(tmp_path, capsys):
    simulate(tmp_path, bar_seconds=10, markets=3)
    arguments = ["--data-dir", str(tmp_path / "files"), "--output", str(tmp_path / "x" / "y.parquet")]
    assert main(["pipeline", *arguments]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("python -m baselines.decision_transformer pipeline: error: none of the 3 files")
    assert "give --bar-seconds 10" in told
    assert not (tmp_path / "x").exists()


def test_too_few_markets_for_three_splits(tmp_path, capsys):
    simulate(tmp_path, markets=2)
    assert main(["pipeline", "--data-dir", str(tmp_path / "files"), "--output", str(tmp_path / "y.parquet")]) == 1
    assert "no market lies wholly within" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--bar-seconds", "0"], "bar_seconds must be at least 1"),
        (["--strong-quantile", "1"], "strong_quantile must lie between 0 and 1"),
        (["--split", "[0.5,0.5,0.5]"], "sum to 1"),
        (["--malformed-trades", "ignore"], "malformed_trades"),
        (["--windows", "3"], "windows"),
    ],
)
def test_wrong_flags_are_one_line(flags, told, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["pipeline", *flags])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert told in error[0]


def test_the_commands_of_the_readme_run(tmp_path):
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "baselines.decision_transformer", *arguments]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert "pipeline --data-dir downloads/merged_trades" in run("--help")
    files, output = tmp_path / "downloads" / "merged_trades", tmp_path / "data" / "processed_trader_data.parquet"
    assert "20 markets" in run("simulate", "--output", str(files), "--markets", "20", "--bars", "220", "--seed", "0")
    assert "rows train" in run("pipeline", "--data-dir", str(files), "--output", str(output))
    assert len(load_dataset(output)["train"]) > 0
    wrong = subprocess.run(
        [sys.executable, "-m", "baselines.decision_transformer", "pipelin"], cwd=ROOT, capture_output=True, text=True
    )
    assert wrong.returncode == 2
    assert "'pipelin' is no command; take simulate, download, pipeline" in wrong.stderr
