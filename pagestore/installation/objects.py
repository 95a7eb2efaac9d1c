"""What `up` sees to where there is an object store: that it keeps its promises, and is ours.

A store is raced before it is written into the installation's file, and at each `up` again, if
it answers: one that is away keeps nothing from starting. One that lets two create the same name, or
where another data directory has taken over, is refused before any part is started.
"""

from __future__ import annotations

import os
from functools import partial

from pagestore import threads_aside
from pagestore.errors import FailedPrecondition, Unavailable
from pagestore.installation import config
from pagestore.installation.layout import Installation

CHECK_SECONDS = 10.0
"""For a store to say that it is ours, where databases wait for it."""
PARTS = ("pageserver", "control")
"""Each claims with the record in its own directory."""


def settle(installation: Installation, url: str | None) -> None:
    """
    Args:
        url: as `up --objects` says it; None where it was not given.

    Raises:
        InvalidInput: OBJECT_STORE_URL.
        FailedPrecondition: OTHER_OBJECTS, OBJECT_STORE_UNCONDITIONAL, OBJECT_STORE_CLAIMED,
            OBJECT_STORE_FOREIGN, GENERATION_SUPERSEDED; OBJECT_STORE_DENIED, and
        Unavailable: OBJECT_STORE_UNAVAILABLE: only where it is new to this installation.
    """
    there = installation.config.objects
    check_url(installation, url)
    if there is None and url is not None:
        _check(installation, url)
        config.add_objects(installation.config_file, url)
        installation.forget_config()
    elif there is not None:
        checking = threads_aside.begin(partial(_check, installation, there.url))
        try:
            checking.result(CHECK_SECONDS)
        except TimeoutError:
            return  # it says nothing at all
        except (Unavailable, FailedPrecondition) as error:
            # Parts try on where that may help, and `status` says it.
            if error.reason not in ("OBJECT_STORE_UNAVAILABLE", "OBJECT_STORE_DENIED"):
                raise


def check_url(installation: Installation, url: str | None) -> None:
    """
    Raises:
        FailedPrecondition: OTHER_OBJECTS.
    """
    there = installation.config.objects
    if there is not None and url is not None and url != there.url:
        raise FailedPrecondition(
            "OTHER_OBJECTS",
            f"{installation.data} keeps its objects in {there.url}, not in {url}.",
            "What is there may be nowhere else. Move all of it, then change the URL in "
            f"{installation.config_file}.",
        )


def _check(installation: Installation, url: str) -> None:
    from pagestore.objects.claims import check_ours, reach
    from pagestore.objects.race import prove_conditional
    from pagestore.objects.store import ObjectStore

    store = ObjectStore.open(url, os.environ).hasty
    directories = {part: installation.part_dir(part) for part in PARTS}
    reach(store, *directories.values())
    prove_conditional(store)
    for part, directory in directories.items():
        check_ours(store, part, directory)
