"""An S3 server on loopback: moto's, in a process of its own.

moto looks whether an object is there and writes it in two steps; a real object store does both at
once, so writes pass through here one at a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.waiting import PATIENCE_S

BUCKET = "bucket"


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Yields the environment in which ``s3://bucket/…`` works."""
    command = [sys.executable, "-m", "tests.support.s3_server"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
            urllib.request.urlopen(
                urllib.request.Request(
                    f"{endpoint}/{BUCKET}", method="PUT", headers={"Authorization": _SIGNED}
                ),
                timeout=PATIENCE_S,
            ).close()
            yield {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ALLOW_HTTP": "true",
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
            }
        finally:
            process.kill()


_SIGNED = (
    "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request,"
    " SignedHeaders=host, Signature=none"
)


def _serve() -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    app = DomainDispatcherApplication(create_backend_app)
    writing = threading.Lock()
    parent = os.getppid()

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *args: Any) -> None:
            pass

    def one_write_at_a_time(environ: Any, start: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "PUT":
            return app(environ, start)
        with writing:
            return app(environ, start)

    server = make_server("127.0.0.1", 0, one_write_at_a_time, threaded=True, request_handler=Quiet)
    server.timeout = 1
    print(server.port, flush=True)
    # A test run that was killed shall not leave a server behind.
    while os.getppid() == parent:
        server.handle_request()


if __name__ == "__main__":
    _serve()
