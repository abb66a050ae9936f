"""Pictures of the documentation, drawn as SVG from runs: ``python -m benchmarks.pictures [--out DIR] [name ...]``."""
