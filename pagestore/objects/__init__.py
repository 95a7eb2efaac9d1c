"""The object store: what outlives a machine, and who may write there.

Words: the *object store* is where *objects* lie, each with a *name* under the prefix of its URL.
An object is made once, never changed, and at some time removed. What holds it together:

- ``store``: a name is made by at most one of many who try (*conditional create*), which is raced
  before anything else is believed (``race``); retries are here and nowhere else;
- ``claims``: whoever makes the object of a *generation* has it, and whoever finds a higher one has
  been *superseded* and ends;
- ``journal``: the entries of an LMDB file, as a snapshot and what transactions changed since.

**Create, then look.** A writer may be stalled for any time between two requests, or within one,
and go on when another one has taken its place. So it never relies on what it saw *before* it
wrote. It creates, then looks whether it has been superseded, and only if not does what it made
count. Its successor claims first and lists then: what counted is seen, and what is not seen did
not count. Nothing that still counts is ever removed on the word of something that does not.

Everything here is synchronous, blocks, and may be called from any thread.
"""
