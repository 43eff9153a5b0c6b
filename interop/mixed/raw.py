"""The protocol on the wire, for requests that the package's client does not make."""

from __future__ import annotations

import json
import socket
import struct

ANSWER_LIMIT = 30  # seconds


class RawError(Exception):
    """A reply with a code."""

    def __init__(self, code: int, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code


class Raw:
    """A registered connection."""

    def __init__(self, path: str, v6d: bool = False):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(ANSWER_LIMIT)
        self.socket.connect(path)
        self.ask("register_request", version="0.24.2", store_type=1, session_id=0, username="",
                 password="", support_rpc_compression=False,
                 **({"extensions": ["v6d"]} if v6d else {}))

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def send(self, kind: str, **fields) -> None:
        """Sends a request: eight bytes of length, then JSON."""
        body = json.dumps({"type": kind, **fields}).encode()
        self.socket.sendall(struct.pack("<Q", len(body)) + body)

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise RawError(-1, "the daemon closed the connection")
            data += more
        return data

    def receive(self) -> dict:
        """One reply."""
        reply = json.loads(self.read(struct.unpack("<Q", self.read(8))[0]))
        if reply.get("code"):
            raise RawError(reply["code"], reply.get("message", ""))
        return reply

    def ask(self, kind: str, **fields) -> dict:
        """A request and its reply."""
        self.send(kind, **fields)
        return self.receive()


class Waiting:
    """A request that is not expected to be answered at once."""

    def __init__(self, raw: Raw, kind: str, **fields):
        self.raw, self.reply, self.kind = raw, None, kind
        raw.send(kind, **fields)

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_) -> None:
        pass

    def answered(self, seconds: float) -> bool:
        """Whether the answer has come, waiting for it that long."""
        if self.reply is None:
            self.raw.socket.settimeout(seconds)
            try:
                self.raw.socket.recv(1, socket.MSG_PEEK)
                self.raw.socket.settimeout(ANSWER_LIMIT)
                self.reply = self.raw.receive()
            except TimeoutError:
                pass
            finally:
                self.raw.socket.settimeout(ANSWER_LIMIT)
        return self.reply is not None

    def answer(self) -> dict:
        """The reply."""
        if not self.answered(ANSWER_LIMIT):
            raise RawError(-1, f"{self.kind} was not answered within {ANSWER_LIMIT} s")
        return self.reply
