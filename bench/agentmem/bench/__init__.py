"""Measuring: a load generator for any gRPC server, and the suite for this one."""
