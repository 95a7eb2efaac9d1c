"""What every new cluster begins with: its superuser, and one spare database.

A database that is created gives the spare one its name, and the role its password.
"""

from __future__ import annotations

OWNER_ROLE = "postgres"
SPARE_DATABASE = "pagestore"
