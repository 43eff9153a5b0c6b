"""A client of the recovery soak that uses the published package.

Reads one JSON command a line, writes one JSON event a line:

    {"do": "work", "socket": S, "seed": N, "ids": [...]}   works until the daemon dies
    {"do": "check", "socket": S, "sums": {id: sha256}}     reads arrays back
    {"do": "quit"}

Each change is told twice: "begin" before the request, "ack" after the reply. What
began and was not acknowledged may have happened or not.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import warnings

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import vineyard  # noqa: E402


def say(**event) -> None:
    """Writes one event."""
    print(json.dumps(event), flush=True)


def array_sum(value) -> str:
    """The hash of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()


def put(client, rng: random.Random, seed: int, step: int) -> str:
    """Stores an array, sometimes under a name; its id."""
    size = rng.choice((10, 1000, 30_000, 600_000)) + rng.randrange(1000)
    value = np.frombuffer(rng.randbytes(size), dtype=np.uint8)
    name = f"py-{seed}-{step}" if rng.random() < 0.5 else ""
    say(ev="begin", op="put", sum=array_sum(value), size=size, name=name)
    if name:
        made = client.put(value, persist=True, name=name)
    else:
        made = client.put(value)
    say(ev="ack", op="put", id=repr(made))
    return repr(made)


def work(socket: str, seed: int, ids: list[str]) -> None:
    """Puts, gets and deletes until a call fails."""
    rng = random.Random(seed)
    client = vineyard.connect(socket)
    say(ev="ready")
    sums: dict[str, str] = {}
    step = 0
    while True:
        step += 1
        if len(ids) > 15 or (ids and rng.random() < 0.2):
            victim = ids.pop(rng.randrange(len(ids)))
            say(ev="begin", op="delete", id=victim)
            client.delete(vineyard.ObjectID(victim))
            say(ev="ack", op="delete", id=victim)
        elif ids and rng.random() < 0.4:
            chosen = rng.choice(ids)
            got = array_sum(client.get(vineyard.ObjectID(chosen)))
            if sums.setdefault(chosen, got) != got:
                say(ev="bad", id=chosen, why="it changed under a running daemon")
        else:
            ids.append(put(client, rng, seed, step))


def check(socket: str, sums: dict[str, str]) -> None:
    """Reads arrays and compares them."""
    client = vineyard.connect(socket)
    for name, want in sums.items():
        try:
            if array_sum(client.get(vineyard.ObjectID(name))) != want:
                say(ev="bad", id=name, why="other bytes")
        except Exception as err:  # noqa: BLE001 - whatever it is, the test must hear of it
            say(ev="bad", id=name, why=str(err))
    client.close()
    say(ev="checked", count=len(sums))


def main() -> None:
    """Obeys."""
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "quit":
            return
        if command["do"] == "check":
            check(command["socket"], command["sums"])
            continue
        try:
            work(command["socket"], command["seed"], command["ids"])
        except Exception as err:  # noqa: BLE001 - the daemon dies under us
            say(ev="down", why=str(err)[:200])


main()
