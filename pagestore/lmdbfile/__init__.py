"""LMDB files whose damage, loss and age are told before they are believed.

LMDB has no checksums, follows a damaged page number into nothing, and cannot know that its file
is yesterday's. Two parts keep their truth in it: the page server its catalog, the control plane
its state. What makes both whole:

- ``findings``: the file is walked as LMDB's own structure prescribes, before LMDB maps it;
- ``pages``: the same in plain Python, for files of an old format and for tests;
- ``whole``: every transaction writes an entry that names the store, the transaction, and a sum
  over all entries, so that a page of the past, or an entry that is lost or not ours, is found;
- ``witness``: a file beside it knows the newest transaction, so that an older copy is found.

What an entry means, and its own checksum, are its owner's. Not a store: nothing here reads or
writes through LMDB.
"""
