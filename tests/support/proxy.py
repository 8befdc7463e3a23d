"""An HTTP proxy of a closed network: it connects to one host, whose name it alone knows."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType


class ConnectProxy:
    """A proxy on loopback that notes every request.

    Args:
        name: The name that it leads to a port of loopback.
        port: That port.
    """

    def __init__(self, name: str, port: int) -> None:
        self._target = {name: port}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[str] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> ConnectProxy:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (more := near.recv(4096)):
                    return
                head += more
            self.requests.append(head.decode())
            method, place = head.split()[:2]
            port = self._target.get(place.decode().rpartition(":")[0])
            if method != b"CONNECT" or port is None:
                near.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", port)) as far:
                near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=_carry, args=(far, near), daemon=True)
                back.start()
                _carry(near, far)
                back.join()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
