"""The WAL service by its safekeepers' addresses: one is asked without counting votes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pagestore.client.retrying import DEFAULT_TIMEOUT
from pagestore.client.wal import WalClient
from pagestore.quorum.client import QuorumClient


def wal_service(
    addresses: Mapping[int, str],
    generations: Callable[[int], int],
    *,
    timeout: float = DEFAULT_TIMEOUT,
) -> WalClient | QuorumClient:
    """
    Args:
        generations: see :class:`QuorumClient`.
    """
    if len(addresses) > 1:
        return QuorumClient(addresses, generations=generations, timeout=timeout)
    [(number, address)] = addresses.items()
    return WalClient(address, timeout=timeout, number=number)
