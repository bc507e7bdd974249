"""Checkpoints: what was published, where it comes from, how it is read, matched and loaded."""
