"""Layouts of annotations, each read into one normal form."""
