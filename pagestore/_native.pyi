"""The native core, as Python sees it. One section a file of native/python."""

class NativeError(Exception):
    """args: (status code of native/core/status.h, text)."""

# --- wal.c

# --- store.c

# --- redo.c

# --- receiver.c
