#!/usr/bin/env python3
"""One v6d and one vineyardd on one etcd: what each does, the other must see.

    mixed.py [--short] [--v6d BINARY]

Prints a line for each check, "ok WHAT" or "FAIL WHAT: WHY"; exits with 1 when any
failed. Needs the vineyard package: run it with the python that interop/venv.sh prints.
"""

from __future__ import annotations

import argparse
import contextlib
import json
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
import vineyard

from daemons import (HERE, WORK, Daemon, Etcd, InteropError, b64, interrupted, remove, stopped,
                     unb64)
from pairs import (DEATH_LIMIT, NAMES, REFERENCE, SESSION, SETTLE, Pair, Side, check, eventually,
                   hexid, make_global, report, same)
from raw import Raw, Waiting


def values(pair: Pair) -> None:
    """Objects of one read through the other."""
    frame = pd.DataFrame({"a": np.arange(5000), "b": np.arange(5000) / 7, "c": ["x", "yz"] * 2500})
    samples = {"tensor": np.arange(60000, dtype="int64").reshape(200, 300), "data frame": frame,
               "empty tensor": np.zeros((0, 3)), "tuple": (1, "two", 3.5, None),
               "text": "é" * 1000}
    for one, other in pair.both():
        for what, value in samples.items():
            with check(f"{what} of {one.kind}, read through {other.kind}"):
                id_ = one.client.put(value, persist=True)
                same(other.client.get(id_), value)
                meta = other.client.get_meta(id_, True)
                assert meta.instance_id == one.number, meta.instance_id
                assert not meta.islocal
        with check(f"tensor of {one.kind}, read by a remote client of {other.kind}"):
            remote = vineyard.connect(endpoint=("127.0.0.1", str(other.daemon.port)))
            id_ = one.client.put(samples["tensor"], persist=True)
            same(remote.get(id_), samples["tensor"])
        with check(f"transient object of {one.kind} is not known to {other.kind}"):
            id_ = one.client.put(samples["tensor"])
            assert not other.exists(id_)
            assert one.exists(id_)
        with check(f"global object of {one.kind}, with a member on each"):
            parts = [side.client.put(np.full(1000, number), persist=True)
                     for number, side in enumerate((one, other))]
            made = make_global(one.client, parts)
            for side in (one, other):
                meta = side.client.get_meta(made, True)
                assert meta.isglobal and meta["__elements_-size"] == 2
                assert meta.instance_id == 2**64 - 1, meta.instance_id
                for number, part in enumerate(parts):
                    member = meta.get_member(f"__elements_-{number}")
                    assert member.meta.id == part, (member.meta.id, part)
                    same(side.client.get(part), np.full(1000, number))


