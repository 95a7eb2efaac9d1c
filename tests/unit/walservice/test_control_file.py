"""The control file is what docs/formats/safekeeper.md says, and refuses what is not."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore._native import crc32c
from pagestore.consensus.acceptor import Attachment, State, TermSwitch, WalPosition
from pagestore.consensus.members import Configuration, Member
from pagestore.errors import DataLoss
from pagestore.ids import TenantId, TimelineId
from pagestore.walservice import control_file
from pagestore.walservice.control_file import Control
from pagestore.walservice.owner import Owner

STATE = State(
    start=WalPosition(0x1000028, 0x1000000),
    system_id=0x1122334455667788,
    term=5,
    history=(TermSwitch(3, 0x1000028), TermSwitch(5, 0x1002000)),
    attachment=Attachment(5, "host=/run/é"),
    position=WalPosition(0x1003000, 0x1002F00),
)
OWNER = Owner(TenantId(b"e" * 16), TimelineId(b"t" * 16), 3)
CONTROL = Control(STATE, False, record_crc=0x1A2B3C4D, revision=7, epoch=5)
HEAD = b"PSSKCTL\0"
FIRST = (
    b"\x02\0\0\0\x88\x77\x66\x55\x44\x33\x22\x11"
    b"\x28\0\0\1\0\0\0\0"
    b"\0\0\0\1\0\0\0\0"
    b"\5\0\0\0\0\0\0\0"
    b"\0\x30\0\1\0\0\0\0"
    b"\0\x2f\0\1\0\0\0\0"
    b"\5\0\0\0\0\0\0\0"
    b"\2\0\0\0"
    b"\x0c\0\0\0"
    b"\3\0\0\0\0\0\0\0"
    b"\x28\0\0\1\0\0\0\0"
    b"\5\0\0\0\0\0\0\0"
    b"\0\x20\0\1\0\0\0\0"
    b"host=/run/\xc3\xa9"
)
IDENTITY = b"e" * 16 + b"t" * 16 + b"\3\0\0\0\x4d\x3c\x2b\x1a\7\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0"
NO_CONFIGURATION = b"\1\0\0\0\0\0\0\0" + bytes(28)

positions = st.builds(WalPosition, st.integers(1, 2**62), st.integers(0, 2**62))
states = st.builds(
    State,
    start=positions,
    system_id=st.integers(0, 2**64 - 1),
    term=st.integers(0, 2**63),
    history=st.lists(
        st.builds(TermSwitch, st.integers(0, 2**63), st.integers(0, 2**63)), max_size=5
    ).map(tuple),
    attachment=st.none() | st.builds(Attachment, st.integers(1, 2**63), st.text(max_size=50)),
    position=positions,
)
members = st.builds(Member, st.integers(0, 2**32 - 1), st.integers(1, 2**64 - 1))
sets = st.lists(members, min_size=1, max_size=4).map(tuple)
configured_states = st.builds(
    replace,
    states,
    member=members,
    configuration=st.builds(Configuration, st.integers(1, 2**64 - 1), sets, st.just(()) | sets),
    known_commit_lsn=st.integers(0, 2**64 - 1),
)

CONFIGURATION = (
    b"\3\0\0\0\0\0\0\0"
    b"\1\0\0\0\2\0\0\0\1\0\0\0"
    b"\x2a\0\0\0\0\0\0\0"
    b"\0\x2f\0\1\0\0\0\0"
    b"\2\0\0\0\1\0\0\0\0\0\0\0"
    b"\3\0\0\0\7\0\0\0\0\0\0\0"
    b"\4\0\0\0\1\0\0\0\0\0\0\0"
)
CONFIGURED = replace(
    STATE,
    member=Member(1, 3),
    configuration=Configuration(42, (Member(2), Member(3, 7)), (Member(4),)),
    known_commit_lsn=0x1002F00,
)


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", crc32c(body))


def test_the_bytes_are_as_documented() -> None:
    encoded = control_file.encode(CONTROL, OWNER)
    assert encoded == sealed(HEAD + b"\4\0\0\0" + FIRST + IDENTITY + NO_CONFIGURATION)


@given(state=states | configured_states, clean=st.booleans(), number=st.integers(0, 2**64 - 1))
def test_what_is_encoded_is_decoded(state: State, clean: bool, number: int) -> None:
    control = Control(state, clean, number % 2**32, number, number // 2)
    assert control_file.decode(control_file.encode(control, OWNER), OWNER, "x") == control


def test_the_versions_without_an_owner_are_read() -> None:
    """As they stand in the directories of those who have run an older safekeeper."""
    alone = sealed(HEAD + b"\1\0\0\0" + FIRST)
    assert control_file.decode(alone, OWNER, "x") == Control(STATE, False)
    several = sealed(HEAD + b"\3\0\0\0" + FIRST + CONFIGURATION)
    assert control_file.decode(several, OWNER, "x") == Control(CONFIGURED, False)


@pytest.mark.parametrize(
    "other",
    [
        OWNER._replace(tenant=TenantId(b"x" * 16)),
        OWNER._replace(timeline=TimelineId(b"x" * 16)),
        OWNER._replace(number=4),
    ],
)
def test_the_control_file_of_another_log_is_refused(other: Owner) -> None:
    with pytest.raises(DataLoss, match=str(OWNER.timeline)) as refusal:
        control_file.decode(control_file.encode(CONTROL, OWNER), other, "/some/control")
    assert refusal.value.reason == "CONTROL_FOREIGN"
    assert "/some/control" in refusal.value.message


def test_the_configuration_stands_behind_the_rest() -> None:
    body = HEAD + b"\4\0\0\0" + FIRST + IDENTITY + CONFIGURATION
    assert control_file.encode(replace(CONTROL, state=CONFIGURED), OWNER) == sealed(body)
    for version, middle in ((4, IDENTITY), (3, b"")):
        whole = HEAD + bytes([version, 0, 0, 0]) + FIRST + middle + CONFIGURATION
        for less in (1, len(CONFIGURATION) - 12, len(CONFIGURATION), len(CONFIGURATION) + 5):
            with pytest.raises(DataLoss, match="length does not fit"):
                control_file.decode(sealed(whole[:-less]), OWNER, "x")


def test_every_changed_or_missing_byte_is_refused() -> None:
    encoded = control_file.encode(CONTROL, OWNER)
    for at in range(len(encoded)):
        changed = bytearray(encoded)
        changed[at] ^= 0x20
        for raw in (bytes(changed), encoded[:at]):
            with pytest.raises(DataLoss, match="/some/control") as refusal:
                control_file.decode(raw, OWNER, "/some/control")
            assert refusal.value.reason == "CONTROL_DAMAGED"


def test_another_version_is_named() -> None:
    body = bytearray(control_file.encode(CONTROL, OWNER)[:-4])
    body[8] = 2
    with pytest.raises(DataLoss, match="version is 2"):
        control_file.decode(sealed(bytes(body)), OWNER, "x")


def test_a_replacement_is_whole_and_private(tmp_path: Path) -> None:
    control_file.replace(tmp_path, CONTROL, OWNER)
    (tmp_path / "control.tmp").touch(0o600)
    (tmp_path / "control.tmp").write_bytes(b"a crash left this")
    assert control_file.read(tmp_path, OWNER) == CONTROL
    later = replace(CONTROL, state=replace(STATE, term=9, attachment=None), revision=8)
    control_file.replace(tmp_path, later, OWNER)
    assert control_file.read(tmp_path, OWNER) == later
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0
