"""A process of bench: runs operations of one client library and says how long each took.

Requests are lines of JSON {"op": name, "args": {...}}, answers {"samples": [seconds, ...]},
{"value": text} or {"error": text}. bench/python.go starts it.
"""

import json
import os
import sys
import time

clock = time.perf_counter


def timed(n, call):
    samples = []
    for i in range(n):
        start = clock()
        call(i)
        samples.append(clock() - start)
    return samples


class Vineyard:
    """The published client over IPC, and over TCP when there is a port."""

    def __init__(self, socket, port):
        import numpy
        import vineyard

        self.np, self.vineyard = numpy, vineyard
        self.socket, self.port = socket, int(port)
        self.client = vineyard.connect(socket)
        self.arrays = {}
        self.blobs = {}

    def rpc_client(self):
        if not hasattr(self, "rpc"):
            self.rpc = self.vineyard.connect(host="127.0.0.1", port=self.port)
        return self.rpc

    def exists(self, n):
        exists, some = self.client.exists, self.vineyard.ObjectID(1)
        return timed(n, lambda i: exists(some))

    def get(self, n, size):
        """Gets one blob again and again."""
        builder = self.client.create_blob(size)
        blob = builder.seal(self.client)
        get, id_ = self.client.get_blob, blob.id
        get(id_)
        samples = timed(n, lambda i: get(id_))
        del blob
        self.client.delete([id_])
        return samples

    def create_seal(self, n, size):
        """Creates and seals; what it made goes again, untimed."""
        client = self.client
        client.delete([client.create_blob(size).seal(client).id])
        samples = []
        for _ in range(n):
            start = clock()
            blob = client.create_blob(size).seal(client)
            samples.append(clock() - start)
            id_ = blob.id
            del blob
            client.delete([id_])
        return samples

    def array(self, size):
        if size not in self.arrays:
            self.arrays.clear()
            self.arrays[size] = self.np.ones(size, dtype="uint8")
        return self.arrays[size]

    def write(self, size):
        """Creates a blob, copies an array into it, seals: the time of all three."""
        source = self.array(size)
        start = clock()
        builder = self.client.create_blob(size)
        self.np.copyto(self.np.frombuffer(memoryview(builder), dtype="uint8"), source)
        blob = builder.seal(self.client)
        took = clock() - start
        id_ = blob.id
        del blob, builder
        self.client.delete([id_])
        return [took]

    def rpc_exists(self, n):
        rpc, some = self.rpc_client(), self.vineyard.ObjectID(1)
        return timed(n, lambda i: rpc.exists(some))

    def rpc_status(self, n):
        rpc = self.rpc_client()
        return timed(n, lambda i: rpc.status)

    def payload(self, size, kind):
        """Bytes that compression cannot shrink, or numbers that it can."""
        if kind == "noise":
            return self.np.random.default_rng(1).integers(0, 256, size, dtype="uint8")
        return self.np.frombuffer(self.np.arange(size // 8).tobytes(), dtype="uint8")

    def rpc_put(self, n, size, kind):
        rpc = self.rpc_client()
        builder = self.vineyard.RemoteBlobBuilder.make(size)
        self.np.frombuffer(memoryview(builder), dtype="uint8")[:] = self.payload(size, kind)
        samples = []
        for _ in range(n):
            start = clock()
            meta = rpc.create_remote_blob(builder)
            samples.append(clock() - start)
            rpc.delete([meta.id])
        return samples

    def rpc_get(self, n, size, kind):
        rpc = self.rpc_client()
        builder = self.vineyard.RemoteBlobBuilder.make(size)
        self.np.frombuffer(memoryview(builder), dtype="uint8")[:] = self.payload(size, kind)
        id_ = rpc.create_remote_blob(builder).id
        samples = timed(n, lambda i: rpc.get_remote_blob(id_))
        rpc.delete([id_])
        return samples

    def list(self, n, pattern, limit):
        return timed(n, lambda i: self.client.list_metadatas(pattern, False, limit, nobuffer=True))

    def get_name(self, n, name):
        return timed(n, lambda i: self.client.get_name(name))

    def new_stream(self):
        meta = self.vineyard.ObjectMeta()
        meta["typename"] = "bench::Stream"
        id_ = self.client.create_metadata(meta).id
        self.client.create_stream(id_)
        return repr(id_)

    def produce(self, stream, n, size):
        id_ = self.vineyard.ObjectID(stream)
        self.client.open_stream(id_, "w")
        start = clock()
        for _ in range(n):
            self.client.new_buffer_chunk(id_, size)
        self.client.stop_stream(id_, False)
        return [clock() - start]

    def consume(self, stream, n):
        id_ = self.vineyard.ObjectID(stream)
        self.client.open_stream(id_, "r")
        got = 0
        start = clock()
        try:
            while True:
                chunk = self.client.next_buffer_chunk(id_)
                got += 1
                del chunk
        except self.vineyard.StreamDrainedException:
            pass
        took = clock() - start
        if got != n:
            raise ValueError("%d chunks of %d" % (got, n))
        self.client.drop_stream(id_)
        return [took]

    def prepare(self, size):
        self.array(size)
        return []

    def forget(self):
        self.arrays.clear()
        return []

    # What peers can do too: a value under a name of this process's choice.
    def put_value(self, n, size):
        data = b"x" * size
        samples, ids = [], []
        client = self.client
        for _ in range(n):
            start = clock()
            builder = client.create_blob(size)
            builder.copy(0, data)
            blob = builder.seal(client)
            samples.append(clock() - start)
            ids.append(blob.id)
            del blob
            if size > 1 << 20:
                client.delete([ids.pop()])
        if ids:
            client.delete(ids)
        return samples

    def get_value(self, n, size):
        blob = self.client.create_blob(size).seal(self.client)
        id_ = blob.id
        samples = timed(n, lambda i: memoryview(self.client.get_blob(id_)))
        del blob
        self.client.delete([id_])
        return samples


class Plasma:
    """The store of pyarrow 11."""

    def __init__(self, socket):
        import pyarrow.plasma as plasma

        self.plasma = plasma
        self.client = plasma.connect(socket)

    def put_value(self, n, size):
        data = b"x" * size
        samples = []
        for _ in range(n):
            id_ = self.plasma.ObjectID(os.urandom(20))
            start = clock()
            memoryview(self.client.create(id_, size)).cast("B")[:] = data
            self.client.seal(id_)
            samples.append(clock() - start)
            self.client.delete([id_])
        return samples

    def get_value(self, n, size):
        id_ = self.plasma.ObjectID(os.urandom(20))
        self.client.create(id_, size)
        self.client.seal(id_)
        samples = timed(n, lambda i: memoryview(self.client.get_buffers([id_])[0]))
        self.client.delete([id_])
        return samples


class LMDB:
    def __init__(self, folder):
        import lmdb

        self.env = lmdb.open(folder, map_size=2 << 30, sync=False, writemap=True)

    def put_value(self, n, size):
        data = b"x" * size

        def put(i):
            with self.env.begin(write=True) as txn:
                txn.put(b"k", data)

        return timed(n, put)

    def get_value(self, n, size):
        with self.env.begin(write=True) as txn:
            txn.put(b"k", b"x" * size)

        def get(i):
            with self.env.begin(buffers=True) as txn:
                memoryview(txn.get(b"k"))

        return timed(n, get)


class Redis:
    def __init__(self, socket):
        import redis

        self.client = redis.Redis(unix_socket_path=socket)

    def put_value(self, n, size):
        data = b"x" * size
        return timed(n, lambda i: self.client.set("k", data))

    def get_value(self, n, size):
        self.client.set("k", b"x" * size)
        return timed(n, lambda i: self.client.get("k"))


class SharedMemory:
    """multiprocessing.shared_memory: a segment a value."""

    def __init__(self):
        from multiprocessing import shared_memory

        self.make = shared_memory.SharedMemory

    def put_value(self, n, size):
        data = b"x" * size
        samples = []
        for _ in range(n):
            start = clock()
            segment = self.make(create=True, size=size)
            segment.buf[:size] = data
            samples.append(clock() - start)
            segment.close()
            segment.unlink()
        return samples

    def get_value(self, n, size):
        segment = self.make(create=True, size=size)

        def get(i):
            other = self.make(name=segment.name)
            memoryview(other.buf)
            other.close()

        from multiprocessing import resource_tracker

        resource_tracker.unregister = lambda *args: None  # attaching registers too, until 3.13
        samples = timed(n, get)
        segment.close()
        segment.unlink()
        return samples


class ArrowFile:
    """An Arrow file on tmpfs, mapped by its reader."""

    def __init__(self, folder):
        import pyarrow

        self.pa, self.path = pyarrow, os.path.join(folder, "values.arrow")

    def put_value(self, n, size):
        batch = self.pa.record_batch([self.pa.array([b"x" * size], self.pa.large_binary())], ["v"])

        def put(i):
            with self.pa.OSFile(self.path, "wb") as sink:
                with self.pa.ipc.new_file(sink, batch.schema) as writer:
                    writer.write_batch(batch)

        return timed(n, put)

    def get_value(self, n, size):
        self.put_value(1, size)

        def get(i):
            with self.pa.memory_map(self.path) as source:
                self.pa.ipc.open_file(source).get_batch(0).column(0)

        return timed(n, get)


def main():
    kinds = {
        "vineyard": Vineyard, "plasma": Plasma, "lmdb": LMDB, "redis": Redis,
        "shared_memory": SharedMemory, "arrow": ArrowFile,
    }
    # Libraries print where they like: answers have a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    target = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if target is None:
                target = kinds[sys.argv[1]](*sys.argv[2:])
            if request["op"] == "ready":
                answer = {}
            else:
                got = getattr(target, request["op"])(**(request["args"] or {}))
                answer = {"value": got} if isinstance(got, str) else {"samples": got}
        except Exception as err:  # told to the one who asked
            answer = {"error": "%s: %s: %s" % (request["op"], type(err).__name__, err)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
