"""Of which computes nobody is to hear that they are awake, since they are about to end."""

from __future__ import annotations

from pagestore.proxy.ending import FORGET_SECONDS, Ending
from pagestore.proxy.places import Address, Place

APP, OTHER = Place("app"), Place("other")
OLD, NEW = Address(host="here", port=1), Address(host="here", port=2)


def test_what_is_about_to_end_is_known_by_its_address_and_the_next_is_not_meant() -> None:
    ending = Ending()
    ending.begin(APP, OLD, 10.0)
    assert ending.concerns(APP, OLD, 11.0)
    assert not ending.concerns(APP, NEW, 11.0)
    assert not ending.concerns(OTHER, OLD, 11.0)


def test_a_list_that_was_asked_for_before_says_nothing_of_the_place() -> None:
    ending = Ending()
    ending.begin(APP, None, 10.0)
    assert ending.concerns(APP, NEW, 9.9)
    assert not ending.concerns(APP, NEW, 10.1)


def test_it_is_not_kept_for_ever() -> None:
    ending = Ending()
    ending.begin(APP, OLD, 10.0)
    assert ending.concerns(APP, OLD, 9.9 + FORGET_SECONDS)
    assert not ending.concerns(APP, OLD, 10.1 + FORGET_SECONDS)
    ending.begin(OTHER, OLD, 10.0 + FORGET_SECONDS)
    assert not ending.concerns(APP, OLD, 11.0 + FORGET_SECONDS)
    assert ending.concerns(OTHER, OLD, 11.0 + FORGET_SECONDS)
