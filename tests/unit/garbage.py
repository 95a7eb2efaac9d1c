"""Python without its garbage collector: what refers to itself stays for ever.

Files of a timeline go with the last that reads them, so whoever keeps one by a circle keeps bytes
on the disk for as long as Python likes. An exception makes such circles easily: it has the frames
that it passed, one of which has the future or the variable that has the exception.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def uncollected() -> Iterator[None]:
    """Logs are made as in a service meanwhile: those of tests keep the frames that they show."""
    structlog.configure([structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        structlog.reset_defaults()
