"""Importing pagestore first settles how gRPC treats forks, before any test imports grpc."""

import pagestore as pagestore
