"""As whom pagestore's own user enters a server."""

from __future__ import annotations

from pagestore.postgres.roles import MOST_NAMED, RoleEntry, roles_to_enter_as


def role(name: str, *, can_login: bool = True) -> RoleEntry:
    return RoleEntry(1, name, False, can_login, -1, None, None)


def test_it_enters_as_those_that_may_log_in() -> None:
    roles = [role("web"), role("postgres"), role("group", can_login=False), role('Mail "2"')]
    assert roles_to_enter_as(roles, "postgres") == ['Mail "2"', "web"]


def test_no_name_is_more_than_a_name_in_the_files() -> None:
    """A line, a pattern, a file of names, a group, the end of a line that is none."""
    for name in ("a\nlocal all all trust", "a\r", "/.*", "@file", "+group", "a\\", "\t", ""):
        assert roles_to_enter_as([role(name)], "postgres") == []


def test_the_files_do_not_grow_without_end() -> None:
    roles = [role(f"role {number}") for number in range(MOST_NAMED + 1)]
    assert len(roles_to_enter_as(roles, "postgres")) == MOST_NAMED
