#!/usr/bin/env python3
"""Brings objects from one daemon to another, each kind to each: values, metadata, errors.

    migrate.py [--short] [--v6d BINARY]

What vineyardd does when it pulls from vineyardd is found out first; v6d must do the same,
but for what DIFFERENT tells. Prints a line for each check, "ok WHAT" or "FAIL WHAT: WHY";
exits with 1 when any failed. Needs the vineyard package: run it with the python that
interop/venv.sh prints.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pickle
import re
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np
import pandas as pd
import pyarrow as pa
import vineyard

from daemons import HERE, WORK, Etcd, InteropError, interrupted, remove, stopped
from pairs import (DEATH_LIMIT, Pair, Side, check, eventually, fails, hexid, make_global, report)
from raw import Raw, RawError

ROUTES = {  # from, to, flags of a v6d
    "vineyardd to vineyardd": ("vineyardd", "vineyardd", ()),
    "v6d to v6d": ("v6d", "v6d", ()),
    "v6d to v6d over TCP": ("v6d", "v6d", ("--peer-ipc=false",)),
    "v6d to vineyardd": ("v6d", "vineyardd", ()),
    "vineyardd to v6d": ("vineyardd", "v6d", ()),
}
REFERENCE_ROUTE = "vineyardd to vineyardd"


class Route(Pair):
    """Two daemons; the second brings objects of the first to itself."""

    def __init__(self, stack, etcd: Etcd, v6d: Path, folder: Path, name: str, prefix: str,
                 extra: tuple = ()):
        self.name, self.extra = name, extra
        super().__init__(stack, etcd, v6d, folder, prefix, "migrate")

    def start(self) -> dict[str, Side]:
        """Starts the daemons."""
        origin, target, flags = ROUTES[self.name]
        sides = {}
        for label, kind in (("origin", origin), ("target", target)):
            sides[label] = Side(kind, self, label, (*(flags if kind == "v6d" else ()), *self.extra))
        return sides


def own(value):
    """A copy of what was read from a pool. The package changes some types when it reads."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, (tuple, list)):
        return type(value)(map(own, value))
    if isinstance(value, dict):
        return {key: own(one) for key, one in value.items()}
    return pickle.loads(pickle.dumps(value))


def same(got, want) -> None:
    """Values are equal, and of the same types."""
    got = bytes(got) if isinstance(got, memoryview) else got
    assert isinstance(got, type(want)), (type(got), type(want))
    if isinstance(want, pd.DataFrame):
        pd.testing.assert_frame_equal(got, want)
    elif isinstance(want, pd.Series):
        pd.testing.assert_series_equal(got, want)
    elif isinstance(want, np.ndarray):
        np.testing.assert_array_equal(got, want)
        assert (got.dtype, got.shape) == (want.dtype, want.shape), (got.dtype, got.shape)
    elif isinstance(want, (tuple, list)):
        assert len(got) == len(want), (len(got), len(want))
        for one, other in zip(got, want):
            same(one, other)
    elif isinstance(want, dict):
        assert list(got) == list(want), (list(got), list(want))
        for key, value in want.items():
            same(got[key], value)
    elif isinstance(want, (pa.Table, pa.RecordBatch)):
        assert got.equals(want, check_metadata=True), (got, want)
        got.validate(full=True)
    elif isinstance(want, (pa.Array, pa.ChunkedArray)):
        assert got.equals(want), (got, want)
        got.validate(full=True)
    elif isinstance(want, (vineyard.Object, vineyard.Blob)):
        raise AssertionError(f"nothing knows how to read {want}")
    else:
        assert got == want, (got, want)


