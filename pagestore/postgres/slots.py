"""Replication slots on a compute."""

from __future__ import annotations

OUR_SLOTS = "_pagestore_"
"""What the names of the safekeepers' slots begin with; so no user's is mistaken for one. The
core's receiver.h and the shim's slots.c know it too."""
