"""The model card of a pushed adapter, written from the run's manifests alone. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from grpo.evaluation.markdown import markdown
from grpo.models.adapters import AdapterRecord
from grpo.models.config import EMBEDDED
from grpo.runs.folder import stage_folder, stage_manifest
from grpo.runs.stages import Stage
from preprocessing.combined_preprocessor import REPORT_FILE
from preprocessing.files import JsonObject, sha256

_MANY = 20


def model_card(
    stage: Stage, adapter: Path, record: AdapterRecord, *, run: Path, repo_id: str, license_name: str | None
) -> str:
    """README.md of the adapter's repository.

    Args:
        stage: the stage that made it.
        adapter: its folder.
        record: its record, whose base model is what others can load.
        run: the run folder, whose manifests say how it was made and what it reached.
        repo_id: where it is pushed.
        license_name: under which it is published; None: not said.
    """
    embedded = record.base_model == EMBEDDED
    header: JsonObject = {"library_name": "peft", "pipeline_tag": "text-generation"}
    header |= {} if embedded else {"base_model": record.base_model}
    header |= {"license": license_name} if license_name else {}
    header["tags"] = ["grpo", "lora", "time-series-forecasting"]
    base = (
        "the small model that the package `grpo-forecast` brings along (`embedded`): that package is enough"
        if embedded
        else f"[{record.base_model}](https://huggingface.co/{record.base_model})"
    )
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
            f"# {repo_id.split('/')[1]}\n",
            f"A LoRA adapter ({stage.title}) that forecasts the daily closes of {_stocks(record)}: it reads "
            f"{record.window} days and answers with sample paths of the next {record.horizon}. Its base model is "
            f"{base}.\n",
            "## Use\n\n"
            f"With the Python package `grpo-forecast` (version {record.package_version} made this adapter):\n",
            "```python",
            "from grpo.predict import forecast_csv, load_forecaster\n",
            f'forecaster = load_forecaster("{repo_id}")',
            'print(forecast_csv(forecaster, "AAPL.csv").median)',
            "```\n",
            f"## How good it is\n\n{_metrics(run, stage, adapter)}\n",
            f"## Data\n\n{_data(run, record)}\n",
            f"## Training\n\n```yaml\n{yaml.safe_dump(_training(run, record), sort_keys=False)}```\n",
            f"## Limits\n\n{_limits(record, license_name)}\n",
        ]
    )


def _metrics(run: Path, stage: Stage, adapter: Path) -> str:
    """Scores of the comparison, if it has run with these very weights."""
    manifest = _read(stage_manifest(run, "compare"))
    # A comparison of an earlier training would praise or blame other weights.
    compared = manifest.get("inputs", {}).get(stage.adapter, {}).get("sha256") == sha256(adapter)
    metrics = manifest.get("metrics", {})
    scores = {key: _of(metrics, key, stage.forecaster) for key in ("rel_crps", "skill", "coverage_80", "valid")}
    if not compared or scores["rel_crps"] is None:
        return "It has not been compared with the random walk yet, so nothing is known of its quality."
    rows = [("CRPS relative to the random walk's", f"{scores['rel_crps']:.4f}", "below 1")]
    if scores["skill"] is not None:
        rows.append(("skill (share of what can be learnt, known for simulated stocks)", f"{scores['skill']:.3f}", "1"))
    if scores["valid"] is not None:
        rows.append(("share of valid answers (any other counts as no change)", f"{scores['valid']:.3f}", "1"))
    if scores["coverage_80"] is not None:
        rows.append(("coverage of the 80 % interval", f"{scores['coverage_80']:.3f}", "0.8"))
    names, values, good = zip(*rows, strict=True)
    parts = [
        "On the test windows, which neither training nor the choice of the adapter has seen:",
        markdown({"score": names, "value": values, "good is": good}),
    ]
    if metrics.get("verdict"):
        parts.append(f"The comparison's verdict: {metrics['verdict']}")
    return "\n\n".join(parts)


def _of(metrics: Mapping[str, Mapping[str, float]], key: str, forecaster: str) -> float | None:
    values = metrics.get(key)
    value = values.get(forecaster) if isinstance(values, Mapping) else None
    return value if isinstance(value, (int, float)) else None


def _data(run: Path, record: AdapterRecord) -> str:
    lines = []
    if record.trained_from:
        lines.append(
            f"Trained on {record.training_windows} windows of {_stocks(record)}: origins from {record.trained_from}, "
            f"prices up to {record.trained_until}."
        )
    report = _read(stage_folder(run, "preprocess") / REPORT_FILE)
    cut = report.get("cut", {})
    if cut.get("val_start") and cut.get("test_start"):
        lines.append(f"Validation begins on {cut['val_start']}, test on {cut['test_start']}.")
    stocks = [
        f"{stock} ({entry.get('first_date')} to {entry.get('last_date')}, {entry.get('rows')} days)"
        for stock, entry in report.get("stocks", {}).items()
        if not entry.get("skipped")
    ]
    if stocks:
        more = f" and {len(stocks) - _MANY} more" if len(stocks) > _MANY else ""
        lines.append(f"Bars: {', '.join(stocks[:_MANY])}{more}.")
    return " ".join(lines) or "Not recorded."


def _stocks(record: AdapterRecord) -> str:
    return record.stock or "stocks that its training data do not name"


def _training(run: Path, record: AdapterRecord) -> JsonObject:
    """Configuration and versions of the stage, with the base model as others know it."""
    manifest = _read(stage_manifest(run, record.stage))
    settings = manifest.get("config", {}) | {"model": record.base_model}
    return {**settings, "metrics": manifest.get("metrics", {}), "versions": manifest.get("versions", {})}


def _limits(record: AdapterRecord, license_name: str | None) -> str:
    until = f" after {record.trained_until}" if record.trained_until else ""
    terms = (
        f"It is published under {license_name}, as far as the base model's licence allows."
        if license_name
        else "No licence is named for it; the base model's licence applies to what is derived from it."
    )
    read = (
        "The base model has read simulated prices alone."
        if record.base_model == EMBEDDED
        else "What the base model has read of these prices is not known."
    )
    return (
        f"It was trained on the stocks above alone; other stocks and times{until} may follow other laws. {read} Prices "
        "are on the basis of the adjusted close. Daily stock prices are rarely forecast better than by a random walk; "
        "look at the scores before you use it. This is no investment advice.\n\n"
        f"{terms} Price data belong to their provider and are not part of this repository."
    )


def _read(file: Path) -> JsonObject:
    return json.loads(file.read_text()) if file.is_file() else {}
