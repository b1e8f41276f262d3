"""Published protocols as settings, so that our figures stand beside theirs on the same windows.

    python -m preprocessing.combined_preprocessor --preset vta-10 --root_path DIR --stock all --output_dir DIR

vta-10: VTA, "Reasoning on Time-Series for Financial Technical Analysis" (arXiv 2511.08616), on StockNet's raw CSVs.
    10 adjusted closes in, 10 out, stride 1; each stock cut by its own rows, the first int(.7 n) to train and the
    last int(.2 n) to test; a test window's targets lie in the test rows, its past may reach back before them;
    errors on z-scores by the mean and deviation of the stock's training closes (norm_mean, norm_std). This gives
    the 20,875 test windows that were published for the 88 stocks.

    Two things differ and leave the test windows as they are: training windows begin only when the indicators have
    warmed up, and indicators are computed on the whole past rather than inside the window.

In the stages of a run the same settings are --data.window 10 --data.split_by stock --data.embargo 0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from preprocessing.config import DataConfig
from preprocessing.files import JsonObject

PresetName = Literal["vta-10"]
PRESETS: dict[str, JsonObject] = {
    "vta-10": {
        "window": 10,
        "horizon": 10,
        "stride": 1,
        "split": (0.7, 0.1, 0.2),
        "split_by": "stock",
        "embargo": 0,
    },
}


def preset(name: PresetName, **settings: Any) -> DataConfig:
    """A published protocol's settings.

    Args:
        name: of the preset.
        settings: further fields of DataConfig, such as data_dir; they win over the preset's.
    """
    return DataConfig(**PRESETS[name] | settings)


def expand_preset(arguments: Sequence[str]) -> list[str]:
    """Put a preset's settings, as flags, before the arguments that name it, so that these win over them."""
    expanded = list(arguments)
    for position, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        name = value if equals else "".join(arguments[position + 1 : position + 2])
        if flag == "--preset" and name in PRESETS:
            expanded = [f"--{field}={_text(setting)}" for field, setting in PRESETS[name].items()] + expanded
    return expanded


def _text(setting: object) -> str:
    return setting if isinstance(setting, str) else json.dumps(setting)
