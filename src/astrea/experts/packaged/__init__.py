"""Experts whose weights come from packages: ready by name, nothing is fetched from a hub (see docs/experts.md)."""
