"""Benchmarks: `python -m benchmarks`, see `make bench` and docs/benchmarks.md."""
