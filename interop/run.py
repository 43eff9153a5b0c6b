#!/usr/bin/env python3
"""Runs the tests that the published vineyard package ships against one daemon.

    run.py --daemon v6d|vineyardd [--v6d BINARY] [--junit OUT.xml] [--json OUT.json]
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
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Iterator

HERE = Path(__file__).resolve().parent
WORK = HERE.parent / ".interop"
FOLDERS = [f"vineyard/{name}/tests" for name in ("core", "data", "shared_memory", "io")]

START_LIMIT = 30  # seconds until the daemon must answer
STOP_LIMIT = 10  # seconds between TERM and KILL
TEST_LIMIT = 180  # seconds for one test; the reference needs 50 for its slowest
RUN_LIMIT = 600  # seconds for all tests


class InteropError(Exception):
    """The run could not be done, as opposed to: tests failed."""


@dataclasses.dataclass
class Result:
    """How one test ended, in one run."""

    outcome: str  # passed, failed, error, skipped, xfailed, xpassed, hung, crashed
    reason: str = ""
    note: str = ""


Results = dict  # of test id -> Result, in the order of the run


def tail(path: Path, lines: int = 30) -> str:
    """The end of a text file, indented."""
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    return "".join(f"    {line}\n" for line in text.splitlines()[-lines:])


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
            if not digest or not name.startswith((*FOLDERS, "vineyard/conftest.py")):
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


def connects(family: int, address) -> bool:
    """Whether something accepts connections there."""
    with socket.socket(family) as probe:
        probe.settimeout(1)
        return probe.connect_ex(address) == 0


def stop(process: subprocess.Popen) -> None:
    """TERM, then KILL, to a process that this program started."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            print(f"pid {process.pid} ignored TERM for {STOP_LIMIT} s: KILL", flush=True)
            process.kill()
            process.wait()


@contextlib.contextmanager
def daemon(kind: str, v6d: Path, site: Path, ipc: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """Starts the daemon, yields it and its RPC port once it answers, stops it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if kind == "v6d":
        if not v6d.is_file():
            raise InteropError(f"{v6d} does not exist: build it first, or use --v6d")
        command = [v6d, "serve", "--socket", ipc, "--rpc-listen", f"127.0.0.1:{port}",
                   "--size", "4GiB", "--meta", "local"]
    else:
        command = [site / "vineyard/bdist/vineyardd", "--socket", ipc,
                   "--rpc_socket_port", str(port), "--size", "4Gi", "--meta", "local"]
    log = WORK / f"{kind}.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + START_LIMIT
        while not (connects(socket.AF_UNIX, str(ipc))
                   and connects(socket.AF_INET, ("127.0.0.1", port))):
            if process.poll() is not None or time.monotonic() > deadline:
                state = "does not answer" if process.returncode is None else (
                    f"ended with {process.returncode}")
                raise InteropError(f"{kind} {state}; its log ends:\n{tail(log)}")
            time.sleep(0.05)
        yield process, port
    finally:
        stop(process)


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


def pytest_session(command: list, env: dict, temp: Path, record: Path, output,
                   server: subprocess.Popen, deadline: float) -> tuple[int, str]:
    """One pytest session. Returns its exit code, and why it was cut short, if it was."""
    tests = subprocess.Popen(command, cwd=temp, env=env, stdin=subprocess.DEVNULL,
                             stdout=output, stderr=output, start_new_session=True)
    moved, size = time.monotonic(), -1
    try:
        while tests.poll() is None:
            time.sleep(0.1)
            now = time.monotonic()
            if record.exists() and record.stat().st_size != size:
                moved, size = now, record.stat().st_size
            if server.poll() is not None:
                return 0, f"the daemon ended with {server.returncode}"
            if now > deadline:
                return 0, f"all tests took more than {RUN_LIMIT} s"
            if now - moved > TEST_LIMIT:
                return 0, f"no end after {TEST_LIMIT} s"
        return tests.returncode, ""
    finally:
        with contextlib.suppress(ProcessLookupError):  # with what the tests forked
            os.killpg(tests.pid, signal.SIGKILL)
        tests.wait()


def run_tests(kind: str, python: Path, site: Path, temp: Path, ipc: Path, port: int,
              server: subprocess.Popen) -> Results:
    """Runs all tests, in a fresh session after each that crashes or hangs."""
    record, output = temp / "record.jsonl", WORK / f"{kind}.pytest.txt"
    (temp / "empty.ini").write_text("[pytest]\n", encoding="utf-8")
    env = {name: value for name, value in os.environ.items()
           if not name.startswith(("VINEYARD_", "PYTEST_", "PYTHON"))}
    env |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(HERE), "TMPDIR": str(temp),
            "V6D_INTEROP_RECORD": str(record)}
    command = [python, "-m", "pytest", "-c", temp / "empty.ini", "--rootdir", site,
               "-p", "no:cacheprovider", "-p", "recorder", "-q", "-ra",
               f"--vineyard-ipc-socket={ipc}", f"--vineyard-endpoint=127.0.0.1:{port}",
               *(site / folder for folder in FOLDERS)]
    deadline = time.monotonic() + RUN_LIMIT
    with open(output, "wb") as out:
        while True:
            code, cut = pytest_session(command, env, temp, record, out, server, deadline)
            results = read_record(record)
            running = [name for name, one in results.items() if one.outcome == "running"]
            if not cut and not running:
                if code not in (0, 1) or not results:
                    raise InteropError(f"pytest ended with {code}:\n{tail(output)}")
                return results
            outcome = "hung" if cut and server.poll() is None else "crashed"
            reason = cut or f"the test process ended with {code}"
            with open(record, "a", encoding="utf-8") as lines:
                for name in running:
                    entry = {"id": name, "outcome": outcome, "reason": reason}
                    lines.write(json.dumps(entry) + "\n")
            if not running or server.poll() is not None or time.monotonic() > deadline:
                print(f"{kind}: stopped early: {reason}; its log ends:\n"
                      + tail(WORK / f"{kind}.log"), end="")
                return read_record(record)


def run(kind: str, v6d: Path) -> Results:
    """Starts one daemon, runs the tests against it, stops it, prints the totals."""
    python, site = make_venv()
    with only_run():
        temp = Path(tempfile.mkdtemp(prefix="v6d-interop-"))
        began = time.monotonic()
        try:
            with daemon(kind, v6d, site, temp / "v.sock") as (server, port):
                results = run_tests(kind, python, site, temp, temp / "v.sock", port, server)
        finally:
            shutil.rmtree(temp, ignore_errors=True)
    totals = Counter(result.outcome for result in results.values())
    counts = ", ".join(f"{count} {outcome}" for outcome, count in totals.most_common())
    print(f"{kind}: {counts}, of {len(results)} tests, in {time.monotonic() - began:.0f} s",
          flush=True)
    return results


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
    parser.add_argument("--v6d", type=Path, default=HERE.parent / "bin/v6d", metavar="BINARY")
    parser.add_argument("--junit", type=Path, metavar="OUT.xml")
    parser.add_argument("--json", type=Path, metavar="OUT.json")
    args = parser.parse_args()
    results = run(args.daemon, args.v6d.resolve())
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
