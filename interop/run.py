#!/usr/bin/env python3
"""Runs the tests that the published vineyard package ships against one kind of daemon.

    run.py --daemon v6d|vineyardd [--group NAME ...] [--v6d BINARY]
           [--junit OUT.xml] [--json OUT.json]
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import csv
import dataclasses
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator

sys.dont_write_bytecode = True  # leave no __pycache__ in the checkout
from daemons import (ETCD, HERE, WORK, Daemon, Etcd, InteropError, Process, interrupted, remove,
                     stopped, tail)

FOLDERS = [f"vineyard/{name}/tests" for name in ("core", "data", "shared_memory", "io")]
DEPLOY = "vineyard/deploy/tests"
SLEEPS = f"{DEPLOY}/test_distributed.py::test_add_remote_placeholder_with_sync"  # for 80 s
LARGE = "vineyard/core/tests/test_rpc_client.py::test_remote_blob_create_and_get_large_object"
CONSISTENCY = "test_data_consistency_between_ipc_and_rpc"
LARGE_COPY = f"{DEPLOY}/test_migration.py::test_migration_large_object"  # of 840 MB
QUIET = "vineyard/core/tests/test_client.py::test_memory_trim"  # reads the machine-wide Shmem
DEATH_LIMIT = 60  # seconds until the others must have noticed that a daemon is gone
TEST_LIMIT = 300  # seconds for one test; the slowest needs 45, or 150 on a busy machine
RUN_LIMIT = 600  # seconds for all tests of a group


@dataclasses.dataclass
class Result:
    """How one test ended, in one run."""

    outcome: str  # passed, failed, error, skipped, xfailed, xpassed, hung, crashed
    reason: str = ""
    note: str = ""


Results = dict  # of test id -> Result, in the order of the run


def make_venv() -> tuple[Path, Path]:
    """Creates the virtual environment if needed; its python and its site-packages."""
    made = subprocess.run([HERE / "venv.sh"], stdout=subprocess.PIPE, text=True, timeout=2500)
    if made.returncode != 0:
        raise InteropError("venv.sh failed, see above")
    python = Path(made.stdout.strip())
    site = python.parent.parent / "lib/python3.11/site-packages"
    check_unmodified(site)
    return python, site


def check_unmodified(site: Path) -> None:
    """The tests must be the very files of the package: compare with its own hashes."""
    checked = 0
    for record in site.glob("vineyard-*.dist-info/RECORD"):
        for name, digest, _ in csv.reader(record.read_text(encoding="utf-8").splitlines()):
            if not digest or not name.startswith((*FOLDERS, DEPLOY, "vineyard/conftest.py")):
                continue
            algorithm, want = digest.split("=", 1)
            have = hashlib.new(algorithm, (site / name).read_bytes()).digest()
            if base64.urlsafe_b64encode(have).rstrip(b"=").decode() != want:
                raise InteropError(f"{site / name} is not the file that the package ships")
            checked += 1
    if checked == 0:
        raise InteropError(f"no test of the vineyard package found in {site}")


@contextlib.contextmanager
def only_run() -> Iterator[None]:
    """One run at a time on this machine: a test reads the machine-wide Shmem."""
    path = Path(tempfile.gettempdir()) / f"v6d-interop.{os.getuid()}.lock"
    with open(path, "w", encoding="utf-8") as lock:
        for waited in range(1800):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waited == 0:
                    print(f"waiting for another run to end ({path})", flush=True)
                time.sleep(1)
        else:
            raise InteropError(f"another run holds {path} for half an hour")
        for comm in Path("/proc").glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):
                if (name := comm.read_text().strip()) in ("vineyardd", "v6d"):
                    print(f"note: {name} is running (pid {comm.parent.name}); "
                          "test_memory_trim reads the machine-wide Shmem")
        yield


def read_record(record: Path) -> Results:
    """What the recorder wrote; a test that only began has the outcome 'running'."""
    results: Results = {}
    if record.exists():
        for line in record.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            result = results.setdefault(entry["id"], Result("running"))
            for field in ("outcome", "reason", "note"):
                setattr(result, field, entry.get(field, getattr(result, field)))
    return results


class Group:
    """Tests that share daemons. This one: one daemon with local metadata."""

    name = "local"
    daemons = 1
    size = "4Gi"
    etcd = False
    quiet = True  # has a test that must run while nothing else does
    tests: list = FOLDERS

    def __init__(self, kind: str, v6d: Path, python: Path, site: Path):
        self.kind, self.python, self.site = kind, python, site
        self.binaries = {"v6d": v6d, "vineyardd": site / "vineyard/bdist/vineyardd"}
        self.binary = self.binaries[kind]
        self.temp = Path(tempfile.mkdtemp(prefix="v6d-interop-"))
        self.log = WORK / f"{kind}.{self.name}.log"
        self.output = WORK / f"{kind}.{self.name}.pytest.txt"
        self.servers: list[Daemon] = []
        self.server_etcd: Etcd | None = None
        self.root, self.path = site, ""  # pytest's root, and where it looks for executables
        self.options: list[str] = []
        self.extra_env: dict[str, str] = {}
        self.seconds = 0.0

    def __enter__(self) -> Group:
        (self.temp / "empty.ini").write_text("[pytest]\n", encoding="utf-8")
        self.output.write_bytes(b"")
        self.log.write_bytes(b"")
        self.stack = contextlib.ExitStack()
        self.stack.callback(remove, self.temp)
        try:
            self.start()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stack.close()

    def kinds(self) -> list[str]:
        """What each daemon is."""
        return [self.kind] * self.daemons

    def start(self) -> None:
        """Starts the daemons, and the etcd they share."""
        url = ""
        if self.etcd:
            self.server_etcd = Etcd(self.temp)
            self.stack.enter_context(stopped(self.server_etcd.process))
            url = self.server_etcd.url
        for number, kind in enumerate(self.kinds()):
            log = self.log if self.daemons == 1 else self.log.with_suffix(f".{number}.log")
            log.write_bytes(b"")
            server = Daemon(kind, self.binaries[kind], self.temp, log, f"v{number}",
                            size=self.size, etcd=url)
            self.servers.append(self.stack.enter_context(stopped(server)))
        if self.servers:
            self.options = [f"--vineyard-ipc-socket={self.servers[0].ipc}",
                            f"--vineyard-endpoint={self.servers[0].endpoint}"]

    def before(self) -> None:
        """The part that needs a quiet machine."""
        if self.quiet:
            began = time.monotonic()
            self.pytest([QUIET], self.options)
            self.seconds += time.monotonic() - began

    def run(self) -> Results:
        """All of it; the results, with the group's name before all but the first group's."""
        began = time.monotonic()
        results = self.body()
        self.seconds += time.monotonic() - began
        if self.name == "local":
            return results
        return {f"{self.name}: {name}": result for name, result in results.items()}

    def body(self) -> Results:
        """Runs the tests; what before() recorded is not run again."""
        return self.pytest(self.tests, self.options)

    def pytest(self, tests: list, options: list, watched: list[Process] | None = None,
               record: str = "record") -> Results:
        """Runs tests, in a fresh session after each that crashes or hangs."""
        path = self.temp / f"{record}.jsonl"
        env = {name: value for name, value in os.environ.items()
               if not name.startswith(("VINEYARD_", "PYTEST_", "PYTHON"))}
        env |= {"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(self.temp),
                "PYTHONPATH": f"{self.root}:{HERE}" if self.root != self.site else str(HERE),
                "V6D_INTEROP_RECORD": str(path)} | self.extra_env
        command = [self.python, "-m", "pytest", "-c", self.temp / "empty.ini",
                   "--rootdir", self.root, "-p", "no:cacheprovider", "-p", "recorder", "-q", "-ra",
                   *options, *(self.root / test for test in tests)]
        watched = self.servers if watched is None else watched
        deadline = time.monotonic() + RUN_LIMIT
        with open(self.output, "ab") as out:
            while True:
                code, cut = self.session(command, env, path, out, watched, deadline)
                results = read_record(path)
                running = [name for name, one in results.items() if one.outcome == "running"]
                if not cut and not running:
                    if code not in (0, 1) or not results:
                        raise InteropError(f"pytest ended with {code}:\n{tail(self.output)}")
                    return results
                gone = [server for server in watched if server.ended() is not None]
                reason = cut or f"the test process ended with {code}"
                with open(path, "a", encoding="utf-8") as lines:
                    for name in running:
                        entry = {"id": name, "outcome": "hung" if cut and not gone else "crashed",
                                 "reason": reason}
                        lines.write(json.dumps(entry) + "\n")
                if not running or gone or time.monotonic() > deadline:
                    log = (gone[0] if gone else self).log
                    print(f"{self.kind}, {self.name}: stopped early: {reason}; its log ends:\n"
                          + tail(log), end="")
                    return read_record(path)

    def session(self, command: list, env: dict, record: Path, output, watched: list[Process],
                deadline: float) -> tuple[int, str]:
        """One pytest session. Returns its exit code, and why it was cut short, if it was."""
        tests = subprocess.Popen(command, cwd=self.temp, env=env, stdin=subprocess.DEVNULL,
                                 stdout=output, stderr=output, start_new_session=True)
        moved, size = time.monotonic(), -1
        try:
            while tests.poll() is None:
                if interrupted.wait(0.1):
                    raise InteropError("interrupted")
                now = time.monotonic()
                if record.exists() and record.stat().st_size != size:
                    moved, size = now, record.stat().st_size
                for server in watched:
                    if server.ended() is not None:
                        return 0, f"the daemon ended with {server.ended()}"
                if now > deadline:
                    return 0, f"all tests took more than {RUN_LIMIT} s"
                if now - moved > TEST_LIMIT:
                    return 0, f"no end after {TEST_LIMIT} s"
            return tests.returncode, ""
        finally:
            with contextlib.suppress(ProcessLookupError):  # with what the tests forked
                os.killpg(tests.pid, signal.SIGKILL)
            tests.wait()


class OnEtcd(Group):
    """The same tests, one daemon with its metadata in etcd."""

    name = "etcd"
    etcd = True


class ShortOnEtcd(OnEtcd):
    """Without the test that takes most of the time: it compares bytes, and has no metadata."""

    def start(self) -> None:
        super().start()
        self.options += ["--deselect", LARGE]


class Distributed(Group):
    """A cluster of as many daemons as the tests have clients."""

    name = "distributed"
    daemons = 4
    size = "512Mi"  # test_connected_vineyardd_out_of_memory fills one
    etcd = True
    quiet = False
    tests = [f"{DEPLOY}/test_distributed.py"]
    deselected: tuple = ("--deselect", SLEEPS)

    def start(self) -> None:
        super().start()
        self.options = [
            "--vineyard-ipc-sockets=" + ",".join(str(server.ipc) for server in self.servers),
            "--vineyard-endpoints=" + ",".join(server.endpoint for server in self.servers),
            f"--vineyard-endpoint={self.servers[0].endpoint}", *self.deselected]


class Sleeping(Distributed):
    """The one of them that sleeps most of the time, in a cluster of its own."""

    name = "sleeping"
    tests = [SLEEPS]
    deselected: tuple = ()


class Failure(Group):
    """Three daemons: objects and names of the first must outlive the two others."""

    name = "failure"
    daemons = 3
    size = "64Mi"
    etcd = True
    quiet = False
    file = f"{DEPLOY}/test_vineyardd_failure.py"

    def part(self, test: str, server: int, when: str) -> Results:
        """One test against one of the daemons, at a stage of the whole."""
        options = [f"--vineyard-endpoint={self.servers[server].endpoint}"]
        results = self.pytest([f"{self.file}::{test}"], options, [self.servers[server]], when)
        return {f"{name} ({when})": result for name, result in results.items()}

    def removed(self, server: int) -> bool:
        """Waits until the others have removed one that was killed."""
        deadline = time.monotonic() + DEATH_LIMIT
        while self.server_etcd.get(f"vineyard/S0000000000000000/instances/i{server}/"):
            if time.monotonic() > deadline:
                return False
            if interrupted.wait(0.5):
                raise InteropError("interrupted")
        return True

    def body(self) -> Results:
        results = self.part("test_put_meta_before_failure", 0, "put on the first of three")
        for server, asked, words in ((2, 1, "on the second, the third"),
                                     (1, 0, "on the first, the second")):
            self.servers[server].kill()
            results |= self.part("test_get_meta_after_failure", asked, f"{words} just killed")
            gone = self.removed(server)
            part = self.part("test_get_meta_after_failure", asked, f"{words} removed")
            if not gone:
                part = {name: Result("failed", f"not removed {DEATH_LIMIT} s after its death")
                        for name in part}
            results |= part
        return results


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two daemons, and which tests they get."""

    words: str  # behind the names of its tests
    kinds: tuple
    flags: tuple = ()  # of those that are v6d
    left_out: tuple = ()


