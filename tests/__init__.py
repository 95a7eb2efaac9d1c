"""The tests. pagestore comes first: it has a say in how gRPC is set up."""

import pagestore  # noqa: F401
