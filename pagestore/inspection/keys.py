"""A key in words: what it is of, and where."""

from __future__ import annotations

from pagestore import keyspace
from pagestore.keyspace import Fork, Key, Kind, Slru, ValueKind

_ONE_OF_ITS_KIND = {keyspace.COUNTERS: "counters", keyspace.SETTINGS: "settings"}


def named(raw: bytes) -> str:
    """As ``block 12 of 1663/5/16384 main``; a key of no known kind in hexadecimal."""
    key = Key.unpack(raw)
    if key in _ONE_OF_ITS_KIND:
        return _ONE_OF_ITS_KIND[key]
    try:
        kind = Kind(key.kind)
    except ValueError:
        return raw.hex()
    if kind in (Kind.REL_BLOCK, Kind.REL_SIZE):
        what = f"block {key.block}" if kind is Kind.REL_BLOCK else "length"
        return f"{what} of {key.spc}/{key.db}/{key.rel} {fork_name(key.fork)}"
    if kind in (Kind.SLRU_PAGE, Kind.SLRU_SIZE):
        what = "page" if kind is Kind.SLRU_PAGE else "segment"
        return f"{what} {key.block} of {_name(Slru, key.spc)}"
    if kind is Kind.COMMIT_TIME:
        return f"commit time {keyspace.commit_time_micros(key)}"
    numbers = "/".join(str(number) for number in key[1:])
    return f"{_words(kind.name)} {numbers}"


def fork_name(fork: int) -> str:
    return _name(Fork, fork)


def kind_of_value(kind: int) -> str:
    return _name(ValueKind, kind)


def _name(kinds: type[Fork | Slru | ValueKind], number: int) -> str:
    try:
        return _words(kinds(number).name)
    except ValueError:
        return str(number)


def _words(name: str) -> str:
    return name.lower().replace("_", " ")
