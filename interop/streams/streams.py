"""Streams between the published Python client and the command line, both ways.

    streams.py SOCKET V6D

Prints "ok WHAT" or "FAIL WHAT: WHY" for each check; exits with 1 when any failed.
"""

import io
import json
import os
import subprocess
import sys
import threading
import time
import traceback

sys.dont_write_bytecode = True
import numpy as np
import pandas as pd
import pyarrow as pa
import vineyard
from vineyard.io.byte import ByteStream
from vineyard.io.dataframe import DataframeStream
from vineyard.io.recordbatch import RecordBatchStream
from vineyard.io.stream import StreamCollection

SOCKET, V6D = sys.argv[1:3]
ENV = dict(os.environ, V6D_SOCKET=SOCKET)
failed = 0


def check(work):
    """Runs one check."""
    global failed
    what = work.__doc__
    try:
        work()
    except Exception as error:  # the package has its own exceptions
        where = traceback.extract_tb(error.__traceback__)[-1]
        print(f"FAIL {what}: {where.filename}:{where.lineno}: {type(error).__name__}: {error}", flush=True)
        failed += 1
    else:
        print(f"ok {what}", flush=True)


def connect():
    """A connection of its own."""
    return vineyard.connect(SOCKET)


def v6d(*args, data=None, code=0):
    """Runs a command; its output."""
    done = subprocess.run([V6D, *args], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=ENV, timeout=60)
    assert done.returncode == code, (args, done.returncode, done.stderr)
    return done.stdout


