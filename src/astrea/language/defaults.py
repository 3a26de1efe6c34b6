"""Numbers that recipes and models share."""

WORD_MATCH = 16.0
"""Where gamma, the strength of the word match, starts; the bundled language model was pretrained with it."""
