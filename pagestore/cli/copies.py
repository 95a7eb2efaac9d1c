"""Within what Postgres runs on copies of clusters, for the verbs that let it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pagestore.agent.users import Users, range_of_uids
from pagestore.compute.walls import BUBBLEWRAP
from pagestore.oracle.recovery import Walls

if TYPE_CHECKING:
    from pagestore.installation.layout import Installation


def walls_for_copies(installation: Installation) -> Walls | None:
    """As computes have them; None where those have none.

    Raises:
        ResourceExhausted: NO_UID_LEFT. InvalidInput: INVALID_UIDS.
    """
    computes = installation.config.computes
    if computes.walls != BUBBLEWRAP:
        return None
    if os.geteuid() != 0:
        return Walls(None)
    return Walls(Users(range_of_uids(computes.uids), installation.compute_dir).take())
