"""Allocators that need no search: from the literature a score per layer, then experts or ranks in proportion to it; and `oneshot`.

`table.SCORES` lists them. None is trusted more than a pattern: each gives one starting point.
"""
