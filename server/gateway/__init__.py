"""The TLS gateway for sites: authentication, routes, and the proxy before the SuperLink."""