def details(pair: Pair) -> None:
    """What is easily lost on the way."""
    odd = {"typename": "mixed::Odd<int64>", "global": False, "transient": True, "nbytes": 5,
           "big": 2**64 - 1, "low": -2**63, "float": 1.5, "tiny": 5e-324, "third": 1 / 3,
           "yes": True, "nothing": None, "list": [1, "two", {"three": [3.5]}],
           "text": "v\"l\\é\t\u0001😀",
           "empty": "", "l": "lo0000000000000000.x", "json": json.dumps({"a": [1, 2]})}
    for one, other in pair.both():
        with check(f"odd metadata of {one.kind}, the same through {other.kind}"), one.raw() as raw:
            member = one.client.put((1, 2.5, "x"))
            fields = odd | {"instance_id": one.number, "part": {"id": hexid(member)}}
            id_ = raw.ask("create_data_request", content=fields)["id"]
            raw.ask("persist_request", id=id_)
            trees = [side.ask("get_data_request", id=[id_], sync_remote=True)["content"][hexid(id_)]
                     for side in (one, other)]
            assert trees[0] == trees[1], trees
            for name, value in odd.items():
                if name != "transient":
                    assert trees[1][name] == value, (name, trees[1][name])
                    assert type(trees[1][name]) is type(value), (name, trees[1][name])
        with check(f"blob of {one.kind} with the id of one of {other.kind}: only its own goes"), \
                one.raw() as raw:
            value = np.arange(9000)
            kept = other.client.put(value, persist=True)
            before = other.usage()
            tree = other.ask("get_data_request", id=[int(kept)])["content"][hexid(kept)]
            blob = next(field for field in tree.values()
                        if isinstance(field, dict) and field["typename"] == "vineyard::Blob")
            id_ = raw.ask("create_data_request", content={
                "typename": "mixed::Same", "instance_id": one.number,
                "buffer_": blob | {"instance_id": one.number}})["id"]
            raw.ask("persist_request", id=id_)
            assert other.exists(id_)
            one.delete(id_)
            eventually(lambda: not other.exists(id_))  # pylint: disable=cell-var-from-loop
            assert other.usage() == before
            same(other.client.get(kept), value)
        with check(f"noise of 3 MB of {one.kind}, read through {other.kind}"):
            value = np.random.default_rng(1).integers(0, 2**63, 400000)
            id_ = one.client.put(value, persist=True)
            same(other.client.get(id_), value)
            one.delete(id_)
        with check(f"global object of {one.kind} with 150 members, deleted by {other.kind}"):
            parts = [(one, other)[number % 2].client.put(number, persist=True)
                     for number in range(150)]
            made = make_global(one.client, parts)
            for side in (one, other):
                meta = side.client.get_meta(made, True)
                assert [meta.get_member(f"__elements_-{number}").meta.id
                        for number in range(150)] == parts
            other.delete(made, deep=True)
            eventually(lambda: not any(one.exists(id_) for id_ in (made, *parts[:4])))
            assert not pair.keys_of(made) and not any(pair.keys_of(id_) for id_ in parts[::30])


def cluster(pair: Pair) -> None:
    """What each tells of the cluster."""
    with check("each lists both instances, with the same words"):
        metas = [side.ask("cluster_meta")["meta"] for side in pair.sides.values()]
        for meta in metas:
            assert sorted(meta) == sorted(f"i{side.number}" for side in pair.sides.values()), meta
            for fields in meta.values():
                fields.pop("timestamp")
        assert metas[0] == metas[1], metas
    with check("v6d's entry: the keys of vineyardd, no member_id"):
        names = {kind: {key.split("/")[2] for key in pair.keys()
                        if key.startswith(f"instances/i{pair[kind].number}/")} for kind in NAMES}
        assert names["v6d"] == names["vineyardd"] - {"member_id", "rdma_endpoint"}, names


def names(pair: Pair) -> None:
    """Names and labels of one, used by the other."""
    for one, other in pair.both():
        id_ = one.client.put(np.arange(10), persist=True)
        name = f"a/b~c é {one.kind}"
        with check(f"name given by {one.kind}, found by {other.kind}"):
            one.client.put_name(id_, name)
            assert other.client.get_name(name) == id_
            listed = {key: int(value) for key, value in
                      other.client.list_names("a/b*" + one.kind, False, 10).items()}
            assert listed == {name: int(id_)}, listed
        with check(f"name given by {other.kind} to an object of {one.kind}"):
            other.client.put_name(id_, name + "2")
            assert one.client.get_name(name + "2") == id_
        with check(f"name moved by {other.kind}, seen by {one.kind}"):
            moved = other.client.put(np.arange(3), persist=True)
            other.client.put_name(moved, name)
            assert one.client.get_name(name) == moved
        with check(f"name dropped by {other.kind}, gone on {one.kind}"):
            other.client.drop_name(name)
            assert not one.has_name(name) and not other.has_name(name)
        with check(f"labels put by {other.kind} on an object of {one.kind}"):
            other.label(id_, {"where": "far", "tier": "2"})
            one.label(id_, {"tier": "3"})
            for side in (one, other):
                labels = side.client.get_meta(id_, True).labels
                assert labels == {"where": "far", "tier": "3"}, (side.kind, labels)
        with check(f"shallow copy by {other.kind} of an object of {one.kind}"):
            source = one.client.put(np.arange(777), persist=True)
            copy = other.client.shallow_copy(source, {"note_": "copied"})
            for side in (one, other):
                meta = side.client.get_meta(copy, True)
                assert meta["note_"] == "copied", side.kind
                assert meta.instance_id == one.number, (side.kind, meta.instance_id)
                assert meta.signature == side.client.get_meta(source).signature
                same(side.client.get(copy), np.arange(777))