class Pairs(Group):
    """Two daemons: what the first has is migrated to the second, and clients use both.

    Tests with a client of each kind get a socket of the first and an endpoint of the
    second; what they put is persisted, by persisted.py.
    """

    name = "pairs"
    size = "2Gi"
    daemons = 0  # they are started in turn, for each pair
    etcd = True
    quiet = False
    tests = [f"{DEPLOY}/test_migration.py", f"{DEPLOY}/test_distributed.py", "vineyard/data/tests"]
    chosen = ("-k", "test_migration or consistency or different_vineyard_instances",
              "--with-migration", "-p", "persisted")
    # Blobs are never persisted, so that these can only be read where they are put.
    bytes_only = tuple(f"vineyard/data/tests/test_base.py::{CONSISTENCY}[{name}]"
                       for name in ("abcde", "value4"))
    pairs: tuple = (Pair("", ("v6d", "v6d")),
                    Pair(" (over TCP)", ("v6d", "v6d"), ("--peer-ipc=false",)),
                    Pair(" (vineyardd to v6d)", ("vineyardd", "v6d")),
                    Pair(" (v6d to vineyardd)", ("v6d", "vineyardd")))

    def body(self) -> Results:
        results: Results = {}
        for number, pair in enumerate(self.pairs if self.kind == "v6d" else
                                      [Pair("", ("vineyardd", "vineyardd"))]):
            part = self.pair(number, pair)
            results |= {f"{name}{pair.words}": result for name, result in part.items()}
        return results

    def pair(self, number: int, pair: Pair) -> Results:
        """Runs the tests against one pair."""
        with contextlib.ExitStack() as stack:
            servers = []
            for place, kind in enumerate(pair.kinds):
                log = self.log.with_suffix(f".{number}.{place}.log")
                log.write_bytes(b"")
                servers.append(stack.enter_context(stopped(Daemon(
                    kind, self.binaries[kind], self.temp, log, f"p{number}.{place}",
                    size=self.size, etcd=self.server_etcd.url, prefix=f"pair{number}",
                    flags=pair.flags if kind == "v6d" else ()))))
            options = [f"--vineyard-ipc-sockets={','.join(str(one.ipc) for one in servers)}",
                       f"--vineyard-endpoints={','.join(one.endpoint for one in servers)}",
                       f"--vineyard-ipc-socket={servers[0].ipc}",
                       f"--vineyard-endpoint={servers[1].endpoint}", *self.chosen]
            for test in (*pair.left_out, *self.bytes_only):
                options += ["--deselect", test]
            tests = [test for test in self.tests if test not in pair.left_out]
            return self.pytest(tests, options, servers, f"pair{number}")


