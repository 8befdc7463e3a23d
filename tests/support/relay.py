"""A wire between a site and its server that a test can cut and mend."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_POLL_S = 0.05


class Relay:
    """Carries bytes from a port of its own to another one, until it is cut.

    While it is cut no byte passes and no connection ends: what comes waits in the sockets, as it
    would on a network that loses every packet.

    Args:
        target: Port on loopback that it leads to.
        most: Bytes from there after which a connection ends; None for any number.
    """

    def __init__(self, target: int, *, most: int | None = None) -> None:
        self._target, self._most = target, most
        self._whole = threading.Event()
        self._whole.set()
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_POLL_S)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.port: int = self._listener.getsockname()[1]

    def cut(self) -> None:
        """From now on nothing passes."""
        self._whole.clear()

    def mend(self) -> None:
        """Everything passes again, what has waited first."""
        self._whole.set()

    def close(self) -> None:
        """Ends all connections."""
        self._over.set()
        self._whole.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            self._whole.wait()
            with suppress(TimeoutError):
                near, _ = self._listener.accept()
                carrier = threading.Thread(target=self._carry, args=(near,))
                self._threads.append(carrier)
                carrier.start()

    def _carry(self, near: socket.socket) -> None:
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as far:
            other, left = {near: far, far: near}, self._most
            while not self._over.is_set():
                self._whole.wait()
                for side in select.select([near, far], [], [], _POLL_S)[0]:
                    if not self._whole.is_set():
                        break
                    if not (piece := side.recv(2**16)):
                        return
                    if side is far and left is not None:
                        piece, left = piece[:left], left - len(piece)
                    other[side].sendall(piece)
                    if left is not None and left <= 0:
                        return


@contextmanager
def relay(target: int, *, most: int | None = None) -> Iterator[Relay]:
    """A wire to a port until the block ends."""
    wire = Relay(target, most=most)
    try:
        yield wire
    finally:
        wire.close()
