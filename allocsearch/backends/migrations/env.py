"""What alembic runs for every migration: on the connection that `own_tables` hands it, inside one transaction."""

from alembic import context

from allocsearch.backends.own_tables import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