class ShortPairs(Pairs):
    """Without the largest object, and with both kinds only what migrates."""

    pairs = tuple(dataclasses.replace(pair, left_out=(
        (LARGE_COPY,) if not pair.words else (LARGE_COPY, *Pairs.tests[1:])))
        for pair in Pairs.pairs if not pair.flags)


class MixedDistributed(Distributed):
    """The cluster of the distributed tests, of both kinds."""

    name = "distributed-mixed"

    def kinds(self) -> list[str]:
        return ["v6d", "vineyardd"] * 2


class Launch(Group):
    """The package starts the daemon that it finds in itself, which may be v6d."""

    name = "launch"
    daemons = 0
    quiet = False
    tests = [f"{DEPLOY}/test_local.py", "launch_test.py"]

    def start(self) -> None:
        """Makes a copy of the package, of links, with another vineyardd."""
        self.root = self.temp / "site"
        for folder, _, names in os.walk(self.site / "vineyard"):
            copy = self.root / Path(folder).relative_to(self.site)
            copy.mkdir(parents=True)
            for name in names:
                (copy / name).symlink_to(Path(folder) / name)
        for other in self.site.glob("vineyard[._]*"):
            (self.root / other.name).symlink_to(other)
        (self.root / "launch_test.py").symlink_to(HERE / "launch_test.py")
        found = self.root / "vineyard/bdist/vineyardd"
        found.unlink()
        found.symlink_to(self.binary)
        self.extra_env = {"PATH": f"{found.parent}:{ETCD.parent}:{os.environ['PATH']}",
                          "V6D_INTEROP_EXE": str(self.binary.resolve())}


