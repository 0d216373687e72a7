"""Early warning: a forecast of final retention as a run begins, and the rule that ends runs by it.

A forecast is fitted in `analysis` and applied by workers, which do not import that room; here is
what both need, numbers and JSON alone.
"""
