"""A reader, or a writer, that uses the published package; driven line by line.

Reads one JSON command a line, answers each with one JSON line:

    {"do": "get", "id": ID}        takes an array; its address and size
    {"do": "read"}                 reads all bytes of the arrays taken; xor of the words
    {"do": "drop"}                 drops the arrays taken
    {"do": "put", "size": N, "seed": S}   stores N bytes; id and xor
    {"do": "delete", "id": ID}     deletes an object
    {"do": "memory"}               what this process has of its own, in bytes

Nothing here copies payload, but for put.
"""

from __future__ import annotations

import json
import sys
import warnings

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import vineyard  # noqa: E402


def own_memory() -> dict[str, int]:
    """Memory that is this process's alone: from smaps_rollup and status."""
    found: dict[str, int] = {}
    for path in ("/proc/self/smaps_rollup", "/proc/self/status"):
        with open(path, encoding="ascii", errors="replace") as lines:
            for line in lines:
                key, _, rest = line.partition(":")
                if key in ("Private_Clean", "Private_Dirty", "Anonymous", "RssAnon", "RssShmem"):
                    found[key] = int(rest.split()[0]) * 1024
    return found


def fold(value) -> int:
    """The xor of an array's 64-bit words; numpy reads it in place."""
    return int(np.bitwise_xor.reduce(value.view(np.uint64)))


def main() -> None:
    """Obeys."""
    client = vineyard.connect(sys.argv[1])
    taken: list = []
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict = {}
        try:
            if command["do"] == "get":
                value = client.get(vineyard.ObjectID(command["id"]))
                taken.append(value)
                answer = {"address": value.__array_interface__["data"][0], "size": value.nbytes}
            elif command["do"] == "read":
                answer = {"xor": str(fold(taken[0]) if len(taken) == 1 else [fold(v) for v in taken])}
            elif command["do"] == "drop":
                taken.clear()
                value = None
            elif command["do"] == "put":
                value = np.random.default_rng(command["seed"]).integers(
                    0, 1 << 63, command["size"] // 8, dtype=np.uint64)
                answer = {"id": repr(client.put(value)), "xor": str(fold(value))}
                value = None
            elif command["do"] == "delete":
                client.delete(vineyard.ObjectID(command["id"]))
            elif command["do"] == "memory":
                answer = own_memory()
        except Exception as err:  # noqa: BLE001 - the test must hear of it
            answer = {"error": f"{type(err).__name__}: {err}"}
        print(json.dumps(answer), flush=True)


main()
