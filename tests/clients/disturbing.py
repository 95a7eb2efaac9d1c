"""What happens to a database while its clients say nothing."""

from __future__ import annotations

import signal

from pagestore.proxy.fleet import State
from tests.integration.proxied import RunningProxy
from tests.waiting import wait_until


def put_to_sleep(proxy: RunningProxy) -> None:
    places = proxy.places
    wait_until(
        lambda: proxy.state() is State.ASLEEP and not places.server.alive(), what="it stays awake"
    )


def crash(proxy: RunningProxy) -> None:
    """The postmaster goes by kill -9, once no session would lose anything by it."""
    wait_until(proxy.every_state_is_kept)
    proxy.places.server.stop(signal.SIGKILL)
    proxy.wait_until_parted()
