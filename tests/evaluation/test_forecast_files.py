from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from grpo.evaluation.forecast_files import ForecastFileError, load_forecast, save_forecast, write_forecasts_table
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.metrics import score_windows
from grpo.evaluation.protocol import Forecast


def forecast_with_a_hole(texts=None):
    samples = np.array([[[1 / 3, 2.0], [np.nan, np.nan]], [[5.0, 6.0], [7.0, 8.0]]])
    return Forecast(samples=samples, valid=np.isfinite(samples).all(-1), texts=texts)


@pytest.mark.parametrize("texts", [None, (("[1, 2]", "é?"), ("", "[7, 8]"))])
def test_a_forecast_reads_back_to_the_bit(tmp_path, texts):
    forecast = forecast_with_a_hole(texts)
    save_forecast(forecast, 1.25, tmp_path / "f.npz")
    back, seconds = load_forecast(tmp_path / "f.npz")
    np.testing.assert_array_equal(back.samples, forecast.samples)
    np.testing.assert_array_equal(back.valid, forecast.valid)
    assert (back.texts, seconds) == (texts, 1.25)


@pytest.mark.parametrize("damage", [lambda data: data[:-50], lambda data: b"", lambda data: b"PK" + data[9:]])
def test_a_damaged_file_is_told_from_a_forecast(tmp_path, damage):
    file = tmp_path / "f.npz"
    save_forecast(forecast_with_a_hole(), 1.0, file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ForecastFileError, match=r"f\.npz is damaged: "):
        load_forecast(file)


def test_a_file_of_something_else_is_told_from_a_forecast(tmp_path):
    np.savez(tmp_path / "f.npz", samples=np.ones((1, 1, 1)), texts="null", seconds=1.0)
    with pytest.raises(ForecastFileError, match="valid"):
        load_forecast(tmp_path / "f.npz")


def test_the_table_holds_every_sample(tmp_path, make_windows):
    windows = make_windows([1.0, 6.0], [[1.0, 1.0], [6.0, 6.0]], items=["B", "A"])
    forecast = forecast_with_a_hole()
    scores = score_windows(forecast, windows)
    evaluations = [Evaluation(name=name, forecast=forecast, scores=scores, seconds=0.0) for name in ("p", "q")]
    write_forecasts_table(evaluations, windows.context, tmp_path / "forecasts.parquet", seeds=np.array([7, 8]))
    table = pq.read_table(tmp_path / "forecasts.parquet").to_pandas()
    assert table["forecaster"].tolist() == ["p"] * 8 + ["q"] * 8
    first = table.iloc[:8]
    assert first["seed"].tolist() == [7] * 4 + [8] * 4
    assert first["stock"].tolist() == ["B"] * 4 + ["A"] * 4
    assert [str(day) for day in first["origin"]] == ["2020-01-01"] * 4 + ["2020-01-02"] * 4
    assert first["sample"].tolist() == [0, 0, 1, 1] * 2
    assert first["h"].tolist() == [1, 2] * 4
    np.testing.assert_array_equal(first["price"], forecast.samples.astype(np.float32).ravel())
    assert pq.read_table(tmp_path / "forecasts.parquet")["price"].null_count == 4
    assert [path.name for path in tmp_path.iterdir()] == ["forecasts.parquet"]
