"""One run: train, read after every epoch, select, read the test part once, record.

`measure` holds the whole of it, `epochs` the part that trains, `head_first` the head's own epochs
of LP-FT; `state` keeps what an interrupted run goes on from, `files` what lies in a run's folder.
"""
