"""Allocations in the formats of other projects. `table.FORMATS` lists them; each refuses what its format cannot say."""
