"""The daemon's own page: the site's status and all that has left it, for this machine alone."""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from clients.daemon.status import read_status
from clients.site.model_facts import load_facts
from clients.site.sent_log import (
    REFUSAL,
    budget_text,
    latest_refusal,
    norm_texts,
    utc_now,
    work_texts,
)
from clients.site.site_folder import SiteFolder, state_problem
from f2l_fed.core.addresses import is_host_of
from f2l_fed.core.wording import number_of
from f2l_fed.errors import ConfigError, F2LError, visible

_SHOWN = 30
"""Number of messages in the table."""

_NUMBERS = ("round", "size", "norm")
"""Columns that are set to the right."""

_STYLE = """
:root{--ink:#1a1d21;--soft:#5c6570;--line:#dfe3e8;--back:#fff;--tint:#f5f7f9}
:root{--well:#1a7f4b;--wait:#b26a00;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#9aa4af;--line:#30363d;--back:#14171a;
--tint:#1c2126;--well:#4cc38a;--wait:#f0a840;--bad:#ff7b72}}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:74rem;padding:2rem 1.2rem;
color:var(--ink);background:var(--back)}
h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.1rem;margin:2rem 0 .4rem}
p{margin:.3rem 0;color:var(--soft)}b{font-weight:600}
.running{color:var(--well)}.waiting{color:var(--wait)}.stopped,.problem{color:var(--bad)}
.problem{border-left:4px solid;padding:.4rem .8rem;background:var(--tint);margin:1rem 0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1.5rem;margin:1.2rem 0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
td,th{text-align:left;padding:.3rem 1.2rem .3rem 0;border-bottom:1px solid var(--line);
white-space:nowrap}th{font-weight:600;color:var(--soft)}.n{text-align:right}
.pictures{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0}figcaption{color:var(--soft)}
"""
_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:; "
    "base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def page_html(site_file: Path) -> str:
    """The page as it is now, HTML."""
    site = SiteFolder.read(site_file)
    config, daemon, model = site.config, read_status(site.state), load_facts(site.state)
    entries, today = site.sent.entries(), site.sent.after(utc_now() - timedelta(days=1))
    state, facts, problems = "has never run", [], [state_problem(site.state)]
    if daemon is not None:
        state = f"<b class={escape(daemon.state)}>{escape(daemon.state)}</b>"
        state += f" since {escape(_time(daemon.since))}"
        problems.append(daemon.problem)
        facts += [("restarts", str(daemon.restarts)), ("last end", daemon.last_end or "none")]
    if refusal := latest_refusal(entries):
        problems.append(f"The last message was refused: {refusal.text}. {refusal.remedy}")
    rounds = [entry for entry in entries if entry["kind"] == "update"]
    last = f"{rounds[-1]['round']}, {_time(rounds[-1]['time'])}" if rounds else "none yet"
    facts += [("last round", last)]
    if model is None:
        facts += [("network", "none yet; f2l-site generate gets one")]
    else:
        before, after = model.accuracy_before, model.accuracy
        facts += [
            ("network", f"{model.target} of {model.origin}, {_time(model.time)}"),
            ("accuracy", f"{before:.3f} before, {after:.3f} after"),
        ]
    answers = sum(entry["kind"] != REFUSAL for entry in today)
    facts += [("answers in 24 hours", f"{answers} of {config.policy.answers_per_day} allowed")]
    if budget := site.budget:
        facts += [("privacy budget", budget_text(budget.spent()))]
    total = sum(entry["bytes"] for entry in entries)
    shown = reversed(entries[-_SHOWN:])
    data = "<p><a href=/data>data as they reach the network</a></p>" if config.page_data else ""
    return (
        f"{_head(config.name, '<meta http-equiv=refresh content=10>')}"
        f"<p>{state}, for {escape(config.server.address or 'no server')}</p>"
        + "".join(f"<p class=problem>{escape(problem)}</p>" for problem in problems if problem)
        + "<dl>"
        + "".join(f"<dt>{escape(name)}<dd>{escape(visible(text))}" for name, text in facts)
        + f"</dl>{data}<h2>What has left this site</h2><p>"
        f"{number_of(len(entries), 'message')}, {_size(total)} in all; the latest "
        f"{_SHOWN} are shown, in UTC. f2l-site sent shows the record.</p>"
        f"{_table([_row(entry) for entry in shown])}</html>"
    )


def _head(name: str, more: str = "") -> str:
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(name)}</title>"
        f"<meta name=viewport content='width=device-width'>{more}"
        f"<style>{_STYLE}</style><h1>Site {escape(name)}</h1>"
    )


def _page(site_file: Path, path: str) -> tuple[str, int]:
    """The page at a path, HTML, and the status of the answer."""
    if path == "/":
        return page_html(site_file), 200
    site = SiteFolder.read(site_file)
    if path == "/data" and site.config.page_data:
        # Packages for images and tables, which the daemon needs for this page alone.
        from clients.daemon.data_page import data_html

        return f"{_head(site.config.name)}{data_html(site)}</html>", 200
    return "not found", 404


def _row(entry: Mapping[str, Any]) -> dict[str, str]:
    tensors = [name for record in entry["tensors"].values() for name in record]
    return {
        "time": _time(entry["time"]),
        "kind": entry["kind"],
        "round": str(entry["round"] or ""),
        "code": str(entry["fields"].get("code", "")),
        "size": _size(entry["bytes"]),
        "tensors": ", ".join(tensors[:3]) + (f" and {len(tensors) - 3} more" * (len(tensors) > 3)),
        "norm": ", ".join(norm_texts(entry)),
        "budget": budget_text(entry.get("budget")),
        "work": ", ".join(work_texts(entry.get("work"))),
    }


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
        """The handler of one request for the page."""

        def do_GET(self) -> None:
            hosts = self.headers.get_all("Host", [])
            try:
                # A foreign page must not reach this one by another name of loopback.
                if len(hosts) != 1 or not is_host_of(hosts[0]):
                    text, status = "This page is served to this machine alone.", 421
                else:
                    text, status = _page(site_file, self.path)
            except (F2LError, OSError) as error:
                text, status = escape(str(error)), 500
            body = text.encode()
            self.send_response(status)
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def version_string(self) -> str:
            return "f2l-site"

        def log_message(self, format: str, *args: object) -> None:
            """Writes nothing."""

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


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table of the rows, HTML; empty columns are left out."""
    names = [name for name in (rows[0] if rows else {}) if any(row[name] for row in rows)]

    def line(tag: str, cells: Mapping[str, str]) -> str:
        texts = (
            f"<{tag}{' class=n' * (name in _NUMBERS)}>{escape(cells[name])}</{tag}>"
            for name in names
        )
        return f"<tr>{''.join(texts)}</tr>"

    head = line("th", {name: name for name in names})
    return f"<div class=wide><table>{head}{''.join(line('td', row) for row in rows)}</table></div>"


def _time(text: str) -> str:
    return text[:19].replace("T", " ")


def _size(size_bytes: int) -> str:
    """A size for people.

    >>> _size(999), _size(46391), _size(2 * 10**9)
    ('999 B', '46.4 kB', '2.0 GB')
    """
    size, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB"):
        if size >= 1000:
            size, unit = size / 1000, larger
    return f"{size_bytes} B" if unit == "B" else f"{size:.1f} {unit}"