def samples() -> dict:
    """Values of all sorts."""
    noise = np.random.default_rng(7)
    frame = pd.DataFrame({"a": np.arange(500), "b": np.arange(500) / 7, "c": ["x", "yz"] * 250})
    columns = {"n": pa.array([1, None, 3] * 50), "s": pa.array(["x", None, "é😀"] * 50),
               "f": pa.array([0.5, 1.5, None] * 50), "b": pa.array([True, None, False] * 50),
               "l": pa.array([[1, 2], None, []] * 50, pa.large_list(pa.int64()))}
    found = {f"array of {name}": (np.arange(-3, 60) * 3).astype(name) for name in
             ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
              "float32", "float64")}
    return found | {
        "array of 0 rows": np.zeros((0, 3)), "array of nothing": np.zeros(0, "int32"),
        "array of no dimension": np.array(42.5),
        "array of five dimensions": np.ones((1, 2, 3, 4, 5)),
        "array in Fortran's order": np.asfortranarray(noise.random((10, 7))),
        "array of strings": np.array(["", "x", "é😀", "uvw"]),
        "array of objects": np.array([1, "x", 3.14, (1, 4), None], dtype=object),
        "noise of 6 MB": noise.integers(0, 2**63, 750001), "zeros of 20 MB": np.zeros(2500000),
        "int": 7, "negative int": -2**40, "float": 1.25, "bool": True, "none": None,
        "empty string": "", "string": "é😀" * 1000, "string of 900 KB": "abc" * 300000,
        "tuple": (1, "two", 3.5, None, (b"", b"bytes", (np.arange(3), ("deep",)))),
        "list": [1, [2, ["3", np.arange(4)]], ()],
        "dict": {"a": 1, "b": {"c": [np.ones(2), "x"], 5: None}, 2: "two"},
        "empty tuple": (), "empty dict": {},
        "tuple of 200 arrays": tuple(np.full(number, number) for number in range(200)),
        "tuple that has an object twice": (np.arange(9),) * 2,
        "data frame": frame, "data frame with an index of strings":
        frame.head(40).set_index(pd.Index([f"row {n}" for n in range(40)], name="label")),
        "data frame with an index of times":
        frame.head(40).set_index(pd.date_range("2020-01-31", periods=40, name="when")),
        "data frame of no rows": frame.head(0), "data frame of nothing": pd.DataFrame(),
        "series": pd.Series([1, 3, np.nan, 6], name="foo", index=[3, 1, 2, 0]),
        "Arrow table": pa.table(columns), "Arrow table in pieces":
        pa.Table.from_batches([pa.record_batch(columns).slice(0, 40),
                               pa.record_batch(columns).slice(40, 70)]),
        "Arrow batch": pa.record_batch(columns), "Arrow integers": columns["n"],
        "Arrow strings": columns["s"], "Arrow bools": columns["b"],
        "Arrow nulls": pa.nulls(9), "Arrow chunks": pa.chunked_array([[1, None], [3]]),
    }


def values(route: Route, how: str) -> None:
    """Values are the same on the other side, and need the first no more."""
    origin, target = route["origin"], route["target"]
    start = origin.usage(), target.usage()
    failed, count = 0, 0
    for what, value in samples().items():
        count += 1
        failed += 1
        with check(f"{how}: {what}", quiet=True):
            ids = [origin.client.put(value, persist=True) for _ in range(2)]
            want = own(origin.client.get(ids[0]))
            target.client.sync_meta()
            moved = target.client.migrate(ids[0])
            assert moved != ids[0]
            same(target.client.get(moved), want)
            same(target.client.get(ids[1], fetch=True), want)
            fetched = target.client.migrate(ids[1])
            for id_ in (moved, fetched):
                meta = target.client.get_meta(id_, True)
                assert meta.instance_id == target.number and meta.islocal, meta.instance_id
            for id_ in ids:
                origin.delete(id_)
                eventually(lambda: not target.exists(id_))  # pylint: disable=cell-var-from-loop
            same(target.client.get(moved), want)
            same(target.client.get(fetched), want)
            for id_ in (moved, fetched):
                target.delete(id_)
            failed -= 1
    if not failed:
        report.line(f"ok {how}: {count} values, by migrate and by get")
    with check(f"{how}: memory is free and etcd clean in the end"):
        eventually(lambda: (origin.usage(), target.usage()) == start,
                   what=lambda: f"{start}, not {(origin.usage(), target.usage())}")
        left = [key for key in route.keys() if key.startswith(("data/", "signatures/"))]
        assert not left, left


# What the pulling daemon answers.


def request(side: Side, id_, known: dict, other=lambda _: "a new object") -> str:
    """What a bare request to migrate leads to."""
    try:
        made = side.ask("migrate_object_request", object_id=int(id_))["object_id"]
    except RawError as error:
        return f"code {error.code}"
    return known.get(made) or other(made)


