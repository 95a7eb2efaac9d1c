"""pagestore for models: the tools of ``pagestore mcp``, by the Model Context Protocol.

Ten tools, thin over :mod:`pagestore.sdk` (tools.py). What holds for all of them:

- **What only reads cannot write**, whatever SQL it is given: it runs on a read-only server that
  stands at one LSN (``app@0/16B3748``), which is a branch that is thrown away; since others read
  there too, in a read-only transaction besides. What has to be carried out to be looked at (EXPLAIN
  ANALYZE) runs on a branch of its own, which is removed afterwards. No SQL is ever parsed here.
- **Answers are bounded**, in rows and in bytes (sql.py). What reads at an LSN can be read on: the
  same call with its continuation goes on at the same LSN, so that pages of one answer are of one
  moment.
- **What is lost with a database is asked for** before it is done (asking.py), unless the database
  goes by itself anyway, or whoever started the server said ``--yes``.
- **No password reaches the model**, in no URL and no error, unless ``--with-urls`` was said.
- **A failure is an answer**: a tool error with the `reason` and the `hint` that every client gets.
"""