def deletions(pair: Pair) -> None:
    """One deletes what the other has."""
    for one, other in pair.both():
        with check(f"object of {one.kind} deleted by {other.kind}: memory free, nothing left"):
            before = one.usage()
            id_ = one.client.put(np.ones(1 << 17), persist=True)
            one.client.label(id_, "k", "v")
            assert one.usage() >= before + (1 << 20)
            other.delete(id_)
            eventually(lambda: one.usage() == before, what=lambda: f"memory {before} again, not {one.usage()}")
            assert not one.exists(id_) and not other.exists(id_)
            left = pair.keys_of(id_)
            if other.kind == "vineyardd":
                left = [key for key in left if not key.endswith("/__labels")]  # as it does alone
            assert not left, left
        with check(f"object of {one.kind} deleted by {other.kind}: its name"):
            id_, name = one.client.put("x", persist=True), f"deleted by {other.kind}"
            one.client.put_name(id_, name)
            other.delete(id_)
            eventually(lambda: not one.exists(id_))
            if other.kind == "v6d":
                eventually(lambda: not one.has_name(name), what="the name is gone")
                assert not pair.keys_of(id_), pair.keys_of(id_)
            assert not pair["v6d"].has_name(name)
            assert not pair["v6d"].client.list_names(name, False, 10)
        with check(f"deep deletion by {one.kind} of a global object, members on both"):
            before = [side.usage() for side in (one, other)]
            for maker in (one, other):
                parts = [side.client.put(np.ones(1 << 15), persist=True) for side in (one, other)]
                made = make_global(maker.client, parts)
                one.delete(made, deep=True)
                eventually(lambda: [side.usage() for side in (one, other)] == before,
                           what=f"memory {before} again, made by {maker.kind}")
                for id_ in [made, *parts]:
                    assert not one.exists(id_) and not other.exists(id_)
                    assert not pair.keys_of(id_), pair.keys_of(id_)
        with check(f"shallow copy of an object of {one.kind} deleted by v6d, not the source"):
            v6d, reference = pair["v6d"], pair["vineyardd"]
            source = one.client.put(np.arange(99), persist=True)
            copy = other.client.shallow_copy(source)
            v6d.delete(copy)
            eventually(lambda: not reference.exists(copy))  # pylint: disable=cell-var-from-loop
            assert not v6d.exists(copy)
            assert not pair.keys_of(copy), pair.keys_of(copy)
            for side in (one, other):
                same(side.client.get(source), np.arange(99))
        with check(f"member of a global object is kept from deletion by {one.kind}"):
            part = other.client.put(np.ones(10), persist=True)
            made = make_global(other.client, [part])
            one.client.get_meta(made, True)
            one.delete(part, force=False, deep=True)
            assert one.exists(part) and other.exists(part) and other.exists(made)
            one.delete(made, deep=True)
            eventually(lambda: not other.exists(part) and not one.exists(part))


