"""Small files are named, and what is secret in them is not shown."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from pagestore.errors import InvalidInput
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.inspection.files import inspect
from pagestore.installation import certificates, keys
from pagestore.pgformat import wal
from pagestore.secret_file import secret_of
from pagestore.tokens import Signer
from pagestore.walservice import witness
from tests.unit.walservice.test_control_file import OWNER
from tests.unit.walservice.test_segments import SEGMENT, Log, write


def everything(path: Path) -> str:
    return repr(inspect(path, 100))


def test_keys_and_tokens_say_whose_they_are_and_nothing_else(tmp_path: Path) -> None:
    keys.settle(tmp_path)
    seed = (tmp_path / keys.SIGNING_KEY).read_text().split()[1]
    signer = Signer.parse((tmp_path / keys.SIGNING_KEY).read_text())
    assert inspect(tmp_path / keys.SIGNING_KEY, 9).facts["public_key"] == signer.public_key.hex()
    assert inspect(tmp_path / keys.PUBLIC_KEYS, 9).rows == [(signer.public_key.hex(),)]
    assert seed not in everything(tmp_path / keys.SIGNING_KEY)
    assert inspect(tmp_path / "tokens/proxy", 9).facts["of"] == "a proxy"
    text = signer.of_timeline(DEFAULT_TENANT, TimelineId(b"t" * 16), 1e9, 60)
    (tmp_path / "pagestore.token").write_text(text)
    found = inspect(tmp_path / "pagestore.token", 9)
    assert (found.facts["of"], found.facts["timeline"]) == ("a compute", "74" * 16)
    assert text[10:] not in repr(found)
    (tmp_path / "pagestore.token").write_text(text[:-3])
    assert inspect(tmp_path / "pagestore.token", 9).damage


@pytest.mark.parametrize("name", ["session-secret", "stranger-secret", "operator-key"])
def test_a_secret_is_whole_or_not_and_is_not_shown(tmp_path: Path, name: str) -> None:
    secret = secret_of(tmp_path / name).hex()
    assert inspect(tmp_path / name, 9).damage == []
    assert secret not in everything(tmp_path / name)
    (tmp_path / name).write_text(secret[:40])
    assert inspect(tmp_path / name, 9).damage
    assert secret[:40] not in everything(tmp_path / name)


def test_certificates_show_their_names_and_no_private_key(tmp_path: Path) -> None:
    made = certificates.make(tmp_path, ["db.example"])
    shown = {path.name: inspect(path, 9) for path in made.iterdir()}
    assert shown[certificates.CERTIFICATE].rows[0] == ("db.example",)
    assert "private key" in shown[certificates.KEY].kind
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nx")
    assert inspect(tmp_path / "broken.pem", 9).damage


def test_what_a_tenants_server_wrote_has_a_size_alone(tmp_path: Path) -> None:
    compute = tmp_path / "computes/one"
    (compute / "data/base/5").mkdir(parents=True)
    record = {"timeline": "ab", "wal_password": "very secret", "sandbox": {"pid": 5}}
    (compute / "compute.json").write_text(json.dumps(record))
    (compute / "data/base/5/16384").write_bytes(b"the tenant's own words")
    (compute / "data/000000010000000000000001").write_bytes(b"not a segment")
    assert "own words" not in everything(compute / "data/base/5/16384")
    assert inspect(compute / "data/base/5/16384", 9).facts == {"bytes": 22}
    assert "database's server" in inspect(compute / "data/000000010000000000000001", 9).kind
    shown = inspect(compute / "compute.json", 9)
    assert ("sandbox.pid", "5") in shown.rows
    assert "very secret" not in repr(shown)


def test_small_texts_and_sockets_are_named(tmp_path: Path) -> None:
    (tmp_path / "address").write_text("127.0.0.1:7430\n")
    assert inspect(tmp_path / "address", 9).facts["says"] == "127.0.0.1:7430"
    (tmp_path / "address").write_text("")
    assert inspect(tmp_path / "address", 9).damage
    (tmp_path / "control.log").write_text("one\ntwo\nthree\n")
    assert inspect(tmp_path / "control.log", 2).rows == [("2", "two"), ("3", "three")]
    (tmp_path / "pagestore.toml").write_text('[proxy]\nlisten = "x"\n[tls]\nkey = "secret"\n')
    assert inspect(tmp_path / "pagestore.toml", 9).rows == [
        ("proxy.listen", "x"),
        ("tls.key", "(not shown)"),
    ]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        assert "Unix socket" in inspect(tmp_path / "socket", 9).kind


def test_what_was_moved_aside_is_known_by_its_last_name(tmp_path: Path) -> None:
    lost = tmp_path / "lost+found"
    lost.mkdir()
    (lost / "control.address~2").write_text("127.0.0.1:7430\n")
    assert inspect(lost / "control.address~2", 9).kind == "address of a part"
    (lost / "pageserver.strange").write_text("x")
    with pytest.raises(InvalidInput):
        inspect(lost / "pageserver.strange", 9)


def test_a_witness_says_how_far_a_log_was_durable(tmp_path: Path) -> None:
    witness.write_revision(tmp_path, OWNER, 7)
    path = tmp_path / witness.NAME
    assert inspect(path, 9).facts["revision"] == 7
    assert inspect(path, 9).facts["timeline"] == str(OWNER.timeline)
    raw = bytearray(path.read_bytes())
    raw[40] ^= 1
    path.write_bytes(raw)
    assert inspect(path, 9).damage


@pytest.mark.parametrize("records", [1, 200])
def test_a_log_that_begins_within_a_page_is_read_from_there(tmp_path: Path, records: int) -> None:
    log = Log(SEGMENT + 3 * wal.PAGE_SIZE + 4000, *[150] * records)
    write(tmp_path, log)
    path = tmp_path / wal.segment_name(1, log.start.flush_lsn)
    found = inspect(path, 1000)
    assert found.damage == []
    assert len(found.rows) == found.count == records
    raw = bytearray(path.read_bytes())
    raw[log.start.flush_lsn % SEGMENT + 30] ^= 1
    path.write_bytes(raw)
    assert inspect(path, 1000).damage
