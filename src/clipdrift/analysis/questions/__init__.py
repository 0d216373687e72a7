"""One question a file: `rows` gives its list, typed.

What several of them take:

    frame: one row per finished run, as `runs_frame` makes it; records may come in any order.
    metrics: columns of it; each question has a default of its own.
    images: which images each of these runs was right on; without it intervals draw seeds alone.
    varied: factors whose fingerprints may differ between matched runs.
    compare_with: methods of which every compared pair holds one; default every pair.
    underfit_fraction: share of the best cell's accuracy from which on a cell fits; see `fits`.
"""
