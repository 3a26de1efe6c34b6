"""Inputs of people who mean no good, and a harness that tries them."""
