"""Drawings of truth and predictions."""
