"""Files of pagestore's own as text: for whoever stands before one that is damaged, lost or odd.

Nothing here needs a part to run, takes a lock, or writes. A file is told by what it begins with,
never by its name alone, so that what was moved to ``lost+found`` is known there too. Passwords and
what a tenant wrote are not shown, but for sizes.
"""
