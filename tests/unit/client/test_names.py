"""Names: what may be one, and what the refusal says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore.client.names import (
    MAX_NAME_BYTES,
    RULE,
    checkpoint_name,
    database_name,
    new_database_name,
    qualified,
    split_tenant,
    tenant_name,
)
from pagestore.errors import InvalidInput


@pytest.mark.parametrize(
    "name", ["app", "a", "Müller & Söhne", 'it\'s "quoted"', "数据库", "a" * 63, "x-1", "a b"]
)
def test_usual_and_unusual_names_are_kept(name: str) -> None:
    assert database_name(name) == name


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "empty"),
        ("a/b", "slash"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\u200bb", "invisible"),
        ("a\u202eb", "invisible"),
        (" a", "space"),
        ("a\u00a0", "space"),
        ("-a", "dash"),
        ("a" * 64, "64 bytes"),
        ("ä" * 32, "64 bytes"),
        ("x" * 65536, "65536 bytes"),
        ("\udcff", "invisible"),
    ],
)
def test_other_names_are_refused_with_the_rule(name: str, fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault) as caught:
        database_name(name)
    assert caught.value.reason == "INVALID_NAME"
    assert caught.value.hint == RULE
    assert len(caught.value.message) < 400


def test_a_new_database_has_no_at_in_its_name_and_an_old_one_may() -> None:
    assert database_name("me@home") == "me@home"
    with pytest.raises(InvalidInput, match="point of the past"):
        new_database_name("me@home")


@pytest.mark.parametrize("name", ["a", "acme", "a-1", "0" * 32])
def test_a_tenants_name_is_plain(name: str) -> None:
    assert tenant_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "a.b", "a b", "ä", "0" * 33, "a\n"])
def test_other_tenants_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        tenant_name(name)


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True), st.text(min_size=1))
def test_no_database_is_taken_for_a_tenants(tenant: str, name: str) -> None:
    if "/" not in name:
        assert split_tenant(name) == ("default", name)
        assert split_tenant(qualified(tenant, name)) == (tenant, name)


def test_two_spellings_of_one_name_are_one() -> None:
    assert database_name("cafe\u0301") == database_name("caf\u00e9")


@pytest.mark.parametrize("name", ["head", "0/16B3748", "10m ago", "2026-11-23T10:15", "1h30m ago"])
def test_a_checkpoint_cannot_be_called_like_a_point(name: str) -> None:
    with pytest.raises(InvalidInput):
        checkpoint_name(name)


@pytest.mark.parametrize("name", ["2026-11-23", "v1.2", "10m", "before migration", "ahead"])
def test_a_checkpoint_may_have_a_date_for_its_name(name: str) -> None:
    assert checkpoint_name(name) == name


@given(st.text(max_size=80))
def test_what_is_accepted_is_stable_and_fits_postgres(text: str) -> None:
    try:
        name = database_name(text)
    except InvalidInput:
        return
    assert database_name(name) == name
    assert 0 < len(name.encode()) <= MAX_NAME_BYTES
    assert "/" not in name
    assert "\0" not in name