class Mixed(Group):
    """v6d and vineyardd in one cluster: mixed/mixed.py. Its checks count as tests."""

    name = "mixed"
    daemons = 0
    quiet = False
    arguments: tuple = ()

    def body(self) -> Results:
        command = [self.python, "-W", "ignore", HERE / f"mixed/{self.name}.py",
                   "--v6d", self.binary, *self.arguments]
        output, stderr = WORK / f"{self.name}.txt", WORK / f"{self.name}.stderr.txt"
        with open(output, "wb") as out, open(stderr, "wb") as errors:
            checks = subprocess.Popen(command, cwd=self.temp, stdin=subprocess.DEVNULL, stdout=out,
                                      stderr=errors, env=os.environ | {"TMPDIR": str(self.temp)})
            deadline = time.monotonic() + RUN_LIMIT
            while checks.poll() is None and time.monotonic() < deadline:
                if interrupted.wait(0.1):
                    break
            if checks.poll() is None:
                checks.terminate()  # it ends its daemons
                checks.wait()
        results: Results = {}
        for line in output.read_text(encoding="utf-8").splitlines():
            print(f"  {line}", flush=True)
            word, _, what = line.partition(" ")
            if word == "ok":
                results[what] = Result("passed")
            elif word == "FAIL":
                what, _, reason = what.partition(": line ")
                results[what] = Result("failed", f"line {reason}")
        if checks.returncode not in (0, 1):
            results["all of it"] = Result("crashed", f"{self.name}.py ended with "
                                          f"{checks.returncode}; {tail(stderr, 5)}")
        return results


