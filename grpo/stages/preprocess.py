"""Bars to windows, the first stage of a run: {STOCK}_{train,val,test,full}_{x,y}.csv in its data folder, and
fold_1..fold_K where data.folds asks for walk-forward folds.

    python -m grpo.stages.preprocess --stock AAPL --data-dir DIR --run-dir results/aapl

The work is `preprocessing.combined_preprocessor`; this adds the run folder, the manifest and the resume rule.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from grpo.config import RunConfig, parse_run_config
from grpo.runs.folder import stage_folder
from grpo.runs.log import stage_entry
from grpo.runs.resume import StageRun, run_stage
from preprocessing.combined_preprocessor import REPORT_FILE, fold_folder, notices, preprocess, windows_files
from preprocessing.market_data import locate_stocks
from preprocessing.stock_windows import SPLIT_NAMES
from preprocessing.windows import SPLITS


def main() -> None:
    """Parse the flags and run the stage."""
    config = parse_run_config(
        prog="python -m grpo.stages.preprocess",
        description="Turn daily OHLCV bars into windows with indicators, split by date.",
    )
    make_run_windows(config)


def make_run_windows(config: RunConfig) -> None:
    """The windows of a run, by the resume rule."""
    folder = stage_folder(config.run_folder, "preprocess")
    outputs = {"report": folder / REPORT_FILE}
    for split in SPLITS:
        outputs[f"{split}_x"], outputs[f"{split}_y"] = windows_files(config.stock, folder, split)
    # One fold is the plain split, which needs no folder of its own.
    for number in range(1, config.data.folds + 1) if config.data.folds > 1 else ():
        for split in SPLIT_NAMES:
            paths = windows_files(config.stock, fold_folder(folder, number), split)
            outputs |= {f"fold_{number}_{split}_{part}": path for part, path in zip("xy", paths, strict=True)}

    def body(run: StageRun) -> Mapping[str, object]:
        report = preprocess(config.stock, config.data, run.folder)
        for line in notices(report):
            run.logger.warning(line)
        run.logger.info("windows: %s", ", ".join(f"{split} {count}" for split, count in report["windows"].items()))
        return {f"{split}_windows": count for split, count in report["windows"].items()}

    run_stage(
        "preprocess",
        config.run_folder,
        seed=config.seed,
        sections={"stock": config.stock, "data": config.data},
        # simulated stocks have no file: their name is all that they depend on
        inputs={file.path.stem: file.path for file in locate_stocks(config.stock, config.data).values() if file},
        outputs=outputs,
        body=body,
    )


if __name__ == "__main__":
    sys.exit(stage_entry(main))
