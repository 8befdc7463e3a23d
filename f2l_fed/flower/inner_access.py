"""The names by which processes of one user find the interfaces that are closed to all others."""

SOCKET = "F2L_RUNTIME_SOCKET"
"""Environment variable: the Unix socket of a SuperNode, whatever its address says."""

SECRET_FILE = "F2L_LINK_SECRET_FILE"
"""Environment variable: the file that holds the secret of the SuperLink."""

SECRET_HEADER = "x-f2l-secret"
"""Header of the requests that need the secret."""

STARTING = "F2L_TASK_STARTING"
"""Environment variable: the open file that a task's process closes once it is able to begin."""
