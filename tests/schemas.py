"""What verbs say under --json, held against docs/schemas."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource

SCHEMAS = Path(__file__).resolve().parents[1] / "docs/schemas"


@cache
def all_schemas() -> dict[str, dict[str, Any]]:
    """By the files' names without their ending."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(SCHEMAS.glob("*.json"))}


def check(verb: str, said: dict[str, Any]) -> None:
    """Fails where it is not as it is documented."""
    registry: Any = Registry().with_resources(
        (f"{name}.json", Resource.from_contents(schema)) for name, schema in all_schemas().items()
    )
    found = jsonschema.Draft202012Validator(all_schemas()[verb], registry=registry)
    errors = [f"{'/'.join(map(str, e.path))}: {e.message}" for e in found.iter_errors(said)]
    assert not errors, f"{verb}: {errors}\n{said}"