def start(*args):
    """Starts a command that reads or writes a stream."""
    return subprocess.Popen([V6D, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENV)


def write(writer, chunks):
    """Fills chunks of a stream, as Python programs do."""
    for chunk in chunks:
        buffer = writer.next(len(chunk))
        vineyard.memory_copy(buffer, chunk)
    writer.finish()


def read(reader):
    """All chunks, up to the end."""
    out = []
    while True:
        try:
            chunk = reader.next()
        except (StopIteration, vineyard.StreamDrainedException):
            return out
        out.append(bytes(memoryview(chunk)) if not isinstance(chunk, (pd.DataFrame, pa.RecordBatch)) else chunk)


def info(name):
    """What the command line says of a stream."""
    return json.loads(v6d("stream", "info", name, "-o", "json"))["item"]


def batch(chunk):
    """A record batch, of whatever the package's reader gives for one."""
    if isinstance(chunk, pd.DataFrame):
        return pa.RecordBatch.from_pandas(chunk, preserve_index=False)
    return chunk if isinstance(chunk, pa.RecordBatch) else pa.ipc.open_stream(chunk).read_next_batch()


def named(client, stream, name):
    """Gives a stream a name."""
    client.persist(stream.id)
    client.put_name(stream.id, name)


CHUNKS = [os.urandom(n) for n in (1, 100, 65536, 300000, 7)]
FRAMES = [pd.DataFrame({"a": np.arange(n), "b": np.arange(n) / 3, "c": [f"x{i}" for i in range(n)]}) for n in (5, 1000, 1)]
BATCHES = [pa.RecordBatch.from_pandas(frame, preserve_index=False) for frame in FRAMES]


def ipc(batches):
    """An Arrow IPC stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batches[0].schema) as out:
        for batch in batches:
            out.write_batch(batch)
    return sink.getvalue()


@check
def python_bytes():
    """bytes written by Python, read by the command line"""
    client = connect()
    stream = ByteStream.new(client, {"path": "/a"})
    named(client, stream, "py-bytes")
    reader = start("stream", "cat", "py-bytes")
    write(stream.open_writer(client), CHUNKS)
    out, _ = reader.communicate(timeout=30)
    assert reader.returncode == 0 and out == b"".join(CHUNKS), (reader.returncode, len(out))


@check
def python_fails():
    """a Python writer that fails, read by the command line"""
    client = connect()
    stream = ByteStream.new(client)
    named(client, stream, "py-fails")
    writer = stream.open_writer(client)
    vineyard.memory_copy(writer.next(5), b"hello")
    writer.fail()
    assert v6d("stream", "cat", "py-fails", code=1) == b"hello"


@check
def cli_bytes():
    """bytes written by the command line, read by Python, and by another reader at the same time"""
    v6d("stream", "create", "cli-bytes")
    client = connect()
    stream = client.get(client.get_name("cli-bytes"))
    assert isinstance(stream, ByteStream), stream
    reader = stream.open_reader(client)
    other = start("stream", "cat", "cli-bytes")
    while not info("cli-bytes")["readers"]:
        time.sleep(0.01)
    data = os.urandom(3 << 20)
    v6d("stream", "put", "cli-bytes", "--chunk", "64KiB", data=data)
    got = b"".join(read(reader))
    out, _ = other.communicate(timeout=30)
    assert got == data and out == data, (len(got), len(out))


@check
def python_on_shared():
    """bytes written by Python to a stream of the command line, with two readers"""
    v6d("stream", "create", "shared", "--retain", "all")
    client = connect()
    stream = client.get(client.get_name("shared"))
    write(stream.open_writer(client), CHUNKS)
    for _ in range(2):
        assert v6d("stream", "cat", "shared") == b"".join(CHUNKS)
    assert b"".join(read(stream.open_reader(connect()))) == b"".join(CHUNKS)


@check
def python_dies():
    """a Python writer of such a stream that dies"""
    v6d("stream", "create", "dies")
    program = ("import sys, os, vineyard; c = vineyard.connect(sys.argv[1]); s = c.get(c.get_name('dies'));"
               "w = s.open_writer(c); vineyard.memory_copy(w.next(5), b'hello'); w.next(5); os.kill(os.getpid(), 9)")
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, SOCKET], timeout=60)
    assert v6d("stream", "cat", "dies", code=1) == b"hello"


@check
def python_batches():
    """record batches written by Python as Arrow IPC, read by the command line"""
    client = connect()
    stream = RecordBatchStream.new(client)
    named(client, stream, "py-batches")
    reader = start("stream", "cat", "py-batches")
    write(stream.open_writer(client), [ipc([batch]) for batch in BATCHES])
    out, _ = reader.communicate(timeout=30)
    table = pa.ipc.open_stream(out).read_all()
    assert table.equals(pa.Table.from_batches(BATCHES)), table


@check
def pushed_batches():
    """record batches and data frames that Python pushes as objects, as a stream and as a table"""
    client = connect()
    for name, values in {"objects": BATCHES, "frames": FRAMES}.items():
        for act in ("cat", "collect"):
            stream = RecordBatchStream.new(client)
            named(client, stream, f"py-{name}-{act}")
            reader = start("stream", act, f"py-{name}-{act}", *(["--name", f"table-{name}"] if act == "collect" else []))
            writer = stream.open_writer(client)
            for value in values:
                writer.append(client.put(value))
            writer.finish()
            out, _ = reader.communicate(timeout=30)
            if act == "cat":
                got = pa.ipc.open_stream(out).read_all()
            else:
                got = client.get(client.get_name(f"table-{name}"))
            assert got.to_pydict() == pa.Table.from_batches(BATCHES).to_pydict(), got


@check
def cli_batches():
    """record batches written by the command line, read by Python"""
    v6d("stream", "put", "cli-batches", "--chunk", "arrow", data=ipc(BATCHES))
    client = connect()
    stream = client.get(client.get_name("cli-batches"))
    assert isinstance(stream, RecordBatchStream), stream
    got = read(stream.open_reader(client))
    assert [batch(chunk).to_pydict() for chunk in got] == [want.to_pydict() for want in BATCHES], got


@check
def python_frames():
    """data frames written by Python, read by the command line"""
    client = connect()
    stream = DataframeStream.new(client)
    named(client, stream, "py-frames")
    writer = stream.open_writer(client)

    def produce():
        write(writer, [ipc([batch]) for batch in BATCHES])

    thread = threading.Thread(target=produce)
    thread.start()
    out = v6d("stream", "cat", "py-frames")
    thread.join()
    pd.testing.assert_frame_equal(pa.ipc.open_stream(out).read_pandas(), pd.concat(FRAMES, ignore_index=True))


@check
def cli_frames():
    """data frames written by the command line, read by Python"""
    v6d("stream", "put", "cli-frames", "--chunk", "arrow", "--type", "dataframe", data=ipc(BATCHES))
    client = connect()
    stream = client.get(client.get_name("cli-frames"))
    assert isinstance(stream, DataframeStream), stream
    got = read(stream.open_reader(client))
    assert [batch(chunk).to_pydict() for chunk in got] == [want.to_pydict() for want in BATCHES], got


@check
def collection():
    """a collection of streams of the command line, read by Python in parallel"""
    client = connect()
    data = {}
    for number in range(3):
        name = f"part-{number}"
        data[name] = os.urandom(100000 + number)
        v6d("stream", "put", name, "--chunk", "16KiB", data=data[name])
    ids = [client.get_name(name) for name in data]
    made = StreamCollection.new(client, {}, ids)
    client.persist(made.id)
    client.put_name(made.id, "parts")
    found = connect().get(client.get_name("parts"))
    assert isinstance(found, StreamCollection) and [int(i) for i in found.streams] == [int(i) for i in ids], found
    results = {}

    def consume(name, id_):
        mine = connect()
        results[name] = b"".join(read(mine.get(id_).open_reader(mine)))

    threads = [threading.Thread(target=consume, args=(name, vineyard.ObjectID(int(id_)))) for name, id_ in zip(data, found.streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == data
    assert b"StreamCollection" in v6d("meta", "parts")


@check
def parallel():
    """a parallel stream of Python's, its parts read by the command line"""
    client = connect()
    streams = [ByteStream.new(client) for _ in range(2)]
    meta = vineyard.ObjectMeta()
    meta["typename"] = "vineyard::ParallelStream"
    meta.set_global(True)
    meta["__streams_-size"] = 2
    for number, stream in enumerate(streams):
        client.persist(stream.id)
        meta.add_member(f"__streams_-{number}", stream.id)
    made = client.create_metadata(meta)
    client.persist(made.id)
    client.put_name(made.id, "parallel")
    for number, stream in enumerate(streams):
        write(stream.open_writer(client), [b"part %d" % number])
    tree = json.loads(v6d("tree", "parallel", "-o", "json"))
    for number, stream in enumerate(streams):
        assert repr(stream.id) in json.dumps(tree), tree
        assert v6d("stream", "cat", repr(stream.id)) == b"part %d" % number


HOARDER = """
import sys, vineyard
client, stream, total = vineyard.connect(sys.argv[1]), vineyard.ObjectID(sys.argv[2]), int(sys.argv[3])
reader, kept = client.get(stream).open_reader(client), []
while True:
    try:
        chunk = reader.next()
    except (StopIteration, vineyard.StreamDrainedException):
        break
    view = memoryview(chunk)
    assert view[0] == len(kept) % 251 and view[-1] == len(kept) % 251, (len(kept), view[0])
    kept.append(chunk)  # never released
assert len(kept) == total, (len(kept), total)
"""


@check
def never_releases():
    """a hundred pools' worth through a stream whose Python reader never releases a chunk"""
    client = connect()
    stream = ByteStream.new(client)
    size = 4 << 20
    total = 100 * client.status.memory_limit // size
    reader = subprocess.Popen([sys.executable, "-W", "ignore", "-c", HOARDER, SOCKET, repr(stream.id), str(total)])
    writer = stream.open_writer(client)
    for count in range(total):
        buffer = np.frombuffer(writer.next(size), dtype=np.uint8)
        buffer[0] = buffer[-1] = count % 251
    writer.finish()
    assert reader.wait(timeout=60) == 0


@check
def listed():
    """stream ls marks a 0.24 stream whose writer has gone"""
    client = connect()
    stream = ByteStream.new(client)
    named(client, stream, "left")
    writer = stream.open_writer(client)
    vineyard.memory_copy(writer.next(5), b"hello")
    client.close()
    for _ in range(500):
        if info("left")["writer"] == "gone":
            break
        time.sleep(0.01)
    else:
        raise AssertionError(v6d("stream", "info", "left"))
    assert b"abandoned" in v6d("stream", "info", "left")


sys.exit(1 if failed else 0)
