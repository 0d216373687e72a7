"""Images drawn by code: the embedded world of shapes on textures, and land cover.

`world` and `landcover` are the sets; `shapes` and `textures` are what the world is made of, and
`in_turn` draws a set class by class.
"""
