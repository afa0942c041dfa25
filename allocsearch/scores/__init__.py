"""Allocators from the literature that need no search: a score per layer, then experts or ranks in proportion to it.

`table.SCORES` lists them. None is trusted more than a pattern: each gives one starting point.
"""
