"""Trained models published on the Hugging Face hub."""