class Migrate(Mixed):
    """Values, metadata and errors of objects that are migrated: mixed/migrate.py."""

    name = "migrate"


class ShortMixed(Mixed):
    """Without what takes 40 s."""

    arguments = ("--short",)


class ShortMigrate(Migrate):
    """The same."""

    arguments = ("--short",)


GROUPS = {group.name: group for group in (Group, OnEtcd, Distributed, Sleeping, Failure,
                                        Launch, Pairs)}
# With v6d only, as there is one of each kind.
OF_BOTH = {group.name: group for group in (MixedDistributed, Mixed, Migrate)}
SHORT = [Group, ShortOnEtcd, Distributed, Sleeping, Failure, Launch, ShortPairs, ShortMixed,
         ShortMigrate]


def reference_name(name: str) -> str:
    """What a test of v6d's run is called in the reference's."""
    if name.startswith(f"{MixedDistributed.name}: "):
        return name.replace(MixedDistributed.name, Distributed.name, 1)
    if name.startswith(f"{Pairs.name}: "):
        for pair in Pairs.pairs:
            name = name.removesuffix(pair.words)
    return name


def v6d_names(name: str, short: bool) -> list[str]:
    """What a test of the reference's run is called in v6d's, or in the short one."""
    group, _, test = name.partition(": ")
    if group == Distributed.name and not short:
        return [name, f"{MixedDistributed.name}: {test}"]
    if group == Pairs.name:
        return [f"{name}{pair.words}" for pair in (ShortPairs if short else Pairs).pairs
                if not test.startswith(pair.left_out)]
    if group == OnEtcd.name and short and test == LARGE:
        return []
    return [name]


