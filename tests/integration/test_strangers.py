"""A whole installation and whoever comes: its owner, another user of the machine, a superuser of a
database with what lies in his compute's directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore.client import ControlClient, PageClient, Rel
from pagestore.client.credentials import Credentials
from pagestore.client.sync import DEFAULT_TIMEOUT
from pagestore.compute import page_access
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.postgres.settings import TOKEN_FILE
from tests.integration.installation import Whole, patiently, whole_pagestore

PG_CLASS = Rel(1663, 5, 1259)
_ROOT = Path(__file__).parents[2]
_PYTHON = Path(f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}")


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as installation:
        installation.run("create", "app")
        yield installation


def as_nobody(whole: Whole, *words: str) -> subprocess.CompletedProcess[str]:
    """A program of another user of the machine."""
    if os.geteuid() != 0 or not _PYTHON.exists():
        pytest.skip("only root can be somebody else, with a Python that others can run")
    if _run_as_nobody(whole, "-c", "import grpc, pagestore.ids").returncode != 0:
        pytest.skip(f"did NOT run: another user cannot read {_ROOT}")
    return _run_as_nobody(whole, *words)


def _run_as_nobody(whole: Whole, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(_PYTHON), *words],
        user="nobody",
        group="nogroup",
        extra_groups=[],
        env={"PAGESTORE_DATA": str(whole.data), "HOME": "/", "PYTHONPATH": ":".join(sys.path)},
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def refused(whole: Whole, part: str, token: str, timeline: TimelineId) -> str:
    """Why a token does not read a page there."""
    with (
        PageClient(
            whole.installation.address(part), timeout=2, credentials=Credentials.of_token(token)
        ) as pages,
        pytest.raises(PagestoreError) as caught,
    ):
        pages.get_rel_size(DEFAULT_TENANT, timeline, 1 << 60, PG_CLASS)
    return caught.value.reason


def timeline_of(whole: Whole, name: str) -> TimelineId:
    return TimelineId.parse(whole.json("show", name)["timeline_id"])


def token_of_compute(whole: Whole, name: str) -> str:
    """As a superuser of the database reads it, by its setting."""
    text = "SELECT pg_read_file(current_setting('pagestore.token_file'))"
    return str(whole.sql(name, text)[0][0]).strip()


def test_the_owner_types_nothing(whole: Whole) -> None:
    assert not {"PAGESTORE_TOKEN", "PAGESTORE_TOKEN_FILE"} & set(whole.environment)
    assert [item["name"] for item in whole.json("ls")["databases"]] == ["app"]
    assert whole.json("status")["serving"]


def test_another_user_of_the_machine_gets_nothing(whole: Whole) -> None:
    done = as_nobody(whole, "-m", "pagestore.cli.main", "ls", "--json")
    assert done.returncode != 0
    read = (
        "import sys, pathlib\n"
        "found = [p for n in ('keys/signing-key', 'keys/public-keys', 'tokens/operator')"
        " for p in [pathlib.Path(sys.argv[1]) / n] if not denied(p)]\n"
    )
    denied = (
        "def denied(path):\n"
        "    try:\n        path.read_bytes()\n"
        "    except PermissionError:\n        return True\n"
    )
    done = as_nobody(whole, "-c", f"{denied}{read}print(found)", str(whole.data))
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("part", ["control", "pageserver", "safekeeper"])
def test_another_user_who_reaches_a_part_is_unknown_there(whole: Whole, part: str) -> None:
    method = {
        "control": "ControlService/GetSystemStatus",
        "pageserver": "TimelineService/ListTimelines",
        "safekeeper": "WalService/Vote",
    }[part]
    code = (
        "import grpc, sys\n"
        "channel = grpc.insecure_channel(sys.argv[1])\n"
        "try:\n    channel.unary_unary(sys.argv[2])(b'', timeout=20)\n"
        "except grpc.RpcError as error:\n    print(error.code().name)\n"
    )
    address = whole.installation.address(part)
    done = as_nobody(whole, "-c", code, address, f"/pagestore.v1.{method}")
    assert done.stdout.strip() == "UNAUTHENTICATED", done.stderr


def test_what_lies_in_a_computes_directory_opens_its_own_pages_alone(whole: Whole) -> None:
    whole.run("branch", "app", "other")
    own, other = timeline_of(whole, "app"), timeline_of(whole, "other")
    token = token_of_compute(whole, "app")
    lsn = whole.sql("app", "SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn")[0][0]
    pages = PageClient(
        whole.installation.address("pageserver"), credentials=Credentials.of_token(token)
    )
    with pages:
        assert pages.get_rel_size(DEFAULT_TENANT, own, int(lsn), PG_CLASS)
        with pytest.raises(PagestoreError) as in_stream:
            pages.get_pages(DEFAULT_TENANT, other, int(lsn), PG_CLASS, [0])
        assert in_stream.value.reason == "OTHER_TIMELINE"
        with pytest.raises(PagestoreError) as deleting:
            pages.delete_timeline(DEFAULT_TENANT, own)
        assert deleting.value.reason == "TOKEN_TOO_NARROW"
    assert refused(whole, "pageserver", token, other) == "OTHER_TIMELINE"
    with (
        ControlClient(
            whole.installation.address("control"), credentials=Credentials.of_token(token)
        ) as control,
        pytest.raises(PagestoreError) as ruling,
    ):
        control.databases()
    assert ruling.value.reason == "TOKEN_TOO_NARROW"
    whole.run("rm", "other")


def test_a_computes_token_is_on_no_command_line_and_for_its_server_alone(whole: Whole) -> None:
    token = token_of_compute(whole, "app")
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not any(token.encode() in line for line in lines)
    path = Path(whole.json("show", "app")["compute_dir"], TOKEN_FILE)
    assert path.stat().st_mode & 0o777 == 0o640
    done = as_nobody(whole, "-c", "import sys; open(sys.argv[1])", str(path))
    assert "PermissionError" in done.stderr


def renewed(whole: Whole, before: str) -> None:
    assert token_of_compute(whole, "app") != before


def test_a_compute_goes_on_with_a_renewed_token_when_keys_have_changed_twice(whole: Whole) -> None:
    """Each change needs the control plane to take its key up; nobody else is started anew."""
    before = token_of_compute(whole, "app")
    whole.sql("app", "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    for _ in range(2):
        assert json.loads(whole.run("keys", "--change", "--json").stdout)["changed"]
        whole.kill("control", signal.SIGTERM)
        patiently(lambda: whole.run("status"))
    patiently(lambda: renewed(whole, before))
    assert refused(whole, "pageserver", before, timeline_of(whole, "app")) == "TOKEN_FOREIGN"
    whole.kill("pageserver")
    assert patiently(lambda: whole.sql("app", "SELECT count(*) FROM kept")) == [(1000,)]
    whole.run("branch", "app", "later")
    assert whole.sql("later", "SELECT count(*) FROM kept") == [(1000,)]
    whole.run("rm", "later")


def test_a_token_that_is_about_to_end_is_renewed_while_the_compute_runs(whole: Whole) -> None:
    from pagestore.installation.keys import SIGNING_KEY
    from pagestore.tokens import Signer

    signer = Signer.parse((whole.data / SIGNING_KEY).read_text())
    path = Path(whole.json("show", "app")["compute_dir"], TOKEN_FILE)
    found = path.stat()
    path.write_text("pst1_ended\n")
    page_access.renew(whole.installation.compute_dir, signer)
    renewed = path.stat()
    assert path.read_text() != "pst1_ended\n"
    assert (renewed.st_mode, renewed.st_gid) == (found.st_mode, found.st_gid)
    assert DEFAULT_TIMEOUT < page_access.RENEW_SECONDS < page_access.SECONDS / 2


def test_a_tenants_token_opens_his_own_databases_and_no_others(whole: Whole) -> None:
    whole.run("tenant", "add", "acme")
    whole.run("create", "shop", "--tenant", "acme")
    token = whole.json("tenant", "token", "acme")["token"]
    holder = Whole(whole.data, {"PAGESTORE_TOKEN": token, "PAGESTORE_TENANT": "acme"})
    assert [item["name"] for item in holder.json("ls")["databases"]] == ["shop"]
    assert holder.json("show", "shop")["name"] == "shop"
    for tenant in ("default", "nobody"):
        assert holder.error("ls", "--tenant", tenant)["reason"] == "OTHER_TENANT"
    assert holder.error("tenant", "ls")["reason"] == "TOKEN_TOO_NARROW"
    assert holder.error("tenant", "token", "acme")["reason"] == "TOKEN_TOO_NARROW"
    whole.run("rm", "shop", "--tenant", "acme")
    whole.run("tenant", "rm", "acme")
