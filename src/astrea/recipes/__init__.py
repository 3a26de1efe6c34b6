"""Recipes: the YAML files that describe a run, and their strict loader."""
