"""Starts and stops what the runs need: etcd, v6d, vineyardd."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Iterator

HERE = Path(__file__).resolve().parent
WORK = HERE.parent / ".interop"
ETCD = HERE.parent / ".tools/etcd"

START_LIMIT = 60  # seconds until a daemon must answer
STOP_LIMIT = 10  # seconds between TERM and KILL

interrupted = threading.Event()  # set when the program is told to end: all waiting ends


class InteropError(Exception):
    """The run could not be done, as opposed to: tests failed."""


def tail(path: Path, lines: int = 30) -> str:
    """The end of a text file, indented."""
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    return "".join(f"    {line}\n" for line in text.splitlines()[-lines:])


_given: dict[int, socket.socket] = {}
_giving = threading.Lock()


def free_port() -> int:
    """A TCP port below the ephemeral ones that nobody uses, and not twice the same.

    Until this program ends, others of its kind, which may run at the same time, get
    another one: a socket that is named after the port says that it is taken.
    """
    with _giving:
        for port in range(20000 + os.getpid() % 5000, 32000):
            if port in _given:
                continue
            taken = socket.socket(socket.AF_UNIX)
            try:
                taken.bind(f"\0v6d-interop-port-{port}")
                with socket.socket() as probe:
                    probe.bind(("0.0.0.0", port))
            except OSError:
                taken.close()
                continue
            _given[port] = taken
            return port
    raise InteropError("no free TCP port")


def connects(family: int, address) -> bool:
    """Whether something accepts connections there."""
    with socket.socket(family) as probe:
        probe.settimeout(1)
        return probe.connect_ex(address) == 0


class Process:
    """A process that this program started, and its log."""

    def __init__(self, name: str, command: list, log: Path, env: dict | None = None):
        self.name, self.log = name, log
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=out, env=env)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.popen.pid

    def ended(self) -> int | None:
        """The exit code, once it ended."""
        return self.popen.poll()

    def wait_for(self, ready) -> None:
        """Waits until ready() is true; an error when the process ends or takes too long."""
        deadline = time.monotonic() + START_LIMIT
        while not ready():
            if self.ended() is not None or time.monotonic() > deadline:
                state = "does not answer" if self.ended() is None else f"ended with {self.ended()}"
                self.stop()
                raise InteropError(f"{self.name} {state}; its log ends:\n{tail(self.log)}")
            if interrupted.wait(0.05):
                raise InteropError("interrupted")

    def kill(self) -> None:
        """KILL, and waits."""
        self.popen.kill()
        self.popen.wait()

    def stop(self) -> float:
        """TERM, then KILL; the seconds it took to end."""
        began = time.monotonic()
        if self.ended() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                print(f"{self.name}, pid {self.pid}, ignored TERM for {STOP_LIMIT} s: KILL",
                      flush=True)
                self.kill()
        return time.monotonic() - began


class Etcd:
    """A real etcd of one member, on its own folder and ports."""

    def __init__(self, folder: Path):
        if not ETCD.is_file():
            raise InteropError(f"{ETCD} does not exist: make etcd")
        self.url = f"http://127.0.0.1:{free_port()}"
        peer = f"http://127.0.0.1:{free_port()}"
        self.process = Process("etcd", [
            ETCD, "--data-dir", folder / "etcd", "--unsafe-no-fsync", "--log-level", "error",
            "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"default={peer}"], folder / "etcd.log")
        self.process.wait_for(self._answers)

    def _answers(self) -> bool:
        try:
            self.get("x")
        except OSError:
            return False
        return True

    def call(self, path: str, body: dict, timeout: float = 10) -> dict:
        """One request to the JSON gateway."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return json.load(reply)

    def get(self, prefix: str) -> dict[str, str]:
        """All keys with a prefix and their values."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        reply = self.call("/v3/kv/range", {"key": b64(prefix), "range_end": b64(end)})
        return {unb64(kv["key"]): unb64(kv.get("value", "")) for kv in reply.get("kvs", [])}


def b64(text: str) -> str:
    """Text as the gateway wants it."""
    return base64.b64encode(text.encode()).decode()


def unb64(text: str) -> str:
    """Text as the gateway gives it."""
    return base64.b64decode(text).decode(errors="replace")


class Daemon(Process):
    """v6d or vineyardd."""

    def __init__(self, kind: str, binary: Path, folder: Path, log: Path, name: str = "v", *,
                 size: str = "4Gi", etcd: str = "", prefix: str = "vineyard",
                 flags: tuple = (), started: bool = False):
        """Starts it and waits until it answers, unless it is only to be started."""
        if not binary.is_file():
            raise InteropError(f"{binary} does not exist: build it first, or use --v6d")
        self.kind, self.prefix = kind, prefix
        self.ipc, self.port = folder / f"{name}.sock", free_port()
        self.endpoint = f"127.0.0.1:{self.port}"
        if kind == "v6d":
            command = [binary, "serve", "--socket", self.ipc, "--rpc-listen", self.endpoint,
                       "--size", size + "B", "--meta", "etcd" if etcd else "local"]
            if etcd:
                command += ["--etcd-endpoints", etcd, "--etcd-prefix", prefix]
        else:
            command = [binary, "--socket", self.ipc, "--rpc_socket_port", str(self.port),
                       "--size", size, "--meta", "etcd" if etcd else "local"]
            if etcd:
                command += ["--etcd_endpoint", etcd, "--etcd_prefix", prefix]
        self.seen = log.stat().st_size if log.exists() else 0
        super().__init__(kind, [*command, *flags], log)
        if not started:
            self.wait_for(self.ready)

    def ready(self) -> bool:
        """Whether it answers. vineyardd opens its sockets too early, and dies of a client then."""
        if self.kind == "vineyardd":
            with open(self.log, "rb") as log:
                log.seek(self.seen)
                return f"will listen on 0.0.0.0:{self.port} for RPC".encode() in log.read()
        return (connects(socket.AF_UNIX, str(self.ipc))
                and connects(socket.AF_INET, ("127.0.0.1", self.port)))


@contextlib.contextmanager
def stopped(process: Process) -> Iterator[Process]:
    """Stops the process in the end."""
    try:
        yield process
    finally:
        process.stop()


def remove(folder: Path) -> None:
    """Removes a temporary folder, and the pools of daemons that were killed in it."""
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        place = line.split()[1]
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", place], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)
