"""The pure core: allocations, their cost, budgets and search spaces. It imports nothing but the standard library."""
