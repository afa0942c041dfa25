"""Decisions of the search, free of engines: what to propose, what to stop, whom to believe."""
