"""Fixed-grid solvers of the flow's ordinary differential equation, one file each."""
