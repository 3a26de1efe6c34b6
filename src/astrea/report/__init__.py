"""The report: one run folder -> one page that says what was learned, how well, and from which expert."""
