"""Source distributions of the flow, one file each."""
