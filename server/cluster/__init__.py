"""The Ray cluster: the compute backend, its tasks and jobs, and the training of the flow."""
