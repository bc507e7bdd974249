"""Heads of two-stage detectors that work on a whole batch at once."""
