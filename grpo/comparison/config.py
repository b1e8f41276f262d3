"""Settings of the comparison."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

from preprocessing.errors import require


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """The comparison on the test split."""

    forecasters: tuple[str, ...] | str = ("llm", "random_walk", "random_walk_drift", "fhs_drift", "ridge")
    """Which to compare, a list or a,b,c: base, grpo_1st, sft, grpo_2nd (the language model at each stage), `llm` (base
    and every adapter that there is), any installed plugin by name, `all` (every plugin whose packages are installed);
    any other adapter as NAME=ADAPTER (a folder or user/name[@revision]), NAME=ADAPTER@MODEL on another base, any other
    base model as NAME=base@MODEL, any other plugin as [NAME=]module:Class or [NAME=]file.py:Class. A MODEL is
    `embedded` or has a slash: user/name, ./folder. random_walk is always among them."""
    num_samples: int = 100
    """Sample paths per window and forecaster, S."""
    max_windows: int = 200
    """Test windows used at most, spread evenly over the split; 0 uses all."""
    folds: int = 1
    """Walk-forward blocks of the test span: before each, plugins are fitted again on all that came before it; the
    language model stays as it was trained."""
    seeds: int = 1
    """Runs with the seeds seed, seed + 1, ...: plugins are fitted again and every forecaster samples again."""
    placebo: Literal["none", "shuffle", "sign_flip", "gbm", "all"] = "none"
    """Also compare on data that hold nothing to learn: futures that belong to other windows (`shuffle`), future returns
    of random sign (`sign_flip`), random walks in place of the prices (`gbm`). Skill there is a leak."""
    base_cutoff: str | None = None
    """Day YYYY-MM-DD up to which the base model may have read prices: test windows before and after get own tables."""
    probes: bool = False
    """Ask the language model to recite prices and to name the stock of a window: what it may know by heart."""

    def __post_init__(self) -> None:
        # the fair CRPS compares samples with each other
        require(self.num_samples >= 2, f"compare.num_samples must be at least 2; got {self.num_samples}")
        require(self.max_windows >= 0, f"compare.max_windows must be 0 or more; got {self.max_windows}")
        require(self.folds >= 1, f"compare.folds must be at least 1; got {self.folds}")
        require(self.seeds >= 1, f"compare.seeds must be at least 1; got {self.seeds}")
        require(bool(self.names), "compare.forecasters must name at least one forecaster")
        require(
            self.base_cutoff is None or _is_day(self.base_cutoff),
            f"compare.base_cutoff must be a day as YYYY-MM-DD; got {self.base_cutoff}",
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The forecasters as they were asked for, each once."""
        asked = self.forecasters.split(",") if isinstance(self.forecasters, str) else self.forecasters
        return tuple(dict.fromkeys(name.strip() for name in asked if name.strip()))


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
