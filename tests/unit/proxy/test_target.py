"""What a client's database names."""

from __future__ import annotations

import pytest

from pagestore.proxy.target import Target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("app", Target("app")),
        ("app/other", Target("app", "other")),
        ("app@before migration", Target("app", "", "before migration")),
        ("app@0/16B3748", Target("app", "", "0/16B3748")),
        (
            "app/other@2026-11-23 10:15:00+01:00",
            Target("app", "other", "2026-11-23 10:15:00+01:00"),
        ),
        ("app/a/b", Target("app", "a/b")),
        ("app@", Target("app", "", "")),
        ("", Target("")),
        ("/acme/app", Target("app", tenant="acme")),
        ("/acme/app/other@then", Target("app", "other", "then", "acme")),
        ("/acme/", Target("", tenant="acme")),
    ],
)
def test_a_text_is_read_and_written_the_same(text: str, target: Target) -> None:
    assert Target.parse(text) == target
    assert str(target) == text
