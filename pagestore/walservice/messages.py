"""WalService's messages, to and from what the acceptor and the election know.

Addresses stand beside members on the wire, and are no part of them inside.

Whatever comes from outside is checked here, once: numbers that can never be right are refused
with a reason before any of it reaches the acceptor, which then meets only what it may decide on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pagestore.consensus.acceptor import (
    MAX_TERM,
    ChangeMembers,
    Elect,
    Heard,
    State,
    TermSwitch,
    WalPosition,
)
from pagestore.consensus.election import named
from pagestore.consensus.members import ALONE, Configuration, Member
from pagestore.errors import InvalidInput
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.v1 import wal_pb2 as pb
from pagestore.walservice.peer_status import PeerStatus
from pagestore.walservice.timeline import WalTimeline
from pagestore.walservice.watch import TimelineKey

MAX_MEMBERS = 100
MAX_GENERATION = 2**63
"""Bound on generations, so that more always exist."""
MAX_SWITCHES = 1_000_000
MAX_APPEND_LSN = 2**63
MAX_CONSUMER = 200
_ADDRESS = re.compile(r"[!-~]{1,255}")

Addresses = Mapping[int, str]


def key_of(request: Any) -> TimelineKey:
    return TimelineKey(TenantId(request.tenant_id), TimelineId(request.timeline_id))


def term_of(request: Any) -> int:
    """Raises InvalidInput (INVALID_TERM)."""
    term = int(request.term)
    if not 0 < term < MAX_TERM:
        raise InvalidInput(
            "INVALID_TERM",
            f"{term} is no term: they are numbered from 1 on, below 2^63.",
            "Vote tells the highest promised one: ask for the next.",
        )
    return term


def append_of(request: pb.AppendWalRequest) -> tuple[int, int, bytes]:
    """Term, LSN and bytes. Raises InvalidInput (INVALID_TERM, INVALID_LSN, NOT_WAL)."""
    term, lsn, data = term_of(request), request.lsn, request.data
    if not data:
        raise InvalidInput("NOT_WAL", "There is nothing to append.")
    if not 0 < lsn < MAX_APPEND_LSN:
        raise InvalidInput("INVALID_LSN", f"No log goes to {format_lsn(lsn)}.")
    return term, lsn, data


def consumer_of(request: pb.ReleaseWalRequest) -> str:
    """Raises InvalidInput (INVALID_CONSUMER)."""
    name = request.consumer
    if not 0 < len(name) <= MAX_CONSUMER or not name.isprintable():
        raise InvalidInput(
            "INVALID_CONSUMER",
            f"A consumer's name has 1 to {MAX_CONSUMER} characters that can be printed.",
        )
    return name


def addresses_of(configuration: pb.Configuration) -> dict[int, str]:
    return addresses_in((*configuration.members, *configuration.joining))


def addresses_in(members: Iterable[pb.Member]) -> dict[int, str]:
    """What is told of where members are. Raises InvalidInput (INVALID_MEMBERS)."""
    told = {item.number: item.address for item in members if item.address}
    for number, address in told.items():
        if not _ADDRESS.fullmatch(address) or ":" not in address:
            raise InvalidInput(
                "INVALID_MEMBERS", f"Safekeeper {number} cannot be at {address[:80]!r}."
            )
    return told


def parse_addresses(text: str) -> dict[int, str]:
    """``2=host:port,3=host:port``. Raises InvalidInput (INVALID_SETTING)."""
    pairs = [item.partition("=") for item in text.split(",") if item]
    if any(not (number.isdigit() and ":" in address) for number, _, address in pairs):
        raise InvalidInput("INVALID_SETTING", f"Peers are given as ID=HOST:PORT,..., not {text!r}.")
    return {int(number): address for number, _, address in pairs}


def configuration_of(told: pb.Configuration) -> Configuration:
    """Raises InvalidInput (INVALID_MEMBERS)."""
    sets = (_members_of(told.members), _members_of(told.joining))
    if (told.generation or told.joining) and not told.members:
        raise InvalidInput("INVALID_MEMBERS", "A configuration has members.")
    if told.generation >= MAX_GENERATION:
        raise InvalidInput("INVALID_MEMBERS", "Generations are below 2^63.")
    return Configuration(told.generation, *sets)


def _members_of(members: Iterable[pb.Member]) -> tuple[Member, ...]:
    found = tuple(sorted(Member(item.number, item.incarnation) for item in members))
    numbers = [item.number for item in found]
    if len(found) > MAX_MEMBERS:
        raise InvalidInput("INVALID_MEMBERS", f"There are at most {MAX_MEMBERS} members.")
    if 0 in numbers or len(set(numbers)) != len(numbers) or not all(x.incarnation for x in found):
        raise InvalidInput(
            "INVALID_MEMBERS",
            f"Members have numbers and incarnations from 1 on, not {found}.",
        )
    return found


def first_configuration(numbers: Sequence[int], addresses: Addresses) -> pb.Configuration:
    """That a timeline is made with."""
    return configuration(Configuration(1, tuple(map(Member, numbers))), addresses)


def own_member(configuration: Configuration, number: int) -> Member:
    """Who the safekeeper of this number is when a timeline is made. Raises InvalidInput
    (INVALID_MEMBERS) when it is not among them."""
    if not configuration.members:
        return ALONE
    own = [item for item in configuration.members if item.number == number]
    if not own or configuration.joint or not configuration.generation:
        raise InvalidInput(
            "INVALID_MEMBERS", f"A timeline is made by its first members; {number} is none of them."
        )
    return own[0]


def elect_of(request: pb.ElectRequest) -> Elect:
    """Raises InvalidInput (INVALID_TERM, INVALID_MEMBERS, INVALID_HISTORY)."""
    term = term_of(request)
    told = tuple(TermSwitch(item.term, item.start_lsn) for item in request.term_history)
    rising = all(
        before.term < after.term and before.start_lsn < after.start_lsn
        for before, after in pairwise(told)
    )
    sane = 0 < len(told) <= MAX_SWITCHES and told[0].term > 0 and told[-1].term == term
    if not sane or not rising:
        raise InvalidInput(
            "INVALID_HISTORY",
            "A term history rises in terms and positions, and ends with the elected term.",
        )
    return Elect(term, told, configuration_of(request.configuration))


def change_of(request: pb.ChangeMembersRequest) -> ChangeMembers:
    """Raises InvalidInput (INVALID_TERM, INVALID_MEMBERS)."""
    return ChangeMembers(term_of(request), configuration_of(request.configuration))


def member(item: Member, addresses: Addresses) -> pb.Member:
    return pb.Member(
        number=item.number,
        incarnation=item.incarnation,
        address=addresses.get(item.number, ""),
    )


def configuration(known: Configuration, addresses: Addresses) -> pb.Configuration:
    return pb.Configuration(
        generation=known.generation,
        members=[member(item, addresses) for item in known.members],
        joining=[member(item, addresses) for item in known.joining],
    )


def history(switches: Iterable[TermSwitch]) -> list[pb.TermSwitch]:
    return [pb.TermSwitch(term=item.term, start_lsn=item.start_lsn) for item in switches]


def status(
    key: TimelineKey, timeline: WalTimeline, number: int, addresses: Addresses
) -> pb.WalTimelineStatus:
    state = timeline.state
    base_lsn = timeline.base_lsn
    return pb.WalTimelineStatus(
        tenant_id=key.tenant.raw,
        timeline_id=key.timeline.raw,
        start_lsn=state.start.flush_lsn,
        term=state.term,
        flush_lsn=state.position.flush_lsn,
        commit_lsn=state.commit_lsn,
        term_history=history(state.history),
        receiving=timeline.receiving,
        last_error=timeline.last_error,
        wal_bytes=max(state.position.flush_lsn - base_lsn, 0),
        system_id=state.system_id,
        prev_record_lsn=state.position.prev_record_lsn,
        configuration=configuration(state.configuration, addresses),
        number=number,
        incarnation=named(state, number).incarnation,
        oldest_lsn=base_lsn,
    )


def ballot(granted: bool, state: State, number: int, addresses: Addresses) -> pb.VoteResponse:
    return pb.VoteResponse(
        granted=granted,
        term=state.term,
        end_lsn=state.position.flush_lsn,
        prev_record_lsn=state.position.prev_record_lsn,
        last_log_term=state.last_log_term,
        member=member(named(state, number), addresses),
        configuration=configuration(state.configuration, addresses),
        term_history=history(state.history),
        start_lsn=state.start.flush_lsn,
        start_prev_record_lsn=state.start.prev_record_lsn,
        system_id=state.system_id,
    )


def elect_response(state: State, number: int, addresses: Addresses) -> pb.ElectResponse:
    return pb.ElectResponse(
        term=state.writing_term,
        flush_lsn=state.position.flush_lsn,
        member=member(named(state, number), addresses),
        generation=state.configuration.generation,
    )


def change_response(state: State, number: int, addresses: Addresses) -> pb.ChangeMembersResponse:
    return pb.ChangeMembersResponse(
        generation=state.configuration.generation,
        flush_lsn=state.position.flush_lsn,
        member=member(named(state, number), addresses),
    )


def fill_response(state: State, number: int, addresses: Addresses) -> pb.FillResponse:
    return pb.FillResponse(
        flush_lsn=state.position.flush_lsn,
        member=member(named(state, number), addresses),
        generation=state.configuration.generation,
    )


def heard_of(position: pb.PeerPosition) -> Heard:
    return Heard(
        Member(position.member.number, position.member.incarnation),
        position.term,
        position.generation,
        position.flush_lsn,
        position.commit_lsn,
        position.promised_term,
    )


def heard_in(told: pb.WalTimelineStatus) -> Heard:
    """What a status says of how far it is."""
    return Heard(
        Member(told.number, told.incarnation),
        told.term_history[-1].term if told.term_history else 0,
        told.configuration.generation,
        told.flush_lsn,
        told.commit_lsn,
        told.term,
    )


def start_of(request: Any) -> WalPosition:
    return WalPosition(request.start_lsn, request.prev_record_lsn)


def safekeepers(addresses: Addresses) -> list[pb.Member]:
    return [pb.Member(number=n, address=address) for n, address in sorted(addresses.items())]


def commit_update(changes: Iterable[tuple[TimelineKey, int]]) -> pb.CommitUpdate:
    return pb.CommitUpdate(
        positions=[
            pb.CommitPosition(
                tenant_id=key.tenant.raw, timeline_id=key.timeline.raw, commit_lsn=commit_lsn
            )
            for key, commit_lsn in changes
        ]
    )


def position_update(
    changes: Iterable[tuple[TimelineKey, PeerStatus]],
    remembered: Callable[[TimelineKey], Heard | None],
) -> pb.PositionUpdate:
    """What one peer is told of us, and of itself."""
    update = pb.PositionUpdate()
    for key, status in changes:
        told = position(status.heard)
        told.tenant_id, told.timeline_id = key.tenant.raw, key.timeline.raw
        heard = remembered(key)
        if heard is not None:
            told.remembered.CopyFrom(position(heard))
        update.positions.append(told)
    return update


def position(heard: Heard) -> pb.PeerPosition:
    return pb.PeerPosition(
        member=member(heard.member, {}),
        term=heard.term,
        generation=heard.generation,
        flush_lsn=heard.flush_lsn,
        commit_lsn=heard.commit_lsn,
        promised_term=heard.promised,
    )
