"""The supervision of a central service: its parts, its child processes, and their readiness."""
