"""A pytest plugin: appends the outcome of each test to a file as it happens.

One JSON object a line, in the file named by V6D_INTEROP_RECORD: {"id", "start"}
when a test begins, {"id", "outcome", "reason"} when it ends, {"id", "note"} for what
pytest only warns of. A test that the file already mentions is left out, so that a
session which crashed or hung can be followed by one that does the rest.
"""

from __future__ import annotations

import json
import os

RECORD = os.environ["V6D_INTEROP_RECORD"]

_current: dict[str, str] = {}


def _write(entry: dict) -> None:
    with open(RECORD, "a", encoding="utf-8") as out:
        out.write(json.dumps(entry) + "\n")


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]


def _reason(report) -> str:
    if isinstance(report.longrepr, tuple):  # a skip: path, line, reason
        return _one_line(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return _one_line(report.longreprtext)
    return _one_line(f"{os.path.basename(crash.path)}:{crash.lineno}: {crash.message}")


def pytest_collection_modifyitems(items) -> None:
    if os.path.exists(RECORD):
        with open(RECORD, encoding="utf-8") as lines:
            seen = {json.loads(line).get("id") for line in lines}
        items[:] = [item for item in items if item.nodeid not in seen]


def pytest_collectreport(report) -> None:
    if report.failed:
        _write({"id": report.nodeid, "outcome": "error", "reason": _reason(report)})


def pytest_runtest_logstart(nodeid: str) -> None:
    _current.clear()
    _write({"id": nodeid, "start": True})


def pytest_runtest_logreport(report) -> None:
    if report.when == "call" and report.passed:
        outcome = "xpassed" if hasattr(report, "wasxfail") else "passed"
        _current.setdefault("outcome", outcome)
    elif report.failed:
        _current["outcome"] = "failed" if report.when == "call" else "error"
        _current["reason"] = _reason(report)
    elif report.skipped:
        _current["outcome"] = "xfailed" if hasattr(report, "wasxfail") else "skipped"
        _current["reason"] = _reason(report)


def pytest_runtest_logfinish(nodeid: str) -> None:
    _write({"id": nodeid, **_current})


def pytest_warning_recorded(warning_message, when: str, nodeid: str) -> None:
    """When a test's thread dies of an exception pytest only warns: note it."""
    if when == "runtest" and "UnhandledThreadException" in warning_message.category.__name__:
        last = str(warning_message.message).strip().splitlines()[-1]
        _write({"id": nodeid, "note": _one_line(f"one of its threads died: {last}")})
