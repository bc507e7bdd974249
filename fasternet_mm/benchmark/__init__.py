"""Measurements of speed and memory, side by side in one run; ``fasternet-mm benchmark`` is their command."""
