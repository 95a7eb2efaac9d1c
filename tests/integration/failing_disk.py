"""Makes syncs of a process fail, while a file says so; see failing_sync.c."""

from __future__ import annotations

import subprocess
from pathlib import Path


def preload(directory: Path) -> dict[str, str]:
    """The environment of a process whose syncs fail while `directory`/fail exists."""
    source = Path(__file__).parent / "failing_sync.c"
    library = directory / "failing_sync.so"
    if not library.exists():
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library), "FAIL_SYNC": str(directory / "fail")}
