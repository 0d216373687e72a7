"""A whole study: planned, measured run by run, and where it stands.

`measure` is the way in; `plan` names the runs, `missing_runs` offers those without a record to an
executor's workers, `worker` is the program of each. `estimate` says beforehand what it will take,
from steps that `trial` times and `remembered` keeps; `status` says how far it is, `trackers` tells
others of runs that ended.
"""
