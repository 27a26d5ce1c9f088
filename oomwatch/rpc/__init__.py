"""The daemon over gRPC: the service, its bytes, and where it listens."""
