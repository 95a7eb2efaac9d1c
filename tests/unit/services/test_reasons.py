"""docs/formats names every reason that pagestore can give, with its code."""

from __future__ import annotations

import re
from pathlib import Path

from pagestore import errors

ROOT = Path(__file__).parents[3]
PAGES = (ROOT / "docs/formats/reasons.md", ROOT / "docs/formats/safekeeper.md")
CLASSES = "|".join(name for name, cls in vars(errors).items() if isinstance(cls, type))
RAISED = re.compile(rf'\b({CLASSES})[(,]\s*"([A-Z][A-Z0-9_]+)"')
"""Where it is raised, or stands in a table of what errors of others mean."""


def documented() -> dict[str, set[str]]:
    """Reason to the codes it may come with."""
    found: dict[str, set[str]] = {}
    lines = [line for page in PAGES for line in page.read_text().splitlines()]
    for line in lines:
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 3 and re.fullmatch(r"[A-Z_, ]+", cells[1]):
            for reason in cells[1].split(", "):
                found.setdefault(reason, set()).add(cells[2])
    return found


def test_every_reason_is_documented_with_its_code() -> None:
    known = documented()
    raised = 0
    for path in (ROOT / "pagestore").rglob("*.py"):
        for name, reason in RAISED.findall(path.read_text()):
            raised += 1
            assert getattr(errors, name).code in known.get(reason, ()), f"{path}: {reason} {name}"
    assert raised > 200


def test_the_cores_reasons_are_documented() -> None:
    text = (ROOT / "native/core/store/serve.c").read_text()
    reasons = set(re.findall(r'"([A-Z][A-Z_]{4,})"', text))
    assert "BLOCK_BEYOND_END" in reasons
    assert reasons <= set(documented())
