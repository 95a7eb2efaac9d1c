"""Orders, and some that were placed."""

from alembic import op

revision = "orders"
down_revision = None


def upgrade() -> None:
    op.execute("CREATE TABLE orders (id int PRIMARY KEY, paid boolean, total int NOT NULL)")
    op.execute("INSERT INTO orders SELECT n, n % 2 = 0, n FROM generate_series(1, 100) AS n")
