"""What the scripts of this folder share: daemons in clusters, and reports of checks."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np
import pandas as pd
import vineyard

from daemons import WORK, Daemon, Etcd, InteropError, interrupted
from raw import Raw, RawError

SESSION = "S0000000000000000"
DEATH_LIMIT = 60  # seconds until a dead daemon must be gone
SETTLE = 10  # seconds until a change must have come through
NAMES = ("v6d", "vineyardd")
REFERENCE = Path(vineyard.__file__).parent / "bdist/vineyardd"


class Report:
    """Prints the outcome of each check, from any thread."""

    def __init__(self):
        self.failed, self.lock = 0, threading.Lock()
        self.out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # the package's library prints, too

    def line(self, text: str) -> None:
        """One line of output."""
        with self.lock:
            print(" ".join(text.split()), file=self.out, flush=True)

    @contextlib.contextmanager
    def check(self, what: str, quiet: bool = False):
        """One check: any exception is a failure of it, and the run goes on."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the package has its own exceptions
            text = f"{type(error).__name__}: {error}" if str(error) else repr(error)
            line, where = 0, error.__traceback__
            while where:
                if where.tb_frame.f_code.co_filename == sys.modules["__main__"].__file__:
                    line = where.tb_lineno
                where = where.tb_next
            self.line(f"FAIL {what}: line {line}: {text[:600]}")
            self.failed += 1
        else:
            if not quiet:
                self.line(f"ok {what}")


report = Report()
check = report.check


def eventually(true, seconds: float = SETTLE, what: str = "") -> float:
    """Waits until something is so; the seconds it took."""
    began = time.monotonic()
    while True:
        value = true()
        if value:
            return time.monotonic() - began
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not so after {seconds} s: "
                                 f"{what() if callable(what) else what or true}")
        if interrupted.wait(0.02):
            raise InteropError("interrupted")


def fails(code: int, call) -> None:
    """The call must end in an error with this code."""
    try:
        got = call()
    except RawError as error:
        assert error.code == code, f"code {error.code}, not {code}: {error}"
    else:
        raise AssertionError(f"no error, but {got}")


class Side:
    """One daemon with clients of it."""

    def __init__(self, kind: str, pair: Pair, name: str, flags: tuple = ()):
        self.kind, self.pair = kind, pair
        self.daemon = Daemon(kind, pair.binaries[kind], pair.folder,
                             WORK / f"{pair.what}.{pair.prefix}.{name}.log", name, size="256Mi",
                             etcd=pair.etcd.url, prefix=pair.prefix, flags=flags)
        pair.stack.callback(self.daemon.stop)
        self.client = vineyard.connect(str(self.daemon.ipc))
        self.number = self.client.instance_id

    def raw(self) -> Raw:
        """A connection of its own, for requests that the package does not make."""
        return Raw(str(self.daemon.ipc))

    def ask(self, kind: str, **fields) -> dict:
        """One raw request."""
        with self.raw() as raw:
            return raw.ask(kind, **fields)

    def usage(self) -> int:
        """Bytes in use."""
        return self.client.status.memory_usage

    def exists(self, id_) -> bool:
        """Whether it knows an object, after it caught up."""
        return self.ask("exists_request", id=int(id_))["exists"]

    def delete(self, id_, **how) -> None:
        """Deletes what it may know only in a moment. vineyardd passes over, without a word,
        what it has not heard of yet."""
        eventually(lambda: self.exists(id_), what=f"{self.kind} knows {id_}")
        self.client.delete(vineyard.ObjectID(id_), **how)

    def label(self, id_, labels: dict) -> None:
        """Adds labels. vineyardd adds them to what it knows, which need not be the newest."""
        if self.kind == "vineyardd":
            self.client.get_meta(id_, True)
        self.client.label(id_, labels)

    def has_name(self, name: str) -> bool:
        """Whether a name leads anywhere."""
        try:
            self.ask("get_name_request", name=name, wait=False)
        except RawError as error:
            assert error.code == 12, error
            return False
        return True


class Pair:
    """Daemons on one prefix of an etcd: a v6d and a vineyardd, unless told otherwise."""

    def __init__(self, stack: contextlib.ExitStack, etcd: Etcd, v6d: Path, folder: Path,
                 prefix: str, what: str = "mixed"):
        self.stack, self.etcd, self.prefix, self.what = stack, etcd, prefix, what
        self.folder = folder / prefix
        self.folder.mkdir()
        self.binaries = {"v6d": v6d, "vineyardd": REFERENCE}
        self.sides = self.start()

    def start(self) -> dict[str, Side]:
        """Starts the daemons; a name for each."""
        return {kind: Side(kind, self, kind) for kind in NAMES}

    def __getitem__(self, name: str) -> Side:
        return self.sides[name]

    def both(self):
        """Each with the other."""
        one, other = self.sides.values()
        return (one, other), (other, one)

    def keys(self) -> dict[str, str]:
        """The keys of the cluster, without locks."""
        base = f"{self.prefix}/{SESSION}/"
        found = self.etcd.get(base)
        return {key[len(base):]: value for key, value in found.items()
                if not key.startswith(base + "meta_sync_lock")}

    def keys_of(self, id_) -> list[str]:
        """The keys that concern an object."""
        text = hexid(id_)
        return [key for key, value in self.keys().items()
                if text in key or value == str(int(id_)) or value == f'"{text}"']


def hexid(id_) -> str:
    """An object id as keys have it."""
    return f"o{int(id_):016x}"


def make_global(client, members: list):
    """A global object of persisted members, persisted."""
    meta = vineyard.ObjectMeta()
    meta["typename"] = "vineyard::Sequence"
    meta["size_"] = len(members)
    meta.set_global(True)
    for number, member in enumerate(members):
        meta.add_member(f"__elements_-{number}", member)
    meta["__elements_-size"] = len(members)
    made = client.create_metadata(meta)
    client.persist(made)
    return made.id


def same(got, want) -> None:
    """Values are equal."""
    if isinstance(want, pd.DataFrame):
        pd.testing.assert_frame_equal(got, want)
    elif isinstance(want, np.ndarray):
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype, (got.dtype, want.dtype)
    else:
        assert got == want, (got, want)