def call(function, *args, known: dict, **kwargs) -> str:
    """What a call of the package's leads to."""
    try:
        got = function(*args, **kwargs)
    except Exception as error:  # pylint: disable=broad-except
        return type(error).__name__
    return known.get(int(got), "a new object") if isinstance(got, vineyard.ObjectID) else "a value"


def answers(route: Route) -> dict:
    """Objects that cannot be brought, or need not be; each asked for in four ways."""
    origin, target = route["origin"], route["target"]
    remote = vineyard.connect(endpoint=("127.0.0.1", str(target.daemon.port)))
    theirs = origin.client.put(np.arange(5), persist=True)
    frame = origin.client.put(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), persist=True)
    mine = target.client.put(np.arange(6), persist=True)
    gone = origin.client.put(np.arange(7), persist=True)
    eventually(lambda: target.exists(gone))
    origin.delete(gone)
    eventually(lambda: not target.exists(gone))
    tree = origin.ask("get_data_request", id=[int(theirs)])["content"][hexid(theirs)]
    made_up = origin.ask("create_data_request", content={
        "typename": "migrate::Foreign", "instance_id": 77, "x": 1})["id"]
    origin.ask("persist_request", id=made_up)
    subjects = {
        "an unknown id": 0x0068820000000001, "0": 0, "2^64-1": 2**64 - 1,
        "a deleted object": gone,
        "a transient object of the origin": origin.client.put(np.arange(8)),
        "a transient object of the target": target.client.put(np.arange(9)),
        "an object of the target": mine,
        "a blob of the origin": int(tree["buffer_"]["id"][1:], 16),
        "bytes of the origin": origin.client.put(b"x" * 100),
        "bytes of the target": target.client.put(b"x" * 100),
        "the empty blob": 1 << 63, "an unknown blob": (1 << 63) + 12345,
        "a global object of the origin": make_global(origin.client, [theirs]),
        "a global object of the target": make_global(target.client, [theirs, mine]),
        "an object of an instance that never was": made_up,
    }
    found = {}
    for what, id_ in subjects.items():
        object_id, known = vineyard.ObjectID(int(id_)), {int(id_): "the same"}
        found[what] = (request(target, id_, known),
                       call(target.client.migrate, object_id, known=known),
                       call(target.client.get, object_id, fetch=True, known=known),
                       call(remote.migrate, object_id, known=known))
    return found


def tree(side: Side, id_) -> dict:
    """An object's metadata with all members."""
    content = side.ask("get_data_request", id=[int(id_)], sync_remote=True)["content"]
    return (content or {}).get(hexid(id_))


def parts(whole: dict, label: str) -> dict[str, str]:
    """What to call the ids and signatures of an object and its members."""
    found = {whole["id"]: label}
    if "signature" in whole:
        found[str(whole["signature"])] = f"signature({label.split('.', 1)[-1]})"
        found[f"s{whole['signature']:016x}"] = f"signature({label.split('.', 1)[-1]})"
    for name, member in whole.items():
        if isinstance(member, dict):
            found = parts(member, f"{label}.{name}") | found
    return found


def renamed(text: str, words: dict[str, str]):
    """A key or a value of etcd with ids replaced by what they mean, without the times."""
    text = re.sub(r'"__timestamp":\d+,', "", text).replace("o8000000000000000", "empty")
    text = re.sub(r'"signature":(\d+)', r'"signature":"\1"', text)
    text = re.sub(r'(?<=["/l])[os][0-9a-f]{16}|(?<="signature":")\d+',
                  lambda found: words.get(found[0], found[0]), text)
    return json.loads(text) if text.startswith("{") else text


def plain(whole: dict, words: dict[str, str]) -> dict:
    """Metadata to compare that of two objects with each other."""
    return {name: plain(value, words) if isinstance(value, dict) else
            words.get(str(value), value) if name == "signature" else value
            for name, value in sorted(whole.items()) if name not in ("id", "__timestamp")}


