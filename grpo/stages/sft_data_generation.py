"""Rejection sampling: the stage-1 model's own samples, chosen with the truth at hand, become SFT data.

    python -m grpo.stages.sft_data_generation --stock AAPL --grpo-saved-lora-1st DIR --train-x-path X.csv ...

K completions are sampled for each of a stratified choice of training windows; at most m are kept per window, by
`rejection.selection`. Writes {STOCK}_sft_training_data.csv (prompt, completion, date, stock, energy_reward),
rejected.parquet (all that was not kept, and why) and acceptance.csv (by volatility, direction and date), and
prints how often the range of the kept samples holds the truth, beside the range of as many random ones: a
selection that narrows the law shows here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from grpo.config import RunConfig, parse_run_config
from grpo.language.answers import parse_all
from grpo.language.prompts import style_of
from grpo.language.rewards import energy, path_norm
from grpo.language.scale import scale_paths, true_paths
from grpo.runs.folder import RunPaths, fetch_adapters, resolve_paths
from grpo.runs.log import stage_entry
from grpo.runs.processes import rank
from grpo.runs.resume import StageRun, run_stage
from grpo.runs.stages import stage_of
from grpo.stages.training_settings import sources_section
from grpo.training.rejection import draw_stratified, select, strata
from preprocessing.command_line import plain
from preprocessing.errors import UserError
from preprocessing.files import JsonObject, write_atomically
from preprocessing.seeds import generator
from preprocessing.windows import WindowSet
from preprocessing.windows_reader import read_windows

SAMPLED = stage_of("stage1")
"""Whose adapter is sampled from."""


@dataclass(frozen=True)
class Sampled:
    """Samples of N stratified training windows.

    Attributes:
        windows: the windows.
        stratum: [N] their strata.
        texts: [N][K] raw answers.
        paths: [N, K, H] scaled paths, NaN where invalid.
        truth: [N, H] scaled realised paths.
    """

    windows: WindowSet
    stratum: np.ndarray
    texts: list[list[str]]
    paths: np.ndarray
    truth: np.ndarray

    @property
    def valid(self) -> np.ndarray:
        """[N, K] which answers parsed."""
        return np.asarray(np.isfinite(self.paths).all(-1))


def sample(config: RunConfig, paths: RunPaths, rng: np.random.Generator) -> Sampled:
    """Sample K answers for each of a stratified choice of training windows from the stage-1 model."""
    # Brings torch, which a finished stage does not need.
    from grpo.sampling.forecaster import load_llm_forecaster

    settings = config.rejection
    windows = read_windows(paths.train_x, paths.train_y)
    # The truth may choose here: these are training windows.
    move = np.log(windows.truth.future[:, -1] / windows.context.last_price)
    stratum = strata(windows.context.feature("volatility"), move, windows.context.origin)
    chosen = draw_stratified(stratum, settings.max_windows, rng)
    windows = windows.take(chosen)
    context, horizon = windows.context, windows.horizon
    spec = config.spec(paths.adapters[SAMPLED.adapter])
    forecaster = load_llm_forecaster(spec, config.prompt, config.generation, name=SAMPLED.forecaster)
    texts = forecaster.sample_texts(context, horizon=horizon, num_samples=settings.num_samples, seed=config.seed)
    form = style_of(config.prompt).form
    levels = parse_all([text for row in texts for text in row], horizon=horizon, form=form)
    return Sampled(
        windows=windows,
        stratum=stratum[chosen],
        texts=texts,
        # [N K, H] to [N, K, H]
        paths=scale_paths(levels).reshape(len(windows), settings.num_samples, horizon),
        truth=true_paths(windows),
    )


def generate(config: RunConfig, paths: RunPaths, stage: StageRun) -> JsonObject:
    """Sample, choose and write; returns the headline metrics."""
    settings, rng = config.rejection, generator(config.seed)
    sampled = sample(config, paths, rng)
    valid = sampled.valid
    kept, drawn = np.zeros_like(valid), np.zeros_like(valid)
    for row in range(len(valid)):
        kept[row, select(sampled.paths[row], sampled.truth[row], settings, rng)] = True
        # As many as are kept at most, drawn blindly: the range of more samples is wider by itself.
        drawn[row, rng.permutation(np.flatnonzero(valid[row]))[: settings.keep]] = True
    if not kept.any():
        raise UserError(
            f"no sampled answer was valid and within rejection.max_distance {settings.max_distance:g} of what happened "
            f"({100 * valid.mean():.1f} % were valid), so there is no SFT data; train stage 1 longer, or check the "
            "model"
        )
    _write(config, paths, stage, sampled, kept)
    before, after = (range_coverage(sampled.paths, chosen, sampled.truth) for chosen in (drawn, kept))
    # Of m samples and the truth, alike in law, the truth is the lowest or the highest with probability 2 / (m + 1).
    calibrated = (settings.keep - 1) / (settings.keep + 1)
    dropped = int((~kept.any(1)).sum())
    stage.logger.info(
        "kept %d of %d samples of %d windows; %d windows have none that is valid and close enough",
        *(kept.sum(), kept.size, len(kept), dropped),
    )
    stage.logger.info(
        "truth within the range of %d samples: %.2f of the days for random ones, %.2f for the kept ones (a calibrated "
        "law gives %.2f); their spread is %.2f of the random ones'",
        *(settings.keep, before, after, calibrated, _spread(sampled.paths, kept) / _spread(sampled.paths, drawn)),
    )
    return {
        "samples": int(kept.size),
        "kept": int(kept.sum()),
        "dropped_windows": dropped,
        "valid": float(valid.mean()),
        "range_coverage_before": before,
        "range_coverage_after": after,
        "range_coverage_calibrated": calibrated,
    }


def range_coverage(paths: np.ndarray, chosen: np.ndarray, truth: np.ndarray) -> float:
    """Share of (window, day) whose truth lies between the smallest and the largest of the chosen samples.

    If m samples and the truth come from one law this is (m - 1) / (m + 1) on average.

    Args:
        paths: [N, K, H], NaN where invalid.
        chosen: [N, K] at least one in some window.
        truth: [N, H].
    """
    rows = chosen.any(1)
    # [N, K, 1] against [N, K, H]; windows without a chosen sample are left out, whose range would be NaN.
    some = np.where(chosen[:, :, None], paths, np.nan)[rows]
    inside = (np.nanmin(some, axis=1) <= truth[rows]) & (truth[rows] <= np.nanmax(some, axis=1))
    return float(inside.mean())


def _write(config: RunConfig, paths: RunPaths, stage: StageRun, sampled: Sampled, kept: np.ndarray) -> None:
    table = _sample_table(config, sampled.windows, sampled.texts, sampled.paths, sampled.truth, kept)
    columns = ["prompt", "completion", "date", "stock", "energy_reward"]
    rejected = table[~table["kept"]].drop(columns="kept")
    acceptance = _acceptance(sampled.stratum, kept, sampled.valid)
    write_atomically(stage.folder / "rejected.parquet", rejected.to_parquet(index=False))
    write_atomically(stage.folder / "acceptance.csv", acceptance.to_csv(index=False))
    # Last, since stage 2 starts wherever this file is.
    write_atomically(paths.sft_data, table.loc[table["kept"], columns].to_csv(index=False))


def _spread(paths: np.ndarray, mask: np.ndarray) -> float:
    # One sample alone has no spread.
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
    prompts = style_of(config.prompt).render(windows.context, windows.horizon)
    dates = np.datetime_as_string(windows.context.origin, unit="D")
    parts = []
    for row, prompt in enumerate(prompts):
        valid = np.isfinite(paths[row]).all(-1)
        reward = np.full(len(valid), np.nan)
        if valid.any():
            # The pair weight stays 1: these are scores to read, and no baseline is subtracted from them.
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
                    "why": _why(paths[row], truth[row], kept[row], config.rejection.max_distance),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _why(paths: np.ndarray, truth: np.ndarray, kept: np.ndarray, max_distance: float) -> np.ndarray:
    """[K] why each sample of a window was rejected; empty for a kept one."""
    far = path_norm(paths - truth) > max_distance
    reasons = [kept, ~np.isfinite(paths).all(-1), far]
    # The first that holds wins; the distance of an invalid path is NaN, which is never too far.
    return np.select(reasons, ["", "invalid answer", "too far from what happened"], "not selected")


def _acceptance(stratum: np.ndarray, kept: np.ndarray, valid: np.ndarray) -> pd.DataFrame:
    names = ["low", "middle", "high"], ["down", "up"], ["early", "middle", "late"]
    table = pd.DataFrame(
        {
            # stratum = 6 volatility + 3 direction + date, as `rejection.strata` numbers them
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
    # One process samples and writes; under `accelerate launch` the others have nothing to add.
    if rank() > 0:
        return
    paths = fetch_adapters(resolve_paths(config.paths, config.run_folder, config.stock_slug), SAMPLED.adapter)
    run_stage(
        "rejection",
        config.run_folder,
        seed=config.seed,
        sections={
            "model": config.model,
            "seed": config.seed,
            "prompt": plain(config.prompt),
            "generation": plain(config.generation),
            "loading": plain(config.loading),
            "rejection": plain(config.rejection),
        }
        | sources_section(config.prompt),
        inputs=paths.named("train_x", "train_y", SAMPLED.adapter),
        outputs={"sft_data": paths.sft_data},
        body=lambda stage: generate(config, paths, stage),
    )


if __name__ == "__main__":
    raise SystemExit(stage_entry(main))
