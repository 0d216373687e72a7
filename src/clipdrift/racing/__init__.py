"""A study raced: which runs are worth their compute, until the whole grid's answer is known.

Numbers alone, no torch and no files: `imputed` draws what the runs that are missing would read,
`standing` holds the draws against a budget, `contest` reads both from records and says what is
next, `limit` how much it may spend. `commands.racing` runs it on a study.
"""
