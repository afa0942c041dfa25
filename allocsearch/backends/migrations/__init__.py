"""How allocsearch's own tables came to be, for alembic."""
