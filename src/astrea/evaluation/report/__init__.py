"""The report: one run folder -> one page that says what was learned, how well, and by looking through which expert."""

from astrea.evaluation.report.page import write_report
from astrea.evaluation.report.results import TASKS, Results, parse_results

__all__ = ["TASKS", "Results", "parse_results", "write_report"]
