"""The report: one run folder -> one page that says what was learned, how well, and by looking through which expert."""

from astrea.report.page import write_report
from astrea.report.results import TASKS, Results, parse_results

__all__ = ["TASKS", "Results", "parse_results", "write_report"]
