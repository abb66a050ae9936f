"""The local tier: complete without a network, no I/O, no clock of its own."""
