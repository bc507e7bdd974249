"""Configs and runners, as the tools use them."""
