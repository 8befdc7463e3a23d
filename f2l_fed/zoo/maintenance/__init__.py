"""Maintenance of a zoo: verification, erasure, compaction and replication."""
