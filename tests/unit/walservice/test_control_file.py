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
from pagestore.walservice import control_file

STATE = State(
    start=WalPosition(0x1000028, 0x1000000),
    system_id=0x1122334455667788,
    term=5,
    history=(TermSwitch(3, 0x1000028), TermSwitch(5, 0x1002000)),
    attachment=Attachment(5, "host=/run/é"),
    position=WalPosition(0x1003000, 0x1002F00),
)
GOLDEN = (
    b"PSSKCTL\0\x01\0\0\0\x02\0\0\0\x88\x77\x66\x55\x44\x33\x22\x11"
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


def test_the_bytes_are_as_documented() -> None:
    encoded = control_file.encode(STATE, clean=False)
    assert encoded == GOLDEN + struct.pack("<I", crc32c(GOLDEN))


@given(state=states | configured_states, clean=st.booleans())
def test_what_is_encoded_is_decoded(state: State, clean: bool) -> None:
    assert control_file.decode(control_file.encode(state, clean=clean), "x") == (state, clean)


def test_the_configuration_stands_behind_the_rest() -> None:
    configuration = Configuration(42, (Member(2), Member(3, 7)), (Member(4),))
    state = replace(
        STATE, member=Member(1, 3), configuration=configuration, known_commit_lsn=0x1002F00
    )
    body = GOLDEN[:8] + b"\3" + GOLDEN[9:] + CONFIGURATION
    assert control_file.encode(state, clean=False) == body + struct.pack("<I", crc32c(body))
    for length in (len(CONFIGURATION) - 1, 12, 0):
        short = body[: len(GOLDEN) + length]
        with pytest.raises(DataLoss, match="length does not fit"):
            control_file.decode(short + struct.pack("<I", crc32c(short)), "x")


def test_every_changed_or_missing_byte_is_refused() -> None:
    encoded = control_file.encode(STATE, clean=True)
    for at in range(len(encoded)):
        changed = bytearray(encoded)
        changed[at] ^= 0x20
        for raw in (bytes(changed), encoded[:at]):
            with pytest.raises(DataLoss, match="/some/control") as refusal:
                control_file.decode(raw, "/some/control")
            assert refusal.value.reason == "CONTROL_DAMAGED"


def test_another_version_is_named() -> None:
    body = bytearray(control_file.encode(STATE, clean=True)[:-4])
    body[8] = 2
    with pytest.raises(DataLoss, match="version is 2"):
        control_file.decode(bytes(body) + struct.pack("<I", crc32c(body)), "x")


def test_a_replacement_is_whole(tmp_path: Path) -> None:
    control_file.replace(tmp_path, STATE, clean=False)
    (tmp_path / "control.tmp").write_bytes(b"a crash left this")
    assert control_file.read(tmp_path) == (STATE, False)
    later = replace(STATE, term=9, attachment=None)
    control_file.replace(tmp_path, later, clean=True)
    assert control_file.read(tmp_path) == (later, True)