def locks(pair: Pair) -> None:
    """Locks exclude each other's holders, and those of other programs."""
    for one, other in pair.both():
        with check(f"lock held through {one.kind} keeps out {other.kind}"), one.raw() as a, \
                other.raw() as b:
            key = f"lock-{one.kind}"
            held = a.ask("acquire_lock_request", key=key)
            assert held["result"] is True and held["key"].startswith(key + "/"), held
            with Waiting(b, "acquire_lock_request", key=key) as waiting:
                assert not waiting.answered(1), "two holders"
                assert a.ask("release_lock_request", key=held["key"])["result"] is True
                got = waiting.answer()
            assert got["result"] is True and got["key"] != held["key"], got
            b.ask("release_lock_request", key=got["key"])
            eventually(lambda: not pair.etcd.get(f"{pair.prefix}/{SESSION}{key}/"))
    for side in pair.sides.values():
        with check(f"lock held by another program keeps out {side.kind}"), side.raw() as raw:
            key, lease = foreign_lock(pair, f"lock-foreign-{side.kind}")
            with Waiting(raw, "acquire_lock_request", key=f"lock-foreign-{side.kind}") as waiting:
                assert not waiting.answered(1), "two holders"
                pair.etcd.call("/v3/lock/unlock", {"key": b64(key)})
                got = waiting.answer()
            pair.etcd.call("/v3/lease/revoke", {"ID": lease})
            raw.ask("release_lock_request", key=got["key"])
        with check(f"the cluster's lock held by another program keeps {side.kind} from writing"), \
                side.raw() as raw:
            id_ = side.client.put(np.ones(5))
            gone = side.client.put(np.ones(5), persist=True)
            key, lease = foreign_lock(pair, "/meta_sync_lock")
            with Waiting(raw, "persist_request", id=int(id_)) as waiting, side.raw() as second, \
                    Waiting(second, "del_data_request", id=[int(gone)]) as deleting:
                quiet = not waiting.answered(1.5) and not deleting.answered(0.1)
                keys = pair.keys()
                kept = f"data/{hexid(id_)}" not in keys and f"data/{hexid(gone)}" in keys
                pair.etcd.call("/v3/lock/unlock", {"key": b64(key)})
                waiting.answer()
                deleting.answer()
            pair.etcd.call("/v3/lease/revoke", {"ID": lease})
            assert quiet and kept
            assert f"data/{hexid(id_)}" in pair.keys()
            assert f"data/{hexid(gone)}" not in pair.keys()


def foreign_lock(pair: Pair, name: str) -> tuple[str, str]:
    """Takes a lock as `etcdctl lock` does: its key, and the lease."""
    lease = pair.etcd.call("/v3/lease/grant", {"TTL": "60"})["ID"]
    name = f"{pair.prefix}/{SESSION}{name}"
    return unb64(pair.etcd.call("/v3/lock/lock", {"name": b64(name), "lease": lease})["key"]), lease


def waits(pair: Pair) -> None:
    """Requests that wait on one are woken by the other."""
    for one, other in pair.both():
        with check(f"get that waits on {one.kind}, woken by a persist on {other.kind}"), \
                one.raw() as raw:
            id_ = other.client.put(np.arange(4))
            with Waiting(raw, "get_data_request", id=[int(id_)], sync_remote=True,
                         wait=True) as waiting:
                assert not waiting.answered(0.5), waiting.reply
                other.client.persist(id_)
                assert hexid(id_) in waiting.answer()["content"]
        with check(f"name awaited on {one.kind}, given on {other.kind}"), one.raw() as raw:
            name = f"awaited by {one.kind}"
            with Waiting(raw, "get_name_request", name=name, wait=True) as waiting:
                assert not waiting.answered(0.5), waiting.reply
                other.client.put_name(id_, name)
                assert waiting.answer()["object_id"] == int(id_)
        with check(f"client that leaves while it waits does not hurt {one.kind}"):
            with one.raw() as raw:
                raw.send("get_name_request", name="never given", wait=True)
            assert one.client.status is not None


def many(pair: Pair) -> None:
    """Both write at the same time."""
    with check("both persist and delete each other's objects at the same time"):
        def work(me: Side, you: Side, seed: int):
            mine = vineyard.connect(str(me.daemon.ipc)).fork()
            yours = vineyard.connect(str(you.daemon.ipc)).fork()
            for number in range(20):
                value = np.arange(number + seed)
                id_ = mine.put(value)
                mine.persist(id_)
                yours.sync_meta()
                yours.get_meta(id_)
                yours.delete(id_)
                assert not mine.exists(id_), id_
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(work, *sides, seed) for seed in (10, 20) for sides in pair.both()]
            for job in jobs:
                job.result()
    with check("an object of more parts than one transaction takes, each way"):
        for one, other in pair.both():
            value = tuple(range(300))
            id_ = one.client.put(value, persist=True)
            same(other.client.get(id_), value)
            other.delete(id_)
            eventually(lambda: not one.exists(id_))
            left = [key for key in pair.keys_of(id_) if key.startswith("data/")]
            assert not left, left


