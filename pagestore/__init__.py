"""pagestore: databases as cheap as files, on stock Postgres."""

import os

# gRPC's fork handlers run in the child between fork and exec, and now and then break it (seen
# as programs that fail at once with "epoll_wait error"). We fork only to exec another program.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