def prepared(origin: Side) -> dict:
    """Objects whose metadata have something to lose."""
    client = origin.client
    found = {"array": client.put(np.arange(4), persist=True),
             "empty array": client.put(np.zeros((0, 3)), persist=True),
             "data frame": client.put(pd.DataFrame({"a": [1, 2], "s": ["x", None]}), persist=True),
             "tuple": client.put((1, ("two", np.ones(2)), 3.5), persist=True),
             "int": client.put(42, persist=True),
             "array twice in a tuple": client.put((np.arange(3),) * 2, persist=True),
             "named": client.put(np.arange(5), persist=True, name=f"named {origin.number}"),
             "labelled": client.put(np.arange(6), persist=True),
             "labelled and named before it was persisted": client.put(np.arange(7)),
             "named twice": client.put(np.arange(8), persist=True, name="first name")}
    client.put_name(found["named twice"], "second name")
    origin.label(found["labelled"], {"k": "v", "l": "w"})
    early = found["labelled and named before it was persisted"]
    client.label(early, {"k": "v"})
    client.persist(early)
    source = client.put(np.arange(99), persist=True)
    found["shallow copy"] = client.shallow_copy(source, {"note_": "copied"})
    client.persist(found["shallow copy"])
    found["array in a global object"] = client.put(np.arange(10), persist=True)
    make_global(client, [found["array in a global object"]])
    column = client.put(np.arange(11), persist=True)
    make_global(client, [column])
    with origin.raw() as raw:
        found["with a part of a global object"] = raw.ask("create_data_request", content={
            "typename": "migrate::Whole", "instance_id": origin.number, "float": 1.5,
            "list": [1, "two", {"three": [3.5]}], "nothing": None, "yes": True, "text": "é\t\"😀",
            "big": 2**64 - 1, "low": -2**63, "part": {"id": hexid(column)}})["id"]
        raw.ask("persist_request", id=found["with a part of a global object"])
        blobs = [tree(origin, id_)["buffer_"] for id_ in (found["array"], column)]
        found["of blobs, one of them twice"] = raw.ask("create_data_request", content={
            "typename": "migrate::Blobs", "instance_id": origin.number, "x": blobs[0],
            "y": blobs[1], "z": blobs[0]})["id"]
        raw.ask("persist_request", id=found["of blobs, one of them twice"])
    return found


def metadata(route: Route) -> dict:
    """The metadata of copies, in the daemon and in etcd."""
    origin, target = route["origin"], route["target"]
    found = {}
    for what, id_ in prepared(origin).items():
        eventually(lambda: target.exists(id_))  # pylint: disable=cell-var-from-loop
        theirs = tree(origin, id_)
        before = route.keys()
        copy = int(target.client.migrate(vineyard.ObjectID(id_)))
        after = route.keys()
        ours = tree(target, copy)
        words = parts(ours, "copy") | parts(theirs, "theirs")
        changed = {key for key in before | after if before.get(key) != after.get(key)
                   and not key.startswith("instances/")}
        found[what] = {
            "theirs": plain(theirs, words), "copy": plain(ours, words),
            "seen by the origin": plain(tree(origin, copy), words),
            "keys": {renamed(key, words): renamed(after.get(key, "gone"), words)
                     for key in sorted(changed)}}
    return found


