"""Data sets, made, prepared and checked."""
