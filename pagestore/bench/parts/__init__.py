"""The parts, one a module; each has ``run(bench)``."""

from __future__ import annotations

from pagestore.bench.harness import Part
from pagestore.bench.parts import (
    basebackup,
    branch,
    branches,
    commit,
    compute,
    fleet,
    getpage,
    ingest,
    proxy,
    redo,
    storage,
    workflows,
)

PARTS: dict[str, Part] = {
    "getpage": getpage.run,
    "ingest": ingest.run,
    "redo": redo.run,
    "branch": branch.run,
    "basebackup": basebackup.run,
    "compute": compute.run,
    "commit": commit.run,
    "branches": branches.run,
    "proxy": proxy.run,
    "fleet": fleet.run,
    "storage": storage.run,
    "workflows": workflows.run,
}
"""In the order in which they run."""
