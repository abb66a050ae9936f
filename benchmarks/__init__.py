"""Benchmarks beside the peers, in one command: ``python -m benchmarks [section ...] [--quick] [--json FILE]``."""
