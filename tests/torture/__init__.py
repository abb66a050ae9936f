"""The checker: real processes, real servers and real faults against the promises; ``python -m tests.torture``."""
