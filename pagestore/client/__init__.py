"""What a program imports to talk to pagestore's services."""

from pagestore.client.page import AsyncPageClient, PageStream, ReadLsn, Rel
from pagestore.client.sync import PageClient

__all__ = ["AsyncPageClient", "PageClient", "PageStream", "ReadLsn", "Rel"]
