"""What was found in a stock's bars, in words: for the log, for warnings, and for a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preprocessing.bars import REPAIRS, WARNINGS, BarsReport

STAND_IN = "the close stands in for prices, 0 for volume"


def counts_of(entry: Mapping[str, Any], fields: tuple[str, ...]) -> list[str]:
    """`field 3` for each that is not 0."""
    return [f"{field.replace('_', ' ')} {entry[field]}" for field in fields if entry.get(field)]


def oddities(entry: Mapping[str, Any]) -> list[str]:
    """What looks odd and stays as it is: counts, and what they are about."""
    found = counts_of(entry, WARNINGS)
    if entry.get("gaps"):
        found[found.index(f"gaps {entry['gaps']}")] += f" (longest gap {entry['longest_gap_days']:g} days)"
    if entry.get("moves"):
        found.append(f"moves: {', '.join(entry['moves'])}")
    if entry.get("absent_columns"):
        found.append(f"no column {', '.join(entry['absent_columns'])} ({STAND_IN})")
    if entry.get("unread_columns"):
        found.append(f"columns not understood, which may change what prices mean: {', '.join(entry['unread_columns'])}")
    return found


def findings_of(entry: Mapping[str, Any]) -> list[str]:
    """All that was found in a stock: repaired, odd, left out."""
    repaired = counts_of(entry, REPAIRS)
    found = [f"repaired: {', '.join(repaired)}"] if repaired else []
    found += [", ".join(oddities(entry))] if oddities(entry) else []
    return found + ([f"left out: {entry['skipped']}"] if entry["skipped"] else [])


def notices_of(name: str, report: BarsReport | Mapping[str, Any]) -> list[str]:
    """One line for each of: repaired, odd, left out."""
    entry = vars(report) if isinstance(report, BarsReport) else report
    lines = []
    for what, found in (("was repaired", counts_of(entry, REPAIRS)), ("has, unchanged", oddities(entry))):
        if found:
            lines.append(f"stock {name} {what}: {', '.join(found)}")
    if entry["skipped"]:
        lines.append(f"stock {name} is left out: {entry['skipped']}")
    return lines
