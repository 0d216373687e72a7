"""Edits of a finished model without training: parts put back, moved alone, attention replaced.

Each edited model is read on the same images as the untouched and the adapted one.
"""
