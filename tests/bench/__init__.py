"""Benchmarks through the public API: `python -m tests.bench` (see __main__)."""
