"""The suite: what memory operations, searches, concurrency and replication cost, and the report of it."""
