"""Heads of single-stage detectors whose masks cost less."""
