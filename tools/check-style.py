"""Holds what no linter here does: file length, C line length, bare TODOs."""

import re
import subprocess
import sys
from pathlib import Path

MAX_FILE_LINES = 600
MAX_LINE = 100
GENERATED = ("pagestore/v1/",)


def sources() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return [
        Path(name)
        for name in listing
        if name.endswith((".py", ".c", ".h", ".proto"))
        and not name.startswith(GENERATED)
        and Path(name).exists()
    ]


def faults(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    found = []
    if len(lines) > MAX_FILE_LINES:
        found.append(f"{path}: {len(lines)} lines, more than {MAX_FILE_LINES}")
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE:
            found.append(f"{path}:{number}: {len(line)} columns, more than {MAX_LINE}")
        if re.search(r"\bTO" r"DO\b(?!\(#\d+\))", line):
            found.append(f"{path}:{number}: a to-do without an issue number")
    return found


def main() -> None:
    found = [fault for path in sources() for fault in faults(path)]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
