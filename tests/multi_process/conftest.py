from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from grpo.language.prompts import STYLES
from preprocessing.windows_reader import read_windows
from tests.tiny_runs import TinyRun, paths_of


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], TinyRun]:
    """Makes runs that have windows and SFT data, whose answers differ in length, and no trained stage."""
    made = TinyRun(tmp_path_factory.mktemp("prepared")).stages("preprocess")
    paths = paths_of(made.config("stage2"))
    windows = read_windows(paths.train_x, paths.train_y).take(np.arange(48))
    prompts = STYLES["direct"].render(windows.context, windows.horizon)
    noise = np.random.default_rng(0)
    paths.sft_data.parent.mkdir()
    with paths.sft_data.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "completion"])
        for row, prompt in enumerate(prompts):
            levels = noise.uniform(400, 600, windows.horizon)[: 2 + row % 9]
            writer.writerow([prompt[-1]["content"], STYLES["direct"].form.render(levels)])
    return lambda folder: TinyRun(Path(shutil.copytree(made.root, folder)))
