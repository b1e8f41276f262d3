"""One self-contained report.html that a person can judge a forecaster by.

It needs no network and can be read without JavaScript. writer.py puts verdict, tables and charts together; charts.py
draws on svg.py, tables.py writes numbers; the look lies in page/ (template, style, script).
"""

from grpo.evaluation.report.writer import ReportInputs, write_report

__all__ = ["ReportInputs", "write_report"]
