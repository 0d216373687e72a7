"""Reading a model, untouched or adapted: all numbers that are not of training itself.

`baseline` reads the untouched backbone, `model` what `run` asks for after an epoch and at the end,
`screening` predicts classes, `post_hoc` reads interpolated weights and corrupted images, `pictures`
draws where CLS looks.
"""
