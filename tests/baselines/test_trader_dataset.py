"""Windows of the rows that the pipeline wrote."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from baselines.trader.dataset import METADATA_KEY, load_dataset, load_fitted, scaling_of
from baselines.trader.ingestion import TraderDataError
from baselines.trader.states import STATE_NAMES

LENGTHS = {"train": [7, 3], "val": [4], "test": [9]}


@pytest.fixture
def rows(tmp_path):
    random = np.random.default_rng(0)
    frames = []
    for split, lengths in LENGTHS.items():
        for number, length in enumerate(lengths):
            reward = random.standard_normal(length)
            frames.append(
                pd.DataFrame(random.standard_normal((length, 17)), columns=list(STATE_NAMES)).assign(
                    market=f"t/{split}{number}",
                    split=split,
                    time=pd.date_range("2026-01-01", periods=length, freq="15min", tz="UTC").as_unit("ms"),
                    action=random.integers(0, 5, length).astype(np.int8),
                    reward=reward,
                    return_to_go=reward[::-1].cumsum()[::-1],
                )
            )
    return pd.concat(frames, ignore_index=True)


def write(path, rows, fitted=None):
    fitted = fitted or {"scaling": {"mean": [1.0] * 17, "std": [2.0] * 17}}
    table = pa.Table.from_pandas(rows, preserve_index=False)
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(fitted)}), path)
    return path


def test_windows_hold_the_rows(tmp_path, rows):
    data = load_dataset(write(tmp_path / "a.parquet", rows), window=4, train_stride=2)
    starts = {"train": [("t/train0", 0), ("t/train0", 2), ("t/train0", 4), ("t/train1", 0)], "val": [("t/val0", 0)]}
    starts["test"] = [("t/test0", 0), ("t/test0", 4), ("t/test0", 8)]
    for split, expected in starts.items():
        one = data[split]
        assert len(one) == len(expected)
        assert (one.states.dtype, one.actions.dtype, one.rewards.dtype) == (np.float32, np.int64, np.float32)
        for n, (market, first) in enumerate(expected):
            part = rows[rows["market"] == market].iloc[first : first + 4]
            length = len(part)
            assert one.market[n] == market
            assert one.start[n] == part["time"].iloc[0].tz_localize(None).to_datetime64()
            assert one.mask[n].tolist() == [True] * length + [False] * (4 - length)
            assert one.states[n, :length] == pytest.approx((part[list(STATE_NAMES)].to_numpy() - 1) / 2, abs=1e-6)
            assert one.actions[n, :length].tolist() == part["action"].tolist()
            assert one.rewards[n, :length] == pytest.approx(part["reward"].to_numpy(), abs=1e-6)
            assert one.returns_to_go[n, :length] == pytest.approx(part["return_to_go"].to_numpy(), abs=1e-6)
            assert not one.states[n, length:].any()
            assert (one.actions[n, length:] == 2).all()


def test_every_bar_of_val_and_test_is_in_one_window(tmp_path, rows):
    data = load_dataset(write(tmp_path / "a.parquet", rows), window=4)
    for split in ("val", "test"):
        assert data[split].mask.sum() == sum(LENGTHS[split])
        seen = data[split].rewards[data[split].mask]
        assert seen == pytest.approx(rows.loc[rows["split"] == split, "reward"].to_numpy(), abs=1e-6)


def test_a_split_without_rows_has_no_windows(tmp_path, rows):
    data = load_dataset(write(tmp_path / "a.parquet", rows[rows["split"] != "val"]), window=4)
    assert data["val"].states.shape == (0, 4, 17)


def test_what_was_fitted_is_in_the_file(tmp_path, rows):
    fitted = load_fitted(write(tmp_path / "a.parquet", rows))
    assert scaling_of(fitted).apply(np.full((1, 17), 5.0)) == pytest.approx(np.full((1, 17), 2.0))


def test_names_what_is_wrong_with_a_file(tmp_path, rows):
    with pytest.raises(TraderDataError, match="is not there; write it with"):
        load_dataset(tmp_path / "none.parquet")
    rubbish = tmp_path / "rubbish.parquet"
    rubbish.write_bytes(b"PAR1 nothing")
    with pytest.raises(TraderDataError, match=r"rubbish\.parquet cannot be read"):
        load_dataset(rubbish)
    rows.to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(TraderDataError, match="not the pipeline's"):
        load_dataset(tmp_path / "foreign.parquet")
    path = write(tmp_path / "short.parquet", rows.drop(columns=["rsi"]))
    with pytest.raises(TraderDataError, match=r"short\.parquet lacks the column\(s\) rsi"):
        load_dataset(path)
    with pytest.raises(TraderDataError, match="at least 1 bar"):
        load_dataset(write(tmp_path / "a.parquet", rows), window=0)
