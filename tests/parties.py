"""A station with keys, its peers, and strangers of every kind, on real sockets."""

from __future__ import annotations

import argparse
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq

from inspector.cli import keygen
from inspector.client.keys import ClientKeys, configure_client
from inspector.config.station_file import Peer, Role, Security
from inspector.wire import keys

ANY = "tcp://127.0.0.1:*"
ROLES: dict[str, tuple[Role, ...]] = {
    "mes": ("listen",),
    "plc": ("trigger",),
    "desk": ("listen", "operate"),
}


def make_keys(folder: Path, name: str, bundle: bool = False) -> tuple[Path, Path]:
    """Secret and public file."""
    keygen.run(
        argparse.Namespace(
            folder=folder,
            name=name,
            bundle=bundle,
            opcua=False,
            console=False,
            host=[],
            user=None,
        )
    )
    return folder / f"{name}.secret", folder / f"{name}.public"


class Parties:
    """Key files of a station, its peers, and one that nobody knows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("station", *ROLES, "stranger"):
            make_keys(folder, name)
        peers = {
            name: Peer(key=keys.load_public_key(folder / f"{name}.public").decode(), roles=roles)
            for name, roles in ROLES.items()
        }
        self.security = Security(secret_key=folder / "station.secret", peers=peers)

    def client_keys(self, name: str, server: str = "station") -> ClientKeys:
        return ClientKeys.load(self.folder / f"{name}.secret", self.folder / f"{server}.public")


@contextlib.contextmanager
def connected(kind: int, address: str, client_keys: ClientKeys | None) -> Iterator[Any]:
    """A client's socket that has begun to connect; a SUB socket wants everything."""
    context = zmq.Context()
    made = context.socket(kind)
    try:
        made.linger, made.sndhwm = 0, 0
        configure_client(made, client_keys)
        made.connect(address)
        if kind == zmq.SUB:
            made.subscribe(b"")
        yield made
    finally:
        made.close()
        context.term()


@contextlib.contextmanager
def plain(address: str) -> Iterator[socket.socket]:
    """A TCP connection to a ZeroMQ address."""
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5.0) as made:
        yield made


def was_cut_off(connection: socket.socket, within_s: float = 5.0) -> bool:
    """The other side ends the connection, whatever it says before."""
    connection.settimeout(within_s)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def wait_until(holds: Any, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Tap:
    """A TCP relay that keeps what the client sends: the wire as a stranger beside it sees it."""

    def __init__(self, address: str) -> None:
        host, port = address.removeprefix("tcp://").rsplit(":", 1)
        self._target = (host, int(port))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self.sent = bytearray()
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        client, _ = self._server.accept()
        station = socket.create_connection(self._target)
        self._ends += [client, station]
        for source, sink, kept in ((client, station, self.sent), (station, client, bytearray())):
            self._threads.append(threading.Thread(target=self._relay, args=(source, sink, kept)))
            self._threads[-1].start()

    @staticmethod
    def _relay(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                kept += data
                sink.sendall(data)

    def close(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in (*self._ends, self._server):
            end.close()
