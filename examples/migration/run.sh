#!/bin/sh
# A migration goes wrong, and is undone: its data, its schema, and what Alembic knows of it.
set -e
cd "$(dirname "$0")"
DATABASE_URL="$(pagestore url shop)"
export DATABASE_URL

alembic upgrade orders
pagestore checkpoint shop before-totals --run "$(date +%s)" --note "migration=totals"

alembic upgrade totals          # it forgets a WHERE: all orders cost nothing now
pagestore psql shop -c "SELECT sum(total) FROM orders"

pagestore undo shop             # what was committed since the checkpoint
pagestore psql shop -c "SELECT sum(total) FROM orders"
alembic current                 # orders: Alembic's own table went back, too
