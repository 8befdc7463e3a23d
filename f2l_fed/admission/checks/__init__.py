"""The checks of a submission: generators of findings, from cheap to costly."""
