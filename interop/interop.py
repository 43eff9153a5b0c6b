#!/usr/bin/env python3
"""Compares v6d with the reference daemon by the published package's own tests.

    interop.py once         v6d once: each test of expected_pass.txt must pass
    interop.py reference    the reference three times; --update writes expected_pass.txt
    interop.py full         the reference three times, v6d once, both side by side

once and full also run v6d and the reference in one cluster: the published tests for
several daemons, mixed/mixed.py and mixed/migrate.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # leave no __pycache__ in the checkout
from run import (GROUPS, HERE, OF_BOTH, SHORT, WORK, Migrate, Mixed, Result, Results, guarded,
                 reference_name, run, v6d_names)

EXPECTED = HERE / "expected_pass.txt"
# What the reference passes, by group: see README.md.
MINIMUM = {"local": 173, "etcd": 172, "distributed": 20, "sleeping": 1, "failure": 5, "launch": 9,
           "pairs": 48}
CHECKS = (Mixed.name, Migrate.name)  # groups whose results are checks of ours
REFERENCE_RUNS = 3
MISSING = Result("missing", "did not run")


def read_expected() -> list[str]:
    """The test ids which v6d must pass."""
    names = EXPECTED.read_text(encoding="utf-8").splitlines()
    return [name for name in names if name and not name.startswith("#")]


def group_of(name: str) -> str:
    """The group that a test was run in."""
    group, found, _ = name.partition(": ")
    return group if found and "/" not in group else "local"


def outcomes(runs: list[Results], name: str) -> list[str]:
    """The outcome of one test in each run."""
    return [results.get(name, MISSING).outcome for results in runs]


def reference() -> list[Results]:
    """Runs the reference and names the tests whose outcome differs."""
    runs = [run("vineyardd", Path()) for _ in range(REFERENCE_RUNS)]
    names = list(dict.fromkeys(name for results in runs for name in results))
    flaky = [name for name in names if len(set(outcomes(runs, name))) > 1]
    print(f"{len(flaky)} flaky in {REFERENCE_RUNS} runs of the reference")
    for name in flaky:
        print(f"  {name}: {', '.join(outcomes(runs, name))}")
    return runs


def violations(results: Results, runs: list[Results]) -> list[str]:
    """What v6d owes: all that is expected and all that the reference ever passed."""
    passed_there = dict.fromkeys(read_expected())
    passed_there.update((name, None) for one in runs for name in one
                        if one[name].outcome == "passed")
    found = []
    for name in [ours for theirs in passed_there for ours in v6d_names(theirs, not runs)]:
        result = results.get(name, MISSING)
        if result.outcome != "passed":
            found.append(f"{result.outcome}: {name}: {result.reason}")
        elif result.note and runs and not any(one.get(reference_name(name), MISSING).note
                                              for one in runs):
            found.append(f"passed, unlike the reference with a fault: {name}: {result.note}")
    for name, minimum in MINIMUM.items():
        passed = sum(result.outcome == "passed" for test, result in results.items()
                     if group_of(test) == name)
        if passed < minimum:
            found.append(f"{name}: {passed} passed, at least {minimum} must")
    for group in CHECKS:
        checks = [name for name in results if group_of(name) == group]
        for name in checks:
            if results[name].outcome != "passed":
                found.append(f"{results[name].outcome}: {name}: {results[name].reason}")
        if not checks:
            found.append(f"{group}: no check was made")
    return found


def judge(results: Results, runs: list[Results]) -> int:
    """Prints the verdict on v6d; the exit code."""
    for name, result in results.items():
        if result.note and result.outcome == "passed":
            print(f"note: passed, but {result.note}: {name}")
    skipped: dict[str, int] = {}
    for name, result in results.items():
        if result.outcome == "skipped":
            label = f"{name.partition('[')[0].rpartition('::')[0]}: {result.reason}"
            skipped[label] = skipped.get(label, 0) + 1
    for label, count in skipped.items():
        print(f"note: {count} skipped in {label}")
    found = violations(results, runs)
    for line in found:
        print(f"  {line}")
    print(f"interop: {f'{len(found)} violations' if found else 'ok'}")
    return 1 if found else 0


def side_by_side(results: Results, runs: list[Results]) -> None:
    """Prints one line a test: id, what the reference did, what v6d did."""
    names = dict.fromkeys(name for one in [*runs, results] for name in one
                          if group_of(name) not in CHECKS)
    rows = [("test", "reference", "v6d")]
    for name in names:
        seen = outcomes(runs, reference_name(name))
        told = f"{seen[0]} x{len(seen)}" if len(set(seen)) == 1 else " ".join(seen)
        rows.append((name, told, results.get(name, MISSING).outcome))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    table = "".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {c}\n" for a, b, c in rows)
    (WORK / "compare.txt").write_text(table, encoding="utf-8")
    print(table, end="")
    different = [row for row in rows[1:] if row[1] != f"{row[2]} x{len(runs)}"]
    print(f"{len(different)} tests end differently with the reference and v6d")
    for row in different:
        print(f"  {row[0]}: {row[1]}; v6d: {row[2]}: {results.get(row[0], MISSING).reason}")


def update(runs: list[Results]) -> None:
    """Writes expected_pass.txt: what the reference passed in any of its runs."""
    names = sorted({name for one in runs for name in one if one[name].outcome == "passed"})
    head = "# What vineyardd passes; written by: interop.py reference --update\n"
    EXPECTED.write_text(head + "".join(f"{name}\n" for name in names), encoding="utf-8")
    print(f"{EXPECTED}: {len(names)} tests")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("once", "reference", "full"))
    parser.add_argument("--v6d", type=Path, default=HERE.parent / "bin/v6d", metavar="BINARY")
    parser.add_argument("--update", action="store_true", help="with reference: see above")
    args = parser.parse_args()
    if args.update and args.what != "reference":
        parser.error("--update goes with reference")
    runs = [] if args.what == "once" else reference()
    if args.update:
        update(runs)
    if args.what == "reference":
        return 0
    groups = SHORT if args.what == "once" else [*GROUPS.values(), *OF_BOTH.values()]
    results = run("v6d", args.v6d.resolve(), groups)
    if runs:
        side_by_side(results, runs)
    return judge(results, runs)


if __name__ == "__main__":
    sys.exit(guarded(main))
