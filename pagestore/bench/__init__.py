"""``pagestore bench``: how fast it is on this machine, beside what one would use instead.

Problem: a figure means something only next to another one taken by the same hands on the same
machine in the same minutes. So every part measures pagestore and its alternatives in turns, in
one run, and says how often and how long.

Words. A *part* is a subject (``getpage``, ``commit``); a *case* is one question of a part
(16 clients, 1 block); a *system* is who answers (pagestore, plain Postgres). A *row* is one
system's answer to one case: all its repetitions, of which tables show the median and the range.
*Warm-up* rounds are run and thrown away.

It is not a test: nothing here passes or fails, and a target that is missed is shown as missed.
"""
