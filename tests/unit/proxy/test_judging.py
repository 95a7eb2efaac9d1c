"""What pg_authid says of a role, as a login is judged by it."""

from __future__ import annotations

import time

import pytest

from pagestore.pgwire.scram import Verifier
from pagestore.proxy.asked import judged
from pagestore.v1 import proxy_pb2 as pb

NOBODY = Verifier.of_nobody("app\0ann", b"secret")
SECRET = (
    "SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$"
    "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=:YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI="
)


def found(**facts: object) -> pb.LookUpRoleResponse:
    return pb.LookUpRoleResponse(**{"found": True, "password": SECRET, "can_login": True, **facts})


def test_a_role_with_a_verifier_may_log_in() -> None:
    role = judged(found(), "ann", NOBODY)
    assert role.verifier == Verifier.parse(SECRET)
    assert (role.refusal, role.failure) == (None, None)


@pytest.mark.parametrize("answer", [pb.LookUpRoleResponse(), found(password="")])
def test_a_role_without_a_password_and_one_that_there_is_not_are_alike(
    answer: pb.LookUpRoleResponse,
) -> None:
    role = judged(answer, "ann", NOBODY)
    assert (role.verifier, role.refusal, role.failure) == (NOBODY, None, None)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"can_login": False}, 'role "ann" is not permitted to log in'),
        ({"valid_until": time.time() - 1}, 'the password of role "ann" has expired'),
        ({"valid_until": float("-inf")}, 'the password of role "ann" has expired'),
    ],
)
def test_who_proves_it_and_still_may_not_is_told_why(facts: dict[str, object], words: str) -> None:
    role = judged(found(**facts), "ann", NOBODY)
    assert role.refusal is not None
    assert role.refusal[1] == words


def test_a_password_that_holds_yet_is_good() -> None:
    assert judged(found(valid_until=time.time() + 60), "ann", NOBODY).refusal is None


def test_an_md5_hash_is_named_for_nobody_can_log_in_by_it() -> None:
    role = judged(found(password="md5" + "0" * 32), "ann", NOBODY)
    assert role.verifier == NOBODY
    assert role.failure is not None
    assert "scram-sha-256" in role.failure[1]


def test_strangers_of_two_databases_have_two_salts_which_stay() -> None:
    one, other = (Verifier.of_nobody(f"{name}\0ann", b"secret") for name in ("a", "b"))
    assert one.salt != other.salt
    assert one == Verifier.of_nobody("a\0ann", b"secret")