def clear(pair: Pair) -> None:
    """Clear on one takes all that is persisted, on both."""
    for one, other in pair.both():
        with check(f"clear on {one.kind}: what is persisted goes, not what is transient elsewhere"):
            shared = [side.client.put(np.ones(1 << 16), persist=True) for side in (one, other)]
            own = [side.client.put(np.ones(1 << 16)) for side in (one, other)]
            one.client.clear()
            for id_ in shared:
                assert not one.exists(id_)
                eventually(lambda: not other.exists(id_))  # pylint: disable=cell-var-from-loop
            assert not one.exists(own[0]) and other.exists(own[1])
            assert one.usage() == 0, one.usage()
            left = [key for key in pair.keys() if key.startswith(("data/", "signatures/"))
                    and not key.endswith(("/__name", "/__labels"))]
            assert not left, left
            other.client.clear()
            eventually(lambda: other.usage() == 0, what=f"memory 0 on {other.kind}")
    with check("after both were cleared, v6d has no objects and no names"):
        v6d = pair["v6d"]
        assert not v6d.client.list_metadatas("*", False, 1000)
        assert not v6d.client.list_names("*", False, 1000), v6d.client.list_names("*", False, 1000)


def no_dangling(v6d: Side) -> None:
    """Every name that v6d tells leads to an object."""
    listed = v6d.client.list_names("*", False, 1000)
    dangling = [name for name, id_ in listed.items() if not v6d.exists(id_)]
    assert not dangling, dangling


def works(pair: Pair, when: str) -> None:
    """The main things, each way."""
    for one, other in pair.both():
        with check(f"{when}: object and name of {one.kind} for {other.kind}, deleted there"):
            value, name = np.arange(1234), f"{when} {one.kind}"
            before = one.usage()
            id_ = one.client.put(value, name=name, persist=True)
            assert other.client.get_name(name) == id_
            same(other.client.get(id_), value)
            other.client.drop_name(name)
            other.delete(id_)
            eventually(lambda: one.usage() == before, what=f"memory {before} again")
            assert not pair.keys_of(id_), pair.keys_of(id_)


