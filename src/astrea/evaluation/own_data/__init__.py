"""Scores on data of one's own: what is asked there, what a model answers, and how right that is."""
