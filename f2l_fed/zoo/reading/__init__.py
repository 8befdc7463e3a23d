"""Reading a zoo: snapshots, queries, rows, and batches for training."""