def death(pair: Pair, victim: str, how: int) -> None:
    """One daemon ends: the other takes it out of the cluster, and it comes again."""
    dead, alive = pair[victim], pair["vineyardd" if victim == "v6d" else "v6d"]
    title = f"{signal.Signals(how).name} of {victim}"
    lost, kept = [], []
    with check(f"{title}: before"):
        for side, ids in ((dead, lost), (alive, kept)):
            ids.append(side.client.put(np.arange(1000), name=f"named {side.kind}", persist=True))
            side.client.label(ids[0], "k", "v")
            ids.append(side.client.put(np.arange(2000), persist=True))
            ids.append(side.client.put(("a", "b"), persist=True))
        lost.append(make_global(alive.client, [kept[1], lost[1]]))
        mine = alive.client.put(np.ones(10))
        usage = alive.usage()
    before = pair.keys()
    gone = {key for key in before if key.startswith((f"instances/i{dead.number}/",
                                                     f"signatures/i{dead.number}/"))
            or any(key.startswith(f"data/{hexid(id_)}") for id_ in lost)
            or key == f"names/named {dead.kind}"
            or f'"instance_id":{dead.number},' in before[key]}
    if how == signal.SIGKILL:
        dead.daemon.kill()
    else:
        with check(f"{title}: it ends by itself within 5 s"):
            seconds = dead.daemon.stop()
            assert seconds < 5, f"{seconds:.1f} s"
            assert dead.daemon.ended() == 0, dead.daemon.ended()
    cleaner = "v6d" if victim == "v6d" and how == signal.SIGTERM else alive.kind
    limit = SETTLE if victim == "v6d" and how == signal.SIGTERM else DEATH_LIMIT
    instance = f"instances/i{dead.number}/"
    with check(f"{title}: {alive.kind} goes on meanwhile"):
        same(alive.client.get(kept[0]), np.arange(1000))
        assert alive.client.get(alive.client.put("still here", persist=True)) == "still here"
        late = set(pair.keys()) - set(before)
    with check(f"{title}: out of the cluster within {limit} s"):
        took = eventually(lambda: not any(key.startswith(instance) or key == f"data/{hexid(id_)}"
                                          for key in pair.keys() for id_ in lost), limit)
        report.line(f"note {title}: out of the cluster after {took:.0f} s")
    time.sleep(1)
    with check(f"{title}: what remains in etcd"):
        want = (set(before) - gone) | late
        have = set(pair.keys())
        assert not want - have, f"missing: {sorted(want - have)}"
        extra = have - want
        if cleaner == "vineyardd":
            residue = {key for key in extra if key.endswith(("/__name", "/__labels"))
                       or key.startswith("names/")}
            if residue:
                report.line(f"note {title}: vineyardd left {sorted(residue)}")
            extra -= residue
        assert not extra, f"too much: {sorted(extra)}"
    with check(f"{title}: {alive.kind} has its own objects and none of the other's"):
        for id_, value in zip(kept, (np.arange(1000), np.arange(2000), ("a", "b"))):
            same(alive.client.get(id_), value)
        assert alive.client.get_name(f"named {alive.kind}") == kept[0]
        same(alive.client.get(mine), np.ones(10))
        assert list(alive.ask("cluster_meta")["meta"]) == [f"i{alive.number}"]
        for id_ in lost:
            answer = alive.ask("get_data_request", id=[int(id_)], sync_remote=True)["content"]
            tree = (answer or {}).get(hexid(id_))
            if alive.kind == "v6d":
                assert tree is None and not alive.exists(id_), tree
                assert not alive.has_name(f"named {dead.kind}")
            else:  # it may have a phantom of the fields it left
                assert tree is None or "typename" not in tree, tree
        assert alive.usage() >= usage
    with check(f"{title}: again a daemon there"):
        again = Side(victim, pair, victim if victim == "v6d" else victim + "2")
        pair.sides[victim] = again
        # A v6d that recovers its pool keeps its number, if nobody had it since.
        assert again.number != dead.number or victim == "v6d" and how == signal.SIGKILL
        same(again.client.get(kept[0]), np.arange(1000))
        assert len(alive.ask("cluster_meta")["meta"]) == 2
    with check(f"{title}: after the restart both know the same"):
        known = {hexid(id_) for id_ in lost + kept}

        def listed() -> list[set]:
            replies = [side.ask("list_data_request", pattern="*", regex=False, limit=1000)
                       for side in (alive, again)]
            return [known.intersection(reply["content"] or ()) for reply in replies]

        eventually(lambda: len(set(map(frozenset, listed()))) == 1, 15, "the same objects")
        ids = listed()
        if ids[0] & {hexid(id_) for id_ in lost}:
            report.line(f"note {title}: the restart brought back {len(ids[0]) - len(kept)} objects")
            same(alive.client.get(lost[0]), np.arange(1000))
    works(pair, f"{title}, restarted")
    with check(f"{title}: v6d tells no name without an object, and clears all"):
        v6d = pair["v6d"]
        no_dangling(v6d)
        v6d.client.clear()
        left = [key for key in pair.keys() if key.startswith(("data/", "signatures/"))
                and not key.endswith(("/__name", "/__labels"))]
        assert not left, left
        assert not v6d.client.list_metadatas("*", False, 1000)
        assert not v6d.client.list_names("*", False, 1000)
    works(pair, f"{title}, cleared")


def crash_and_return(pair: Pair) -> None:
    """v6d killed and started again before the other notices: nothing is lost."""
    v6d, other = pair["v6d"], pair["vineyardd"]
    with check("v6d killed, started again at once: the same objects, read through vineyardd"):
        value = np.arange(50000)
        id_ = v6d.client.put(value, name="crash", persist=True)
        made = make_global(other.client, [id_, other.client.put(np.ones(3), persist=True)])
        v6d.daemon.kill()
        pair.sides["v6d"] = v6d = Side("v6d", pair, "v6d")
        same(v6d.client.get(id_), value)
        same(other.client.get(id_), value)
        assert other.client.get_name("crash") == v6d.client.get_name("crash") == id_
        for side in (v6d, other):
            assert side.client.get_meta(made, True)["__elements_-size"] == 2
        assert len(other.ask("cluster_meta")["meta"]) == 2
    works(pair, "v6d after a crash")


