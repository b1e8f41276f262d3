"""Rejection sampling: the stage-1 model's own samples, chosen with the truth at hand, become SFT data.

    python -m grpo.stages.sft_data_generation --stock AAPL --grpo-saved-lora-1st DIR --train-x-path X.csv ...

K completions are sampled for each of a stratified choice of training windows; at most m are kept per window, by
`rejection.selection`. Writes {STOCK}_sft_training_data.csv (prompt, completion, date, stock, energy_reward),
rejected.parquet (all that was not kept, and why) and acceptance.csv (by volatility, direction and date), and
prints the coverage of the 80 % interval before and after: a selection that narrows the law shows here.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd

from grpo.config import RunConfig, parse_run_config, plain
from grpo.forecaster import load_llm_forecaster
from grpo.prompts import parse_answers, render_prompts, to_levels
from grpo.rejection import draw_stratified, select, strata
from grpo.rewards import energy, scale_paths
from grpo.runs import RunError, StageRun, resolve_paths, run_stage, stage_entry
from preprocessing.files import write_atomically
from preprocessing.windows import WindowSet, read_windows


def generate(config: RunConfig, stage: StageRun) -> dict[str, Any]:
    """Sample, choose and write; returns the headline metrics."""
    files = resolve_paths(config)
    windows = read_windows(files.train_x, files.train_y)
    settings, rng = config.rejection, np.random.default_rng(config.seed)
    context = windows.context
    volatility, last = context.feature("volatility"), context.last_price
    move = np.log(windows.truth.future[:, -1] / last)
    stratum = strata(volatility, move, context.origin)
    chosen_windows = draw_stratified(stratum, settings.max_windows, rng)
    windows = windows.take(chosen_windows)
    context, volatility, last = windows.context, volatility[chosen_windows], last[chosen_windows]
    forecaster = load_llm_forecaster(config, files.grpo_lora_1st, name="grpo_1st")
    texts = forecaster.sample_texts(
        context, horizon=windows.horizon, num_samples=settings.num_samples, seed=config.seed
    )
    flat = [text for row in texts for text in row]
    levels = parse_answers(flat, horizon=windows.horizon, style=config.prompt.style)
    paths = scale_paths(levels).reshape(len(windows), settings.num_samples, windows.horizon)
    truth = scale_paths(to_levels(windows.truth.future, last[:, None], volatility[:, None]))  # [N, H]
    valid = np.asarray(np.isfinite(paths).all(-1))  # [N, K]
    kept = np.zeros_like(valid)
    for row in range(len(windows)):
        kept[row, select(paths[row], truth[row], settings, rng)] = True
    if not kept.any():
        raise RunError("no sampled answer was valid, so there is no SFT data; train stage 1 longer, or check the model")
    table = _sample_table(config, windows, texts, paths, truth, kept)
    columns = ["prompt", "completion", "date", "stock", "energy_reward"]
    write_atomically(files.sft_data, table.loc[table["kept"], columns].to_csv(index=False))
    write_atomically(
        stage.folder / "rejected.parquet", table[~table["kept"]].drop(columns="kept").to_parquet(index=False)
    )
    acceptance = _acceptance(stratum[chosen_windows], kept, valid)
    write_atomically(stage.folder / "acceptance.csv", acceptance.to_csv(index=False))
    before, after = coverage_80(paths, truth), coverage_80(np.where(kept[:, :, None], paths, np.nan), truth)
    stage.logger.info("kept %d of %d samples of %d windows", kept.sum(), kept.size, len(windows))
    stage.logger.info(
        "coverage of the 80 %% interval: %.2f before, %.2f after; spread after / before: %.2f",
        before,
        after,
        _spread(paths, kept) / _spread(paths, valid),
    )
    return {
        "samples": int(kept.size),
        "kept": int(kept.sum()),
        "valid": float(valid.mean()),
        "coverage_80_before": before,
        "coverage_80_after": after,
    }


def coverage_80(paths: np.ndarray, truth: np.ndarray) -> float:
    """Share of (window, day) whose truth lies between the 10 % and 90 % quantiles of the valid samples.

    Args:
        paths: [N, K, H], NaN where invalid or not kept.
        truth: [N, H].
    """
    usable = np.isfinite(paths).any(axis=(1, 2))
    lower, upper = np.nanquantile(paths[usable], [0.1, 0.9], axis=1, method="weibull")
    return float(((lower <= truth[usable]) & (truth[usable] <= upper)).mean())


def _spread(paths: np.ndarray, mask: np.ndarray) -> float:
    chosen = np.where(mask[:, :, None], paths, np.nan)[mask.sum(1) > 1]
    return float(np.nanstd(chosen, axis=1).mean()) if len(chosen) else float("nan")


def _sample_table(
    config: RunConfig,
    windows: WindowSet,
    texts: list[list[str]],
    paths: np.ndarray,
    truth: np.ndarray,
    kept: np.ndarray,
) -> pd.DataFrame:
    prompts = render_prompts(windows.context, horizon=windows.horizon, style=config.prompt.style)
    dates = np.datetime_as_string(windows.context.origin, unit="D")
    parts = []
    for row, prompt in enumerate(prompts):
        valid = np.isfinite(paths[row]).all(-1)
        reward = np.full(len(valid), np.nan)
        if valid.any():
            reward[valid] = energy(paths[row][valid], truth[row])
        parts.append(
            pd.DataFrame(
                {
                    "prompt": prompt[-1]["content"],
                    "completion": texts[row],
                    "date": dates[row],
                    "stock": windows.context.item_id[row],
                    "energy_reward": reward,
                    "kept": kept[row],
                    "why": np.where(valid, np.where(kept[row], "", "not selected"), "invalid answer"),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _acceptance(stratum: np.ndarray, kept: np.ndarray, valid: np.ndarray) -> pd.DataFrame:
    names = ["low", "middle", "high"], ["down", "up"], ["early", "middle", "late"]
    table = pd.DataFrame(
        {
            "volatility": [names[0][value // 6] for value in stratum],
            "direction": [names[1][value // 3 % 2] for value in stratum],
            "date": [names[2][value % 3] for value in stratum],
            "windows": 1,
            "samples": kept.shape[1],
            "valid": valid.sum(1),
            "kept": kept.sum(1),
        }
    )
    strata_columns = ["volatility", "direction", "date"]
    return pd.DataFrame(table.groupby(strata_columns, sort=False).sum()).reset_index()


def main() -> None:
    """Run the stage."""
    config = parse_run_config(prog="python -m grpo.stages.sft_data_generation", description=__doc__ or "")
    if int(os.environ.get("RANK", "0")) > 0:
        return  # one process samples and writes; under `accelerate launch` the others have nothing to add
    paths = resolve_paths(config)
    run_stage(
        "rejection",
        config,
        sections={
            "model": config.model,
            "seed": config.seed,
            "prompt": plain(config.prompt),
            "rejection": plain(config.rejection),
        },
        inputs={"train_x": paths.train_x, "train_y": paths.train_y, "grpo_lora_1st": paths.grpo_lora_1st},
        outputs={"sft_data": paths.sft_data},
        body=lambda stage: generate(config, stage),
    )


if __name__ == "__main__":
    raise SystemExit(stage_entry(main))
