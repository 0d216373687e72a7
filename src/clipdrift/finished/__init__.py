"""Finished runs: read again from their files, read after changes of their weights, and exported.

`evaluate` measures a run anew, `after` soups and scalings of runs, `export` writes folders that
transformers or peft load, with `model_card` their README.
"""
