"""From records to statements: `questions` answers, one a file, by what `statistics` they share.

`frame` turns records into a table with one row per run. A question is `rows(frame, ...)`: flat rows
of plain JSON values, None with a `reason` where a number is undefined, independent of the order of
the records. `summary` puts the answers together and writes `analysis.json` and the tables. Nothing
here imports torch, so statistics are redone on a laptop from records alone. Backbones are never
pooled: every grouping includes the backbone.
"""
