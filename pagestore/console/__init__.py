"""The console: the tree of databases, drawn to scale and live, for people with a browser.

A page without a build step (static/), over a small JSON interface (interface.py) of one process
that acts as the operator. Three things hold for it:

- **Nobody is let in by being near.** Who shows the operator's token, or the link that was printed
  at its start and holds once, gets a cookie that only this page's own requests send; a request that
  changes something must come from this page, and names under which it is asked for are checked, so
  that no other page of the same browser can use it (login.py).
- **It stays usable with ten thousand databases.** The list is kept here, by one watcher of the
  control plane (census.py), in the order of the tree; a browser takes it by pages, draws the rows
  that are in sight, and asks for checkpoints of those alone.
- **What only reads cannot write**: it runs where `app@LSN` leads, as the tools of models do.
"""
