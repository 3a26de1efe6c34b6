"""When an answer is not to be believed: how likely it is right, and what speaks against it."""

from astrea.confidence.estimator import ConfidenceEstimator, Verdict

__all__ = ["ConfidenceEstimator", "Verdict"]
