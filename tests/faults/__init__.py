"""The fault matrix: real processes, real PostgreSQL, real Ray; `python -m tests.faults --help`."""
