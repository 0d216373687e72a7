"""What the commands do, as functions: the command line parses, calls one of these and prints.

`reading` holds those that need records only and never load torch, `measuring` those that look at a
study before it is run, `models` those for weights. `run_study` and `study_status` are in `study`,
`write_report` in `report`, `import_runs` in `records`.
"""
