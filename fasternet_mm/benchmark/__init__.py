"""Measurements of speed and memory, side by side in one run; ``tools/benchmark.py`` is their command line."""
