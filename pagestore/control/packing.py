"""Records as they lie in the control plane's state: JSON, without what they all have in common.

A branch is some ten ids and numbers, and four times as many bytes of names of fields. So a record
is deflated by itself against a dictionary of those (raw deflate, RFC 1951, a window of 4 KiB): less
than half of the bytes, for ten microseconds when it is written and four when it is read. Where that
is no shorter the JSON stands as it is, as it always did before 30 November 2026.

::

    offset 0   1
           ┌───┬─────────────────────────────┐        ┌─────────────────┐
           │ 1 │ JSON, by deflate, DICTIONARY │   or   │ {... JSON, UTF-8 │
           └───┴─────────────────────────────┘        └─────────────────┘

The dictionary never changes: another one gets another first byte.
"""

from __future__ import annotations

import zlib

PACKED = b"\x01"
DICTIONARY = (
    b'"answers":["request":"changed":true,"summary":"kept":""went_to":{"git_commit":"'
    b'"dirty_patch":"run_id":"notes":{"automatic":true"note":"expires_micros":17'
    b'"seconds":"wal_bytes":"settled":[1,2,3],"next_generation":"key":"overwritten":true'
    b'"quota":{"databases":"awake":"own_bytes":"awake":"cpu":"queries":"wakes":"until":'
    b'"imported":true,"before":"usable_lsn":"members":[1,2,3]"doubtful":true'
    b'"verb":"undo""verb":"redo""verb":"reset""verb":"promote""verb":"rename""verb":"settings"'
    b'"verb":"import""verb":"upgrade""verb":"restore""verb":"checkpoint""checkpoint":"'
    b'"state":"pending""state":"dropped""prev_record_lsn":"idle":"password_was_reset":true'
    b'"expires_micros":17"settings":{"wanted":{"good":{"set_aside":{"complaint":"'
    b'{"verb":"create","timeline":""detail":"from '
    b'{"tenant":"00000000000000000000000000000001","name":"","timeline":"","parent":"",'
    b'"parent_timeline":"","branch_lsn":2,"created_micros":17,"sealed_password":"AX'
    b'","postgres_database":"","settings":{"wanted":{},"good":{}}}'
    b'{"verb":"branch","timeline":"","lsn":2,"created_micros":17,"detail":"of  at the head"}'
    b'{"timeline":"","tenant":"00000000000000000000000000000001","state":"live","database":"",'
    b'"parent":"","branch_lsn":2,"system_id":7,"created_micros":17,"major":17,'
    b'"unmade_log":{"prev_record_lsn":2}}'
)
_WINDOW_BITS = -12
_MEMORY_LEVEL = 4


def pack(body: bytes) -> bytes:
    """
    Args:
        body: JSON of an object.
    """
    deflate = zlib.compressobj(
        9, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib.Z_DEFAULT_STRATEGY, DICTIONARY
    )
    packed = PACKED + deflate.compress(body) + deflate.flush()
    return packed if len(packed) < len(body) else body


def unpack(raw: bytes) -> bytes:
    """The inverse of :func:`pack`; what is not packed is given back as it is.

    Raises:
        ValueError: it says that it is packed, and is not.
    """
    if not raw.startswith(PACKED):
        return raw
    inflate = zlib.decompressobj(_WINDOW_BITS, DICTIONARY)
    try:
        body = inflate.decompress(raw[len(PACKED) :])
    except zlib.error as error:
        raise ValueError(f"it cannot be unpacked: {error}") from error
    if not inflate.eof or inflate.unused_data:
        raise ValueError("it is packed, and does not end where it should")
    return body