def run(kind: str, v6d: Path, chosen: list | None = None) -> Results:
    """Starts the daemons, runs the tests against them, stops them, prints the totals."""
    python, site = make_venv()
    results: Results = {}
    began = time.monotonic()
    with only_run(), contextlib.ExitStack() as stack:
        groups = []
        for group in chosen or GROUPS.values():
            groups.append(stack.enter_context(group(kind, v6d, python, site)))
            groups[-1].before()
        with ThreadPoolExecutor(len(groups)) as pool:
            try:
                for group, future in [(one, pool.submit(one.run)) for one in groups]:
                    part = future.result()
                    results.update(part)
                    print(f"{kind}, {group.name}: {totals(part)}, in {group.seconds:.0f} s",
                          flush=True)
            except BaseException:
                interrupted.set()
                raise
    print(f"{kind}: {totals(results)}, in {time.monotonic() - began:.0f} s", flush=True)
    return results


def totals(results: Results) -> str:
    """How many tests ended how."""
    outcomes = Counter(result.outcome for result in results.values())
    counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    return f"{counts}, of {len(results)} tests"


def write_junit(results: Results, path: Path) -> None:
    """The results as JUnit XML."""
    suite = ET.Element("testsuite", name="vineyard", tests=str(len(results)))
    for name, result in results.items():
        file, _, test = name.partition("::")
        case = ET.SubElement(suite, "testcase", classname=file, name=test)
        if result.outcome in ("skipped", "xfailed"):
            ET.SubElement(case, "skipped", message=result.reason)
        elif result.outcome != "passed":
            ET.SubElement(case, "failure", type=result.outcome, message=result.reason)
    ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def main() -> int:
    """The command line; 0 when no test failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--daemon", choices=("v6d", "vineyardd"), required=True)
    parser.add_argument("--group", choices=GROUPS | OF_BOTH, action="append",
                        help=f"default: all but those with both kinds: {', '.join(OF_BOTH)}")
    parser.add_argument("--v6d", type=Path, default=HERE.parent / "bin/v6d", metavar="BINARY")
    parser.add_argument("--junit", type=Path, metavar="OUT.xml")
    parser.add_argument("--json", type=Path, metavar="OUT.json")
    args = parser.parse_args()
    chosen = args.group or list(GROUPS)
    if args.daemon != "v6d" and set(chosen) & set(OF_BOTH):
        parser.error(f"{', '.join(OF_BOTH)}: with --daemon v6d only")
    results = run(args.daemon, args.v6d.resolve(), [(GROUPS | OF_BOTH)[name] for name in chosen])
    if args.junit:
        write_junit(results, args.junit)
    if args.json:
        plain = {name: dataclasses.asdict(result) for name, result in results.items()}
        args.json.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    bad = {name: result for name, result in results.items()
           if result.outcome not in ("passed", "skipped")}
    for name, result in bad.items():
        print(f"  {result.outcome}: {name}: {result.reason}")
    return 1 if bad else 0


def guarded(entry) -> int:
    """Runs a main function: TERM cleans up as ctrl-C does, errors are one message."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return entry()
    except (InteropError, subprocess.TimeoutExpired) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(guarded(main))
