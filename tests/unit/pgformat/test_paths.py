from __future__ import annotations

import pytest

from pagestore.errors import InvalidInput
from pagestore.pgformat import paths, slru
from pagestore.pgformat.paths import RelationFile


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("1259", RelationFile(1259, 0, 0)),
        ("1259_fsm", RelationFile(1259, 1, 0)),
        ("16384_vm.2", RelationFile(16384, 2, 2)),
        ("4294967295_init", RelationFile(4294967295, 3, 0)),
    ],
)
def test_names_of_relation_files(name: str, parsed: RelationFile) -> None:
    assert paths.parse_relation_file(name) == parsed
    assert paths.relation_file(*parsed) == name


@pytest.mark.parametrize(
    "name",
    ["PG_VERSION", "pg_filenode.map", "t3_16384", "0", "012", "1.0", "1_fsmx", "4294967296", "1\n"],
)
def test_other_names_are_no_relation_files(name: str) -> None:
    assert paths.parse_relation_file(name) is None


def test_paths() -> None:
    assert paths.relation_path(1663, 5, 1259, 0) == "base/5/1259"
    assert paths.relation_path(1664, 0, 1260, 2) == "global/1260_vm"
    assert paths.relation_path(16390, 5, 1, 0, 2) == "pg_tblspc/16390/PG_15_202209061/5/1.2"
    with pytest.raises(InvalidInput, match="tablespace 1664"):
        paths.relation_path(1664, 5, 1, 0)


def test_slru_pages_have_a_place() -> None:
    assert slru.page_position(slru.XACT, slru.page_of(slru.XACT, 0)) == ("pg_xact/0000", 0)
    assert slru.page_position(slru.XACT, slru.page_of(slru.XACT, 2**20 + 32768)) == (
        "pg_xact/0001",
        8192,
    )
    members = slru.page_of(slru.MULTIXACT_MEMBERS, 2**32 - 1)
    assert slru.page_position(slru.MULTIXACT_MEMBERS, members)[0] == "pg_multixact/members/14078"
    assert slru.parse_segment_name("14078") == 0x14078
    assert slru.parse_segment_name("0000.tmp") is None
