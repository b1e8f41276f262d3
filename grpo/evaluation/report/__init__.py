"""One self-contained report.html that a person can judge a forecaster by.

It needs no network and can be read without JavaScript. drawings.py decides which charts there are, charts.py draws each
of them on svg.py, and tables.py writes numbers; writer.py puts them on the page, pictures.py into SVG files. The look
lies in page/ (template, styles, script).
"""

from grpo.evaluation.report.writer import ReportInputs, write_report

__all__ = ["ReportInputs", "write_report"]
