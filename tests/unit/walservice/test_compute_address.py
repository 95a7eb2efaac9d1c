"""A safekeeper takes four words of a conninfo, and nothing that libpq would read by itself."""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pagestore.errors import FailedPrecondition, InvalidInput
from pagestore.walservice import compute_address
from pagestore.walservice.compute_address import ComputeAddress, check_near, parse

SHOWN = base64.urlsafe_b64encode(b"a certificate").decode().rstrip("=")
SHOWN_PEM = ssl.DER_cert_to_PEM_cert(b"a certificate")


def test_what_the_control_plane_sends_is_read() -> None:
    assert parse("host='/run/a b' port='5433' user='it\\'s' dbname=postgres") == ComputeAddress(
        "/run/a b", 5433, "it's", ""
    )
    found = parse(
        f"host='db.example.com' port='5432' user='w' password='a\\\\b c' certificate='{SHOWN}'"
    )
    assert found == ComputeAddress("db.example.com", 5432, "w", "a\\b c", SHOWN_PEM)
    assert "a\\b" not in repr(found)


@given(
    user=st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20),
    password=st.text(st.characters(exclude_categories=["C"]), max_size=20),
)
@example(user="\\'", password="' sslkey=x")
def test_it_reads_as_libpq_does(user: str, password: str) -> None:
    text = make_conninfo(host="/run/x", port=5432, user=user, password=password)
    assert parse(text) == ComputeAddress("/run/x", 5432, user, password)
    assert conninfo_to_dict(text)["user"] == user


@pytest.mark.parametrize("host", ["8.8.8.8", "2001:db8::1", "db.example.com", "10.0.0.1"])
def test_an_address_beyond_this_machine_without_a_certificate_is_refused(host: str) -> None:
    with pytest.raises(FailedPrecondition, match="in clear") as refusal:
        parse(f"host={host} port=1 user=a")
    assert refusal.value.reason == "TLS_REQUIRED"
    assert parse(f"host={host} port=1 user=a certificate={SHOWN}").certificate == SHOWN_PEM


@pytest.mark.parametrize("certificate", ["''", "a", "é", "'a b'", "x" * 4097])
def test_what_is_no_certificate_is_refused(certificate: str) -> None:
    with pytest.raises(InvalidInput, match="certificate") as refusal:
        parse(f"host=/run/x port=1 user=a certificate={certificate}")
    assert refusal.value.reason == "INVALID_CONNINFO"


GOOD = "host=/run/x port=5432 user=a"


@pytest.mark.parametrize(
    "more",
    [
        "passfile=/root/.pgpass", "service=a", "servicefile=/x", "sslkey=/etc/key", "sslcert=/x",
        "sslrootcert=/x", "sslcrl=/x", "sslcrldir=/x", "options='-c a=b'", "hostaddr=10.0.0.1",
        "replication=database", "sslpassword=a", "krbsrvname=a", "gsslib=gssapi", "require_auth=x",
        "requirepeer=root", "host=/run/y", "user=b", "nosuch=1",
    ],
)  # fmt: skip
def test_every_other_word_is_refused_by_name(more: str) -> None:
    with pytest.raises(InvalidInput, match=more.partition("=")[0]) as refusal:
        parse(f"{GOOD} {more}")
    assert refusal.value.reason == "INVALID_CONNINFO"


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "=", "host", "host=a port", "host=a\0b port=1 user=a", "x" * 9000,
        "postgresql://a@b:1/x", "port=1 user=a", "host=/x user=a", "host=/x port=1", "host= port=1",
        "host=/x,/y port=1 user=a", "host=/x/../y port=1 user=a", "host=x/y port=1 user=a",
        "host=@abstract port=1 user=a", f"host=/{'x' * 100} port=1 user=a", "host=/x port=",
        "host='/x port=1 user=a",
        "host=/x port=0 user=a", "host=/x port=65536 user=a", "host=/x port=1,2 user=a",
        "host=/x port=-1 user=a", "host=/x port=１ user=a", "host=/x port=1 user='a\nb'",
        f"host=/x port=1 user={'a' * 300}", "host=/x'y' z", "host='a'b=1",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse(text)
    assert refusal.value.reason == "INVALID_CONNINFO"


@pytest.mark.parametrize("host", ["/run/x", "localhost", "127.0.0.1", "127.8.8.8"])
def test_this_machine_is_near(host: str) -> None:
    check_near(parse(f"host={host} port=1 user=a"))


@pytest.mark.parametrize("host", ["8.8.8.8", "2001:db8::1", "db.example.com"])
def test_a_safekeeper_of_this_machine_goes_to_no_other(host: str) -> None:
    with pytest.raises(InvalidInput, match="no address of this machine"):
        check_near(parse(f"host={host} port=1 user=a certificate={SHOWN}"))


def test_the_environment_says_nothing_to_libpq() -> None:
    program = (
        "import os; from pagestore.walservice import compute_address as c; c.forget_environment();"
        "import ctypes; getenv = ctypes.CDLL(None).getenv; getenv.restype = ctypes.c_char_p;"
        "print(getenv(b'PGSERVICE'), getenv(b'PGHOSTADDR'), getenv(b'PAGESTORE_LOG'))"
    )
    told = {"PGSERVICE": "x", "PGHOSTADDR": "10.0.0.1", "PAGESTORE_LOG": "info"}
    found = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | told, capture_output=True, check=True
    )
    assert found.stdout == b"None None b'info'\n"


def test_the_bounds_are_those_of_the_page() -> None:
    assert compute_address.ALLOWED == ("host", "port", "user", "password", "dbname", "certificate")