def life(route: Route) -> list:
    """What becomes of copies, step by step."""
    origin, target = route["origin"], route["target"]
    seen = []

    def told(what: str, side: Side, id_, **known) -> int:
        """Asks for an object; the id of what came."""
        try:
            made = side.ask("migrate_object_request", object_id=int(id_))["object_id"]
        except RawError as error:
            seen.append(f"{what}: code {error.code}")
            return 0
        seen.append(f"{what}: " + next((f"the {name}" for name, one in known.items()
                                        if int(one) == made), "another"))
        return made

    def knows(what: str, *ids) -> None:
        """Which of some objects each side knows."""
        known = [[side.exists(id_) for id_ in ids] for side in (origin, target)]
        seen.append(f"{what}: known {known}")

    value = np.arange(50000)
    name = f"life {origin.number}"
    theirs = origin.client.put(value, persist=True, name=name)
    start = target.usage()
    copy = told("first", target, theirs, same=theirs)
    told("again", target, theirs, same=theirs, copy=copy)
    told("the copy itself", target, copy, copy=copy)
    back = told("the copy, back on the origin", origin, copy, first=theirs, copy=copy)
    told("again back on the origin", origin, copy, first=theirs, copy=copy, back=back)
    seen.append(f"the name leads to the first: {target.client.get_name(name) == theirs}")
    target.delete(copy)
    eventually(lambda: not origin.exists(copy))
    knows("copy deleted", theirs, copy)
    second = told("after the copy was deleted", target, theirs, same=theirs, copy=copy, back=back)
    assert target.usage() >= start + value.nbytes
    origin.delete(theirs)
    eventually(lambda: not target.exists(theirs))
    knows("first deleted", theirs, second)
    told("the deleted one", target, theirs, same=theirs, copy=second, back=back)
    same(target.client.get(vineyard.ObjectID(second)), value)
    target.delete(second)

    theirs = origin.client.put(value, persist=True)
    copy = told("one more", target, theirs, same=theirs)
    origin.delete(copy)
    eventually(lambda: not target.exists(copy))
    again = told("its copy was deleted by the origin, again", target, theirs, dead=copy)
    seen.append(f"that is there: {target.exists(again)}")

    many = [origin.client.put(value, persist=True) for _ in range(5)]
    eventually(lambda: target.exists(many[-1]))
    usage = target.usage()
    with ThreadPoolExecutor(20) as pool:
        made = set(pool.map(lambda id_: request(target, id_, {}, str), many * 4))
    seen.append(f"20 at once for 5: {len(made)} copies, "
                f"{(target.usage() - usage) // value.nbytes} in memory")

    members = [side.client.put(value, persist=True) for side in (origin, target)]
    made = make_global(origin.client, members)

    def resolved(what: str) -> None:
        """Which member of the global object each side sees."""
        for side, who in ((origin, "origin"), (target, "target")):
            eventually(lambda: side.exists(made))  # pylint: disable=cell-var-from-loop
            member = int(tree(side, made)["__elements_-0"]["id"][1:], 16)
            seen.append(f"{what}, member of a global object on the {who}: "
                        + {int(members[0]): "the first", int(copy): "the copy"}[member])

    resolved("before")
    copy = told("a member of a global object", target, members[0], same=members[0])
    resolved("copied")
    target.delete(copy)
    eventually(lambda: not origin.exists(copy))
    resolved("copy deleted")
    copy = told("the member once more", target, members[0], same=members[0])
    origin.delete(members[0])
    eventually(lambda: not target.exists(members[0]))
    resolved("first deleted")
    origin.delete(made, deep=True)
    eventually(lambda: not target.exists(made))
    time.sleep(0.5)
    knows("global object deleted deep", copy, members[1])

    frame = origin.client.put(pd.DataFrame({"a": np.arange(9), "b": np.ones(9)}), persist=True)
    column = int(tree(origin, frame)["__values_-value-0"]["id"][1:], 16)
    eventually(lambda: target.exists(frame))
    copied = told("a column of a data frame", target, column, same=column)
    copy = told("the data frame after it", target, frame, same=frame)
    inside = int(tree(target, copy)["__values_-value-0"]["id"][1:], 16)
    seen.append(f"its column is the one that came before: {inside == copied}")
    other = int(tree(origin, frame)["__values_-value-1"]["id"][1:], 16)
    inside = int(tree(target, copy)["__values_-value-1"]["id"][1:], 16)
    told("its other column after it", target, other, same=other, copy=inside)
    return seen


def death(route: Route) -> list:
    """The origin is killed: before the others noticed, and after."""
    origin, target = route["origin"], route["target"]
    seen = []
    value = np.arange(1000)
    member = "member of a global object"
    ids = {what: origin.client.put(value, persist=True)
           for what in ("copied", member, "not copied")}
    made = make_global(origin.client, [ids[member]])
    eventually(lambda: target.exists(made))
    copies = {what: target.client.migrate(ids[what]) for what in ("copied", member)}
    known = {int(id_): "the copy" for id_ in copies.values()}
    origin.daemon.kill()

    def ask(when: str) -> None:
        for what, id_ in ids.items():
            began = time.monotonic()
            seen.append(f"{when}, {what}: {request(target, id_, known)}")
            if (took := time.monotonic() - began) > 1:
                report.line(f"note {route.name}: {seen[-1]} after {took:.1f} s")

    ask("just killed")
    for copy in copies.values():
        same(target.client.get(copy), value)
    eventually(lambda: not any(key.startswith(f"instances/i{origin.number}/")
                               for key in route.keys()), DEATH_LIMIT)
    eventually(lambda: not target.exists(ids["not copied"]))
    ask("out of the cluster")
    same(target.client.get(copies["copied"]), value)
    seen.append(f"the copy of the member is known: {target.exists(copies[member])}")
    seen.append(f"the global object is known: {target.exists(made)}")
    return seen


