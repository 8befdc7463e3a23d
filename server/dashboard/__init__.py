"""The dashboard of a federation folder: rounds, releases, events and metrics, read only."""

from server.dashboard.app import create_app, serve_dashboard

__all__ = ["create_app", "serve_dashboard"]
