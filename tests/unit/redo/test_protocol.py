"""docs/formats/redo-protocol.md and native/core/redo/protocol.h say the same."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HEADER = (ROOT / "native/core/redo/protocol.h").read_text()
DOCUMENT = (ROOT / "docs/formats/redo-protocol.md").read_text()
WIDTHS = {"uint8_t": 1, "uint16_t": 2, "uint32_t": 4, "uint64_t": 8}


def fields(struct: str) -> dict[str, int]:
    """Offset of each field of a struct of the header, which needs no padding."""
    body = re.search(rf"typedef struct {struct} {{(.*?)}}", HEADER, re.S)
    assert body is not None
    offsets, at = {}, 0
    for kind, name, count in re.findall(r"(uint\d+_t) (\w+)(?:\[(\d+)\])?;", body[1]):
        assert at % WIDTHS[kind] == 0
        offsets[name] = at
        at += WIDTHS[kind] * int(count or 1)
    return offsets


def test_request_offsets() -> None:
    offsets = fields("ps_redo_wire_request")
    line = re.search(r"^offset +(0 +4 .*)$", DOCUMENT, re.M)
    assert line is not None
    assert [int(n) for n in line[1].split()] == list(offsets.values())
    names = re.search(r"│ (magic .*) │$", DOCUMENT, re.M)
    assert names is not None
    documented = [name.strip().split("×")[0] for name in names[1].split("│")]
    assert documented == list(offsets)


def test_item_and_answer_offsets() -> None:
    assert fields("ps_redo_wire_item") == {
        "lsn": 0, "length": 8, "kind": 12, "flags": 13, "zero": 14,
    }  # fmt: skip
    assert re.search(r"^ +0 +8 +12 +13 +14 +16$", DOCUMENT, re.M)
    assert fields("ps_redo_wire_answer") == {"magic": 0, "sequence": 4, "zero": 8}
    assert re.search(r"^offset +0 +4 +8 +16$", DOCUMENT, re.M)


def test_constants() -> None:
    magic = re.search(r"PS_REDO_MAGIC (0x\w+)u", HEADER)
    assert magic is not None
    assert f"`{magic[1]}`" in DOCUMENT
    assert bytes.fromhex(magic[1][2:])[::-1] == b"PSR1"
    assert "PS_REDO_MAX_REQUEST (256u << 20)" in HEADER
    assert "256 MiB" in DOCUMENT
    at_once = re.search(r"PS_REDO_ANSWERS_AT_ONCE (\d+)u", HEADER)
    assert at_once is not None
    assert f"hold back up to {at_once[1]} answers" in DOCUMENT
    assert f"oldest {at_once[1]} unanswered" in DOCUMENT


def test_the_sandbox_allows_what_is_documented() -> None:
    source = (ROOT / "native/postgres/redo/sandbox.c").read_text()
    allowed = re.search(r"allowed\[\] = {(.*?)}", source, re.DOTALL)
    assert allowed is not None
    section = DOCUMENT[DOCUMENT.index("seccomp filter:") :].split(",\non")[0].split(", on the")[0]
    assert set(re.findall(r"SYS_(\w+)", allowed[1])) == set(re.findall(r"`(\w+)`", section))
