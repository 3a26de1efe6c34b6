"""Where things lie in a checkout, for tests wherever they are."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
EXAMPLES = ROOT / "docs" / "examples"
FIXTURES = ROOT / "tests" / "fixtures"
