"""Servers that take calls, for `benchmarks/calls.py`: bare aiortc, the peer, ours; and the callers."""