# What v6d does differently, as docs/protocol.md tells.

LINES = (  # who does it, what vineyardd does, what v6d does
    # What is brought back is what was there all the time.
    ("origin", "the copy, back on the origin: another", "the copy, back on the origin: the first"),
    ("origin", "again back on the origin: the back", "again back on the origin: the first"),
    # Whoever deleted a copy, it is gone.
    ("target", "its copy was deleted by the origin, again: the dead",
     "its copy was deleted by the origin, again: another"),
    ("target", "that is there: False", "that is there: True"),
    # A member that is here is not brought again.
    ("target", "its column is the one that came before: False",
     "its column is the one that came before: True"),
    ("target", "its other column after it: another", "its other column after it: the copy"),
    # What lives here does not go with what died there.
    ("target", "the copy of the member is known: False", "the copy of the member is known: True"),
)


def adapted(what: str, found, name: str):
    """What vineyardd does, but for what v6d does differently."""
    kinds = dict(zip(("origin", "target"), ROUTES[name]))
    if what in ("life", "death"):
        for who, theirs, ours in LINES:
            if kinds[who] == "v6d":
                found = [ours if line == theirs else line for line in found]
    if what == "metadata" and kinds["target"] == "v6d":
        found = json.loads(json.dumps(found))
        for one in found.values():
            # The name of a copy has a key of its own, as the names of all objects.
            if given := one["keys"]["data/copy"].pop("__name", None):
                one["keys"]["data/copy/__name"] = f'"{given}"'
        # A member of a global object is found by its signature, wherever else it is used.
        keys = found["with a part of a global object"]["keys"]
        keys["signatures/i1/signature(part)"] = '"copy.part"'
    return found


def compared(got, want) -> None:
    """Both are the same; if not, only what differs is told."""
    if isinstance(want, dict) and isinstance(got, dict):
        for name in want | got:
            try:
                compared(got.get(name, "nothing"), want.get(name, "nothing"))
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None
    elif isinstance(want, list) and isinstance(got, list):
        different = [f"{one}, not {other}" for one, other in zip(got, want) if one != other]
        assert not different and len(got) == len(want), different or len(got)
    else:
        assert got == want, f"{got}, not {want}"


def lossless(found: dict) -> None:
    """A copy has all that the first has, and both sides see the same."""
    for what, one in found.items():
        theirs = json.dumps(one["theirs"]).replace('"instance_id": 0', '"instance_id": 1')
        compared({what: one["copy"]}, {what: json.loads(theirs)})
        compared({what: one["seen by the origin"]}, {what: one["copy"]})


def broken(route: Route) -> None:
    """Blobs of an object are not there. vineyardd waits for them for ever."""
    origin, target = route["origin"], route["target"]
    blob = tree(origin, origin.client.put(np.arange(10), persist=True))["buffer_"]
    lost = blob | {"id": hexid(1 << 63 | 0x1234567)}
    for blobs in ({"a": lost}, {"a": blob, "b": lost}):
        id_ = origin.ask("create_data_request", content={
            "typename": "migrate::Broken", "instance_id": origin.number, **blobs})["id"]
        origin.ask("persist_request", id=id_)
        before = target.usage(), set(route.keys())
        fails(12, lambda: target.ask("migrate_object_request",
                                     object_id=id_))  # pylint: disable=cell-var-from-loop
        assert (target.usage(), set(route.keys())) == before


def leaving(route: Route) -> None:
    """A v6d that ends takes its objects out of the cluster, not their copies."""
    origin, target = route["origin"], route["target"]
    value = np.arange(1000)
    ids = [origin.client.put(value, persist=True) for _ in range(2)]
    eventually(lambda: target.exists(ids[1]))
    copy = target.client.migrate(ids[0])
    origin.daemon.stop()
    eventually(lambda: not target.exists(ids[0]) and not target.exists(ids[1]))
    for id_ in ids:
        fails(27, lambda: target.ask("migrate_object_request",
                                     object_id=int(id_)))  # pylint: disable=cell-var-from-loop
    same(target.client.get(copy), value)
    assert route.keys_of(copy)


