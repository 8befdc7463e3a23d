"""The daemon's own page: what the site is and what has left it, for this machine alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from clients.model import load_model
from clients.policy import budget_of, norms_of
from clients.site import budget, read_config, sent_log
from f2l_fed.errors import ConfigError, F2LError

_SHOWN = 30
_STYLE = """body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}
table{border-collapse:collapse}td,th{text-align:left;padding:.2rem 1rem .2rem 0}
th{font-weight:600}h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
@media (prefers-color-scheme:dark){body{background:#111;color:#ddd}}"""
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


def page_of(site_file: Path) -> str:
    """The page as it is now, HTML."""
    from clients.daemon import read_status

    config = read_config(site_file)
    state = site_file.parent / config.state
    daemon, model, entries = read_status(state), load_model(state), sent_log(state).entries()
    facts = [("site", config.name), ("server", config.server.address)]
    if daemon is not None:
        facts += [("daemon", f"{daemon.state} since {daemon.since}")]
        facts += [("restarts", str(daemon.restarts)), ("last end", daemon.last_end or "none")]
    if model is not None:
        one = model.facts
        facts += [("network", f"{one.target}, round {one.round}, {one.time}")]
        facts += [("accuracy", f"{one.accuracy_before:.3f} before, {one.accuracy:.3f} after")]
    if own := budget(config, state):
        facts += [("privacy budget", budget_of({"budget": own.spent()}))]
    total = sum(entry["bytes"] for entry in entries)
    rows = [
        (
            entry["time"][:19],
            entry["kind"],
            str(entry["round"] or ""),
            str(entry["bytes"]),
            ", ".join(name for tensors in entry["tensors"].values() for name in tensors),
            ", ".join(norms_of(entry)),
            budget_of(entry),
            str(entry["fields"].get("code", "")),
        )
        for entry in reversed(entries[-_SHOWN:])
    ]
    heads = ("time (UTC)", "kind", "round", "bytes", "tensors", "norm", "budget", "code")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(config.name)}</title>"
        f"<meta name=viewport content='width=device-width'><meta http-equiv=refresh content=10>"
        f"<style>{_STYLE}</style><h1>Site {escape(config.name)}</h1>{_table(facts)}"
        f"<h2>What has left: {len(entries)} messages, {total} bytes</h2>"
        f"{_table(rows, heads)}</html>"
    )


@contextmanager
def serving_page(site_file: Path, port: int) -> Iterator[None]:
    """Serves the page on loopback until the block ends; port 0 serves nothing.

    Raises:
        ConfigError: If the port can't be listened on.
    """
    if not port:
        yield
        return

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            # A page of somewhere else must not reach this one by another name of loopback.
            known = self.path == "/" and host in ("127.0.0.1", "localhost")
            try:
                text = page_of(site_file) if known else "not found"
                status = 200 if known else 404
            except (F2LError, OSError) as error:
                text, status = escape(str(error)), 500
            body = text.encode()
            self.send_response(status)
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    Handler.timeout = 5
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise ConfigError(
            "the page can't be served",
            where="page",
            got=f"127.0.0.1:{port}: {error.strerror}",
            remedy="Choose another port, or 0 for none.",
        ) from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _table(rows: Sequence[tuple[str, ...]], heads: tuple[str, ...] = ()) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
