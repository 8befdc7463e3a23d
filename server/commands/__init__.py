"""What f2l-admin and f2l-server can do, a file for each group of commands."""