def start_together(stack: contextlib.ExitStack, etcd: Etcd, v6d: Path, folder: Path) -> None:
    """Daemons of both kinds that start at the same moment find a number each.

    A vineyardd dies when another daemon, of whatever kind, registers between its reading
    of the metadata and its own registration; it may leave the cluster's lock behind.
    """
    binaries = {"v6d": v6d, "vineyardd": REFERENCE}
    prefix = "together"
    (folder / prefix).mkdir()
    with check("three v6d and two vineyardd, started at the same moment: all that live work"):
        daemons = []
        for number in range(5):
            kind = NAMES[number % 2]
            daemons.append(Daemon(kind, binaries[kind], folder / prefix,
                                  WORK / f"mixed.{prefix}.{number}.log", f"d{number}", size="32Mi",
                                  etcd=etcd.url, prefix=prefix, started=True))
            stack.callback(daemons[-1].stop)
        for daemon in daemons:
            if daemon.kind == "v6d":
                daemon.wait_for(daemon.ready)
            else:
                eventually(lambda: daemon.ended() or daemon.ready(),  # pylint: disable=cell-var-from-loop
                           DEATH_LIMIT, "vineyardd ready")
        time.sleep(1)
        dead = [daemon.ended() for daemon in daemons if daemon.ended() is not None]
        if dead:
            report.line(f"note {len(dead)} vineyardd died when they started with others: {dead}")
        daemons = [daemon for daemon in daemons if daemon.ended() is None]
        assert sum(daemon.kind == "v6d" for daemon in daemons) == 3
        clients = [vineyard.connect(str(daemon.ipc)) for daemon in daemons]
        numbers = {client.instance_id for client in clients}
        assert len(numbers) == len(daemons), numbers
        for daemon in daemons:
            with Raw(str(daemon.ipc)) as raw:
                meta = raw.ask("cluster_meta")["meta"]
                assert numbers <= {int(name[1:]) for name in meta}, (numbers, list(meta))
        id_ = clients[0].put(np.arange(5), persist=True)
        for client in clients:
            same(client.get(id_), np.arange(5))
        for daemon in daemons:
            daemon.stop()


def main() -> int:
    """The command line; 1 when a check failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="without the deaths that take 40 s")
    parser.add_argument("--v6d", type=Path, default=HERE.parent / "bin/v6d", metavar="BINARY")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: (interrupted.set(), sys.exit(143)))
    for log in WORK.glob("mixed.*.log"):
        log.unlink()
    folder = Path(tempfile.mkdtemp(prefix="v6d-mixed-"))
    with contextlib.ExitStack() as stack:
        stack.callback(remove, folder)
        etcd = Etcd(folder)
        stack.enter_context(stopped(etcd.process))

        def pair(prefix: str) -> Pair:
            return Pair(stack, etcd, args.v6d.resolve(), folder, prefix)

        def daily() -> None:
            first = pair("daily")
            for part in (cluster, values, details, names, deletions, locks, waits, many, clear,
                         crash_and_return):
                with check(part.__name__, quiet=True):
                    part(first)
            with check("v6d first, then vineyardd: both still run"):
                assert all(side.daemon.ended() is None for side in first.sides.values())

        def dying(victim: str, how: int) -> None:
            with check(f"{victim}, {signal.Signals(how).name}", quiet=True):
                death(pair(f"death-{victim}-{how}"), victim, how)

        start_together(stack, etcd, args.v6d.resolve(), folder)
        jobs = [daily, lambda: dying("v6d", signal.SIGTERM)]
        if not args.short:
            jobs += [lambda: dying("vineyardd", signal.SIGTERM),
                     lambda: dying("v6d", signal.SIGKILL),
                     lambda: dying("vineyardd", signal.SIGKILL)]
        with ThreadPoolExecutor(len(jobs)) as pool:
            for job in [pool.submit(job) for job in jobs]:
                job.result()
    report.line(f"mixed: {f'{report.failed} failed' if report.failed else 'ok'}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InteropError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
