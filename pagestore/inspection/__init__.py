"""Files of pagestore's own as text: for whoever stands before one that is damaged, lost or odd.

Nothing here needs a part to run, takes a lock, or writes. A file is told by what it begins with,
and by its name and place where it has no head; what was moved to ``lost+found`` is known there too.
Secrets and what a tenant wrote are not shown, but for sizes.
"""
