"""Timelines: histories of values, each a parent and a branch LSN, kept in one repository."""

from pagestore.timeline.repository import Repository, TimelineSummary
from pagestore.timeline.rootimport import RootImport
from pagestore.timeline.timeline import Timeline

__all__ = ["Repository", "RootImport", "Timeline", "TimelineSummary"]
