"""Weights that may come from anyone: what they are, whether they act, what they keep and moved.

`find` says what lies in a folder, `adapter` and `full` load it onto or beside a baseline, `checks`
holds it against the baseline, `measure` reads zero-shot accuracy and drift.
"""
