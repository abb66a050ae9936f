"""Thin adapters to frameworks. Each file is the only importer of its framework, and has an extra of its name."""
