"""What a backend says while a session is taken out of it, and put into another."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore.pgwire.messages import Message, error_response, ready_for_query
from pagestore.proxy.carrying import CarryFailed, Hindrance, State, dehydrate, overhear, rehydrate
from pagestore.proxy.needs import Need, Read, Send

READY = ready_for_query()
NEWS = Message(b"A", b"\0\0\0\7news\0payload\0")


def row(text: str) -> bytes:
    body = text.encode()
    return Message(b"D", b"\0\1" + len(body).to_bytes(4, "big") + body).encode()


def play(generator: Generator[Need, Any, Any], said: Iterable[bytes]) -> tuple[Any, bytes]:
    """What the generator returns when a backend says so, and what it sent."""
    pieces, sent, reply = iter(said), b"", None
    while True:
        try:
            need = generator.send(reply)
        except StopIteration as stop:
            assert next(pieces, None) is None, "not all was read"
            return stop.value, sent
        reply = None
        if isinstance(need, Send):
            sent += need.data
        else:
            assert isinstance(need, Read)
            reply = next(pieces)


def test_a_state_tells_whether_its_session_listens() -> None:
    for mark, listens in (("+", False), ("*", True)):
        found, _ = play(dehydrate(b"unnamed", lambda _: None), [row(mark + "abcd") + READY])
        assert found == State("abcd", b"unnamed", listens=listens)
    found, _ = play(dehydrate(b"", lambda _: None), [row("-temporary tables") + READY])
    assert found == Hindrance("temporary tables")


@given(st.integers(1, 40), st.booleans())
def test_what_is_notified_meanwhile_is_heard_however_it_is_cut(size: int, late: bool) -> None:
    """Behind ReadyForQuery too, and no part of it is left to be taken for another message."""
    news = NEWS.encode()
    said = row("*ab") + (READY + news if late else news + READY)
    pieces = [said[at : at + size] for at in range(0, len(said), size)]
    heard: list[Message] = []
    if late and len(said) - said.index(READY) - len(READY) >= len(news):
        # What has not begun when ReadyForQuery came is not waited for.
        end = said.index(READY) + len(READY)
        if end % size == 0:
            pieces = pieces[: end // size]
    found, _ = play(dehydrate(b"", heard.append), pieces)
    assert found == State("ab", listens=True)
    assert heard == ([NEWS] if b"".join(pieces).endswith(news) or not late else [])


def test_what_is_notified_while_a_session_comes_back_is_heard() -> None:
    heard: list[Message] = []
    play(rehydrate(State("ab", b"q\0"), heard.append), [NEWS.encode() + READY, READY])
    assert heard == [NEWS]
    heard.clear()
    play(overhear(heard.append), [NEWS.encode(), NEWS.encode() + READY])
    assert heard == [NEWS, NEWS]


def test_one_that_was_cancelled_does_not_stand_in_the_way_of_the_next() -> None:
    cancelled = error_response("57014", "canceling statement due to user request", severity="ERROR")
    with pytest.raises(CarryFailed, match="canceling"):
        play(dehydrate(b"", lambda _: None), [cancelled + READY])
    _, sent = play(dehydrate(b"", lambda _: None), [row("+ab") + READY])
    assert sent.startswith(Message(b"C", b"S_pagestore\0").encode()), "the old one goes first"


def test_an_error_says_by_which_code_its_backend_ends() -> None:
    """It may come right behind the answer, and in one piece with it."""
    ends = error_response("57P01", "terminating connection due to administrator command")
    for story in (rehydrate(State("ab"), lambda _: None), dehydrate(b"", lambda _: None)):
        with pytest.raises(CarryFailed) as caught:
            play(story, [READY + ends])
        assert caught.value.sqlstate == "57P01"
