"""``inspect`` knows every file of an installation at work, and no secret is shown."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from pagestore.inspection.files import inspect
from pagestore.inspection.inspected import Inspected
from tests.integration.installation import Whole, whole_pagestore

LOOKS = 20
"""At a file that somebody writes meanwhile: between two of its writes it reads as damaged."""


def files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        yield from (Path(folder) / name for name in names)


def looked_at(path: Path) -> Inspected | None:
    """None where it is gone meanwhile."""
    for _ in range(LOOKS):
        if not os.path.lexists(path):
            return None
        found = inspect(path, 1 << 20)
        if not found.damage:
            break
    return found


def secrets(whole: Whole) -> list[str]:
    data = whole.data
    one_line = ["operator-key", "control/session-secret", "proxy/stranger-secret"]
    texts = [(data / name).read_text().strip() for name in one_line]
    texts += [path.read_text().strip() for path in (data / "tokens").iterdir()]
    texts += [path.read_text().strip() for path in data.rglob("pagestore.token")]
    texts.append((data / "keys/signing-key").read_text().split()[1])
    for path in data.rglob("compute.json"):
        texts.append(json.loads(path.read_text())["wal_password"])
    texts.append(whole.json("url", "app")["url"].partition(":")[2].partition("@")[0][-12:])
    return [text for text in texts if text]


def test_every_file_is_known_and_no_secret_is_shown(tmp_path: Path) -> None:
    objects = tmp_path / "objects"
    with whole_pagestore(safekeepers=3, objects=f"file://{objects}") as whole:
        whole.run("create", "app")
        whole.sql("app", "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 9999) n")
        whole.run("checkpoint", "app", "first")
        whole.run("branch", "app", "twig")
        whole.sql("twig", "INSERT INTO t VALUES (0, 'the words of a tenant')")
        kinds: dict[str, int] = {}
        hidden = [*secrets(whole), "the words of a tenant"]
        for path in (*files(whole.data), *files(objects)):
            found = looked_at(path)
            if found is None:
                continue
            assert found.damage == [], path
            said = repr(found)
            assert not [secret for secret in hidden if secret in said], path
            kinds[found.kind] = kinds.get(found.kind, 0) + 1
    assert len(kinds) > 30, kinds
