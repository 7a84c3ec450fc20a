"""A load generator for the calls of any gRPC server, with the options and the report of ghz."""
