"""Large matrices of records, in memory or on a disk, a block of columns at a time."""
