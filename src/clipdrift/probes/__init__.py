"""Drift measurements: pure tensor functions, one quantity family a file, and streaming capture."""
