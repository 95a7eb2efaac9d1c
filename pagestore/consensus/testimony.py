"""What the others remember of a safekeeper: how it learns that its disk is an older copy.

The problem. A disk that was put back from a backup looks whole. All in it agrees: the log, the
promises, the control file and the witness beside it; there are only fewer of them than were given.
To go on from there is worse than to have lost everything, since who has lost everything knows it.

The others know. Each safekeeper tells its peers how far it is (`Heard`), and they remember the
furthest that each has said (walservice.peers). What a safekeeper says only goes up: its promise,
the term of its log, within that term the generation of its configuration, and the flush LSN but
for a cut by the election of a higher term. So whoever finds less in its own directory than the
others remember has an older copy, and neither promises nor confirms anything any more.

Until it has been told, it cannot know. Found on disk at a start, a log is *on trial*: its
safekeeper votes, follows and confirms only when all peers have said what they remember, or, since
one of them may be away for long, when some time has passed and those who have spoken are, with
itself, a majority. One fault at a time is borne: of an older copy that comes back while the only
one who remembers is away, nobody knows; nor of what it said in its last moment before the copy.
"""

from __future__ import annotations

from collections.abc import Collection

from pagestore.consensus.acceptor import Heard
from pagestore.consensus.members import Configuration, Member


def contradicts(remembered: Heard, own: Heard) -> bool:
    """Whether who says `own` of itself now has once said more."""
    if remembered.member != own.member:
        return False
    if own.promised < remembered.promised or own.term < remembered.term:
        return True
    if own.term != remembered.term:
        return False
    if own.generation < remembered.generation:
        return True
    # A log whose owner has promised more than it follows may have been cut, and be about to follow.
    return own.promised == own.term and own.flush_lsn < remembered.flush_lsn


def may_speak(
    me: Member, configuration: Configuration, spoken: Collection[int], *, patient: bool
) -> bool:
    """Whether a log that was found on disk counts.

    Args:
        spoken: the numbers of those who have said what they remember.
        patient: more may still come.
    """
    others = [item for item in configuration.everyone if item != me]
    present = [item for item in others if item.number in spoken]
    if len(present) == len(others):
        return True
    return not patient and configuration.decided_by({me, *present})
