"""The table of driver leases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """One row per study that ever had a driver; see `allocsearch.backends.lease` for what its columns mean."""
    op.create_table(
        "allocsearch_leases",
        sa.Column("study", sa.String(512), primary_key=True),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("place", sa.String(255), nullable=False),
        sa.Column("born", sa.Double, nullable=False),
        if_not_exists=True,
    )
