"""An adapter that a run has published forecasts a CSV with no other setting."""

from __future__ import annotations

import pytest

from grpo.models.adapters import read_record
from grpo.prediction.forecast import forecast_csv, load_forecaster
from grpo.runs.stages import ADAPTER_STAGES
from preprocessing.windows_reader import read_windows
from tests.tiny_runs import SLUG, STOCK
from tests.windows_factory import simulated_bars


@pytest.mark.parametrize("stage", ADAPTER_STAGES, ids=lambda stage: stage.key)
def test_a_published_adapter_forecasts(finished, stage, tmp_path):
    adapter = finished.models / "embedded" / SLUG / stage.adapter
    record = read_record(adapter)
    train = read_windows(*(finished.place("preprocess") / f"{SLUG}_train_{part}.csv" for part in "xy"))
    assert (record.stage, record.stock, record.base_model) == (stage.key, STOCK, "embedded")
    assert record.training_windows == len(train)
    assert record.trained_until == str(train.truth.dates.max())[:10]
    assert read_record(finished.place(record.stage) / "adapter") == record
    csv = tmp_path / "X.csv"
    simulated_bars().rename(columns=str.title).to_csv(csv, index_label="Date", date_format="%Y-%m-%d")
    result = forecast_csv(load_forecaster(adapter), csv, num_samples=25)
    assert result.median.shape == (10,)
    assert result.dates is not None
