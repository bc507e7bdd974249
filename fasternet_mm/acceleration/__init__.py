"""Trained models made fast in PyTorch: `optimize`."""
