"""Models as other libraries keep them: open_clip's names, configurations and files.

`rows` pairs the names of weights, `config` and `images` translate what a configuration says,
`tokens` makes the tokenizer, `archive` and `state` take tensors out of a file without running any
of it, `known` holds open_clip's names of models, `source` finds out what lies at a path, `write`
makes a folder of it.
"""
