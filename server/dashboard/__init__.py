"""The live page of a federation folder: rounds, releases, events, metrics. It only reads."""

from server.dashboard.app import create_app, serve_dashboard

__all__ = ["create_app", "serve_dashboard"]
