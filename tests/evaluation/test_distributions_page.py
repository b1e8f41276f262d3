"""The page of the analysis names what the program makes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from grpo.evaluation.distributions import plots
from grpo.evaluation.distributions.analysis import compare_distributions

PAGE = Path(plots.__file__).with_name("README.md").read_text()


def test_the_page_explains_every_measure_and_picture(tmp_path):
    rng = np.random.default_rng(0)
    pair = {name: rng.standard_normal((40, 3)) for name in ("real", "generated")}
    report = compare_distributions(pair["real"], pair["generated"])
    cells = set(re.findall(r"^\| ([^|`]+) \|", PAGE, flags=re.MULTILINE)) - {"measure", "picture", "---"}
    named = {name.strip() for cell in cells for name in cell.split(",")}
    assert named == {measure.name for measure in report.measures}
    made = {path.name for path in plots.write_pictures(pair, report, "value", tmp_path)}
    assert set(re.findall(r"`(\w+\.png)`", PAGE)) == made
