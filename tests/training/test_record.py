"""What the record of a trained adapter says it was trained on."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from grpo.config import RunConfig
from grpo.models.adapters import RECORD_FILE, record_text
from grpo.runs.stages import stage_of
from grpo.stages.training_settings import training_task
from grpo.training.config import GrpoConfig
from grpo.training.record import of_examples, stage_record, with_earlier
from preprocessing.errors import UserError
from tests.tiny_adapters import record_of
from tests.windows_factory import simulated_windows

TRAIN = simulated_windows()["train"]
CONFIG = RunConfig(stock="all")
RECORD = record_of(CONFIG, "stage2", TRAIN)


def rows_of(windows) -> pd.DataFrame:
    days = np.datetime_as_string(windows.context.origin, unit="D")
    return pd.DataFrame({"prompt": "p", "completion": "c", "stock": windows.context.item_id, "date": days})


def test_rows_of_the_runs_own_windows_end_where_their_futures_end():
    few = TRAIN.take(np.array([3, 5, 9]))
    record = of_examples(RECORD, pd.concat([rows_of(few)] * 2), TRAIN)
    assert (record.stock, record.training_windows) == ("all", 3)
    assert record.trained_from == str(few.context.origin[0])[:10]
    assert record.trained_until == str(few.truth.dates[-1, -1])[:10]


def test_rows_of_other_stocks_say_their_own_stocks_and_days():
    rows = pd.DataFrame({"stock": ["MSFT", "AAPL", "MSFT"], "date": ["2023-05-01", "2024-02-28", "2023-05-01"]})
    record = of_examples(RECORD, rows, TRAIN)
    assert (record.stock, record.training_windows) == ("AAPL,MSFT", 2)
    # ten weekdays after Wednesday, 28 February 2024
    assert (record.trained_from, record.trained_until) == ("2023-05-01", "2024-03-13")


def test_rows_that_name_no_day_leave_it_unknown():
    record = of_examples(RECORD, pd.DataFrame({"prompt": ["p"], "completion": ["c"]}), TRAIN)
    assert (record.stock, record.trained_from, record.trained_until) == ("", None, None)
    with pytest.raises(UserError, match="SFT data, column 'date'"):
        of_examples(RECORD, pd.DataFrame({"stock": ["A"], "date": ["soon"]}), TRAIN)


def test_what_an_adapter_went_on_from_counts_too():
    later = dataclasses.replace(RECORD, stock="MSFT", trained_from="2023-05-01", trained_until="2024-03-13")
    earlier = dataclasses.replace(RECORD, stock="AAPL", trained_from="2012-01-01", trained_until="2015-01-01")
    both = with_earlier(later, earlier)
    assert (both.stock, both.trained_from, both.trained_until) == ("AAPL,MSFT", "2012-01-01", "2024-03-13")
    assert with_earlier(RECORD, RECORD) == RECORD
    unknown = dataclasses.replace(later, stock="", trained_from=None, trained_until=None, training_windows=None)
    assert with_earlier(unknown, earlier).trained_until == "2015-01-01"


def test_the_record_holds_rewards_and_the_code_of_ones_own(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text("def f(paths, truth):\n    return -abs(paths - truth).mean(-1)\n")
    settings = GrpoConfig(rewards={"energy": 1.0, f"{own}:f": 0.5})
    record = stage_record(training_task(replace(CONFIG, stage1=settings), stage_of("stage1")), windows=TRAIN)
    assert record.rewards == {"energy": 1.0, f"{own}:f": 0.5}
    assert list(record.sources) == [f"{own}:f"]
    before = tmp_path / "stage1"
    before.mkdir()
    (before / RECORD_FILE).write_text(record_text(record))
    assert stage_record(training_task(CONFIG, stage_of("stage2"), before), windows=TRAIN).sources == record.sources
