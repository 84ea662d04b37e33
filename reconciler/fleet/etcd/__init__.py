"""The store over etcd's own interface (version 3), by gRPC."""
