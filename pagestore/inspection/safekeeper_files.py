"""A safekeeper's small files (docs/formats/safekeeper.md)."""

from __future__ import annotations

from pathlib import Path

from pagestore.consensus.members import Member
from pagestore.errors import DataLoss
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.inspection.inspected import Inspected
from pagestore.walservice import control_file, horizon, memory_of_peers, witness
from pagestore.walservice.owner import Owner

_NOBODY = Owner(TenantId(bytes(16)), TimelineId(bytes(16)), 0)
"""Of a file of a version that does not say whose it is: anybody's."""


def inspect_control(path: Path, raw: bytes, limit: int) -> Inspected:
    del limit
    found = Inspected("control file of a safekeeper's log")
    try:
        owner = control_file.owner_in(raw, str(path))
        control = control_file.decode(raw, owner or _NOBODY, str(path))
    except DataLoss as error:
        found.damage.append(error.message)
        return found
    state = control.state
    found.facts = {
        **_whose(owner),
        "system_id": state.system_id,
        "start_lsn": format_lsn(state.start.flush_lsn),
        "term": state.term,
        "position": format_lsn(state.position.flush_lsn),
        "clean": control.clean,
        "known_commit_lsn": format_lsn(state.known_commit_lsn),
        "attached": None if state.attachment is None else f"by term {state.attachment.term}",
        "revision": control.revision,
        "epoch": control.epoch,
        "member": _member(state.member),
        "generation": state.configuration.generation,
        "members": ", ".join(map(_member, state.configuration.members)),
        "joining": ", ".join(map(_member, state.configuration.joining)),
    }
    found.columns = ("term", "from")
    found.rows = [(str(switch.term), format_lsn(switch.start_lsn)) for switch in state.history]
    found.count = len(found.rows)
    return found


def inspect_horizon(path: Path, raw: bytes, limit: int) -> Inspected:
    found = Inspected("horizon of a safekeeper's log")
    try:
        owner = horizon.owner_in(raw, str(path))
        said = horizon.decode(raw, owner or _NOBODY, str(path))
    except DataLoss as error:
        found.damage.append(error.message)
        return found
    found.facts = {**_whose(owner), "oldest_lsn": format_lsn(said.oldest_lsn)}
    found.columns = ("consumer", "needs from")
    found.rows = [(name, format_lsn(lsn)) for name, lsn in sorted(said.consumers.items())][:limit]
    found.count = len(said.consumers)
    return found


def inspect_witness(path: Path, raw: bytes, limit: int) -> Inspected:
    del limit
    found = Inspected("witness of a safekeeper's log")
    told = witness.decode(raw)
    if told is None:
        found.damage.append("its checksum does not hold; the control file alone binds then")
        return found
    owner, seen = told
    found.facts = {
        **_whose(owner),
        "revision": seen.revision,
        "epoch": seen.epoch,
        "durable_to": format_lsn(seen.position.flush_lsn) if seen.position.flush_lsn else None,
    }
    return found


def inspect_memory_of_peers(path: Path, raw: bytes, limit: int) -> Inspected:
    del path
    found = Inspected("what a safekeeper was told by others")
    slots = [raw[at : at + memory_of_peers.SLOT] for at in range(0, len(raw), memory_of_peers.SLOT)]
    told = [memory_of_peers.decode(slot) for slot in slots]
    torn = sum(any(slot) and said is None for slot, said in zip(slots, told, strict=True))
    if torn:
        found.damage.append(f"{torn} slots do not hold; nothing rests on them")
    said = [each for each in told if each is not None]
    found.columns = ("safekeeper", "tenant", "timeline", "term", "flush LSN", "commit LSN")
    found.rows = [
        (
            *(str(number), str(key.tenant), str(key.timeline), str(heard.term)),
            *(format_lsn(heard.flush_lsn), format_lsn(heard.commit_lsn)),
        )
        for number, key, heard in said[:limit]
    ]
    found.count = len(said)
    return found


def _whose(owner: Owner | None) -> dict[str, str | int | bool | None]:
    if owner is None:
        return {"owner": "not said by this version"}
    return {
        "tenant": str(owner.tenant),
        "timeline": str(owner.timeline),
        "safekeeper": owner.number,
    }


def _member(member: Member) -> str:
    return f"{member.number} (incarnation {member.incarnation})"
