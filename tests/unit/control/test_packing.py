"""How records lie in the state: packed against a dictionary that never changes, or as JSON."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore.control import packing
from pagestore.control.records import (
    DatabaseRecord,
    EventRecord,
    TimelineRecord,
    TimelineState,
    UnmadeLog,
    Verb,
)
from pagestore.errors import DataLoss
from pagestore.ids import DEFAULT_TENANT, TimelineId

A, B = TimelineId(bytes(range(16))), TimelineId(bytes(range(100, 116)))
BRANCH = TimelineRecord(
    timeline=A,
    tenant=DEFAULT_TENANT,
    state=TimelineState.LIVE,
    database="try-1",
    parent=B,
    branch_lsn=27849672,
    system_id=7312345678901234567,
    created_micros=1796000000123456,
    unmade_log=UnmadeLog(prev_record_lsn=27849616),
)


def test_the_dictionary_is_as_it_was() -> None:
    """Records that were packed with it are read with it for ever."""
    assert hashlib.sha256(packing.DICTIONARY).hexdigest() == DICTIONARY
    raw = bytes.fromhex(GOLDEN)
    assert TimelineRecord.decode(raw, "here") == BRANCH


def test_the_records_of_a_branch_take_less_than_400_bytes() -> None:
    password = hashlib.sha512(b"as if it were sealed").hexdigest()[:80]
    database = DatabaseRecord(
        tenant=DEFAULT_TENANT,
        name="try-1",
        timeline=A,
        parent="app",
        parent_timeline=B,
        branch_lsn=27849672,
        created_micros=1796000000123456,
        sealed_password=password,
        postgres_database="app",
    )
    event = EventRecord(
        verb=Verb.BRANCH,
        timeline=A,
        lsn=27849672,
        created_micros=1796000000123456,
        detail="of app at the head",
    )
    for record in (database, event):
        assert type(record).decode(record.encode(), "here") == record
    assert sum(len(record.encode()) for record in (BRANCH, database, event)) < 400


@given(st.dictionaries(st.text(), st.text(max_size=300), max_size=20))
def test_whatever_is_packed_is_read_again_and_is_never_longer(fields: dict[str, str]) -> None:
    body = json.dumps(fields).encode()
    raw = packing.pack(body)
    assert len(raw) <= len(body)
    assert packing.unpack(raw) == body


def test_what_is_not_packed_is_read_as_it_is() -> None:
    plain = BRANCH.model_dump_json().encode()
    assert TimelineRecord.decode(plain, "of old") == BRANCH
    assert packing.unpack(b"") == b""
    assert packing.pack(b"{}") == b"{}"


def test_a_packed_record_that_ends_early_or_goes_on_is_damage() -> None:
    raw = BRANCH.encode()
    assert raw[:1] == packing.PACKED
    for bad in (*(raw[:length] for length in range(1, len(raw))), raw + b"\0", b"\x01\xff\xff"):
        with pytest.raises(DataLoss) as caught:
            TimelineRecord.decode(bad, "timelines")
        assert caught.value.reason == "CONTROL_STATE_CORRUPT"


DICTIONARY = "9ab4e7f708523ac03314ea20ae3c581946c93bf7297f532ed7f405da98d39e49"
GOLDEN = (
    "01ad90390ac35014034f14d0df46ff1dc7eb014c9a14be7b88719198409a742a04d2cc07c2eb9ab28aaa9a90"
    "d5151a346ad2ac45ebdf10efdbe396de39a934c074828191899985d5727276b97a70af812f3a4acaa536dc43"
    "67fa2628381f1e95df8e8ea9c4be3f01"
)