def settings(route: Route) -> None:
    """What v6d can be told, and what it tells."""
    origin, target = route["origin"], route["target"]
    way = "classic" if origin.kind == "vineyardd" else "tcp" if ROUTES[route.name][2] else "ipc"
    for what, value in {"shrinks": np.arange(2000000) // 1000,
                        "noise": np.random.default_rng(3).integers(0, 2**63, 2000000)}.items():
        for more in ({}, {"compress": "on"}, {"compress": "off"},
                     {"compress": "on", "verify": True}, {"verify": True, "parallel": 7}):
            id_ = origin.client.put(value, persist=True)
            with Raw(str(target.daemon.ipc), v6d=True) as raw:
                answer = raw.ask("v6d_migrate_request", object_id=int(id_), **more)
            copy = vineyard.ObjectID(answer["object_id"])
            same(target.client.get(copy), own(value))
            transfer = answer["transfer"]
            assert (transfer["way"], transfer["bytes"]) == (way, value.nbytes), transfer
            if way != "ipc" and "compress" in more:
                assert transfer["compressed"] == (more["compress"] == "on"), (what, more, transfer)
            origin.delete(id_)
            target.delete(copy)


def main() -> int:
    """The command line; 1 when a check failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true",
                        help="without deaths, which take 40 s, and daemons that do not compress")
    parser.add_argument("--v6d", type=Path, default=HERE.parent / "bin/v6d", metavar="BINARY")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: (interrupted.set(), sys.exit(143)))
    for log in WORK.glob("migrate.*.log"):
        log.unlink()
    folder = Path(tempfile.mkdtemp(prefix="v6d-migrate-"))
    stories = [answers, metadata, life]
    told: dict[tuple, object] = {}  # of story and route: what happened, or the error
    with contextlib.ExitStack() as stack:
        stack.callback(remove, folder)
        etcd = Etcd(folder)
        stack.enter_context(stopped(etcd.process))

        def route(name: str, prefix: str, *flags: str) -> Route:
            return Route(stack, etcd, args.v6d.resolve(), folder, name, prefix, flags)

        def tell(story, pair: Route) -> None:
            """What happens, for later."""
            try:
                told[story, pair.name] = story(pair)
            except Exception as error:  # pylint: disable=broad-except
                told[story, pair.name] = error

        def travel(number: int, name: str) -> None:
            """All of one route, and what v6d alone does."""
            pair = route(name, f"route{number}")
            if name != REFERENCE_ROUTE:
                with check(f"{name}: values", quiet=True):
                    values(pair, name)
            if name != REFERENCE_ROUTE and not args.short:
                with check(f"{name}: values", quiet=True):
                    values(route(name, f"route{number}-plain", "--compression=false"),
                           f"{name}, without compression")
            if pair["target"].kind == "v6d":
                with check(f"{name}: with settings: compressed, verified, parallel"):
                    settings(pair)
                with check(f"{name}: an object of which a blob is missing"):
                    broken(pair)
            if pair["origin"].kind == "v6d":
                with check(f"{name}: the origin ends"):
                    leaving(route(name, f"route{number}-ends"))
            for story in stories:
                tell(story, pair)

        with ThreadPoolExecutor(2) as pool:  # more would be in each other's way
            for job in [pool.submit(travel, *one) for one in enumerate(ROUTES)]:
                job.result()
        if not args.short:
            pairs = [route(name, f"route{number}-dies") for number, name in enumerate(ROUTES)]
            with ThreadPoolExecutor(len(pairs)) as pool:
                for job in [pool.submit(tell, death, pair) for pair in pairs]:
                    job.result()
            stories.append(death)
    for name in ROUTES:
        for story in stories:
            with check(f"{name}: {story.__name__} as from vineyardd to vineyardd"):
                for one in (told[story, name], told[story, REFERENCE_ROUTE]):
                    if isinstance(one, Exception):
                        raise one
                if story is metadata:
                    lossless(told[story, name])
                compared(told[story, name],
                         adapted(story.__name__, told[story, REFERENCE_ROUTE], name))
    report.line(f"migrate: {f'{report.failed} failed' if report.failed else 'ok'}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InteropError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
