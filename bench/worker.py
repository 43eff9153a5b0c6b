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
        self.checked = set()
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
        self.checked = set()
        return []

    # Typed values: group_types.go makes the same ones in Go.
    def value(self, what, n):
        """A float64 array of n elements, or 10 columns of n rows as a frame or a table."""
        if (what, n) not in self.arrays:
            self.arrays.clear()
            thousand = self.np.arange(1000)
            if what == "array":
                made = self.np.resize(thousand * 0.5, n)
            else:
                columns = {
                    "c%d" % c: self.np.resize(thousand + c if c % 2 == 0 else thousand * 0.5 + c, n)
                    for c in range(10)
                }
                made = self.make_columns(what, columns)
            self.arrays[what, n] = made
        return self.arrays[what, n]

    def make_columns(self, what, columns):
        if what == "table":
            import pyarrow

            return pyarrow.table(columns)
        import pandas

        return pandas.DataFrame(columns)

    def check(self, op, what, n, id_):
        """Compares an object with what was put, once for each operation and value."""
        if (op, what, n) in self.checked:
            return
        self.checked.add((op, what, n))
        want, got = self.value(what, n), self.client.get(id_)
        if what == "array":
            same = got.dtype == want.dtype and self.np.array_equal(got, want)
        elif what == "table":
            same = got.equals(want)
        else:
            same = list(got.columns) == list(want.columns) and all(
                self.np.array_equal(got[c].values, want[c].values) for c in want.columns
            )
        if not same:
            raise ValueError("%s of the %s of %d: what comes back is something else" % (op, what, n))

    def check_typed(self, what, n, id):
        """What Go put has to be what this process would put."""
        self.check("Go's put", what, n, self.vineyard.ObjectID(id))
        return []

    def put_typed(self, what, n, times):
        """Puts a value; what it made goes again, untimed."""
        value, samples = self.value(what, n), []
        for _ in range(times):
            start = clock()
            id_ = self.client.put(value)
            samples.append(clock() - start)
            self.check("put", what, n, id_)
            self.client.delete([id_])
        return samples

    def get_typed(self, what, n, times):
        get, id_ = self.client.get, self.client.put(self.value(what, n))
        self.check("get", what, n, id_)
        samples = timed(times, lambda i: get(id_))
        self.client.delete([id_])
        return samples

    def get_ratio(self, small, large, times):
        """How many times longer a get of the large array takes than one of the small."""
        ids = []
        for n in (small, large):
            ids.append(self.client.put(self.value("array", n)))
            self.check("ratio", "array", n, ids[-1])
        self.forget()
        get, samples = self.client.get, ([], [])
        for _ in range(times):
            for id_, list_ in zip(ids, samples):
                start = clock()
                get(id_)
                list_.append(clock() - start)
        self.client.delete(ids)
        return [float(self.np.median(samples[1]) / self.np.median(samples[0]))]

    def get_frame(self, id, want):
        """Gets what v6d put stored; it has to have the digest."""
        start = clock()
        got = self.client.get(self.vineyard.ObjectID(id))
        took = clock() - start
        if want:
            compare(digest(got), want)
        return [took]

    def read_and_put(self, path, want):
        """What one does without v6d put: pandas reads the file, the client puts the frame."""
        import pandas

        start = clock()
        id_ = self.client.put(pandas.read_csv(path, parse_dates=["day"]))
        took = clock() - start
        if want:
            compare(digest(self.client.get(id_)), want)
        self.client.delete([id_])
        return [took]

    def drop(self, ids):
        self.client.delete([self.vineyard.ObjectID(id_) for id_ in ids])
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


def digest(value):
    """Sums and lengths of a table's or data frame's columns, which are those of Files.generate."""
    import numpy
    import pandas
    import pyarrow.compute as pc

    out = [len(value)]
    for name in ["n%d" % c for c in range(8)] + ["day", "customer"]:
        if isinstance(value, pandas.DataFrame):
            column = value[name]
            if name == "day":
                out.append(int(column.to_numpy().astype("datetime64[D]").astype("int64").sum()))
            elif name == "customer":
                out += [int(column.str.len().sum()), column.nunique(), column.iloc[0], column.iloc[-1]]
            else:
                out.append(float(column.sum()))
        else:
            column = value[name]
            if name == "day":
                days = column.to_numpy().astype("datetime64[D]").astype("int64")
                out.append(int(numpy.sum(days)))
            elif name == "customer":
                texts = (column[0].as_py(), column[-1].as_py())
                out += [pc.sum(pc.utf8_length(column)).as_py(), pc.count_distinct(column).as_py(), *texts]
            else:
                out.append(float(pc.sum(column).as_py()))
    return out


def compare(got, want):
    for g, w in zip(got, want, strict=True):
        if g != w and (isinstance(w, str) or abs(g - w) > 1e-9 * abs(w)):
            raise ValueError("the columns have the digest %s, not %s" % (got, want))


class Files:
    """Reads files with the libraries that are made for it, and makes the files."""

    def __init__(self, folder):
        import numpy
        import pyarrow.csv
        import pyarrow.parquet

        self.np, self.pa, self.folder = numpy, pyarrow, folder
        self.want = None

    def path(self, name):
        return os.path.join(self.folder, name)

    def generate(self, rows):
        """8 columns of numbers, a date and a string, as table.csv and table.parquet; their digest."""
        np, pa, rng = self.np, self.pa, self.np.random.default_rng(1)
        columns = {}
        for c in range(8):
            if c % 2 == 0:
                columns["n%d" % c] = rng.integers(0, 10 ** (c + 5), rows)
            else:
                columns["n%d" % c] = np.round(rng.normal(0, 10.0 ** (c + 2), rows), 6)
        days = np.datetime64("2020-01-01") + rng.integers(0, 2000, rows)
        columns["day"] = pa.array(days, pa.date32())
        columns["customer"] = pa.array(["customer-%06d" % i for i in range(50000)]).take(
            pa.array(rng.integers(0, 50000, rows))
        )
        table = pa.table(columns)
        self.write_csv(table, "table.csv")
        pa.parquet.write_table(table, self.path("table.parquet"))
        self.want = digest(table)
        return json.dumps(self.want)

    def write_csv(self, table, name):
        """As pandas writes it: without quotes that are not needed."""
        options = self.pa.csv.WriteOptions(include_header=False, quoting_style="none")
        with open(self.path(name), "wb") as out:
            out.write((",".join(table.column_names) + "\n").encode())
            self.pa.csv.write_csv(table, out, options)

    def read(self, name):
        start = clock()
        if name.endswith(".csv"):
            table = self.pa.csv.read_csv(self.path(name))
        else:
            table = self.pa.parquet.read_table(self.path(name))
        took = clock() - start
        compare(digest(table), self.want)
        return [took]

    def generate_orders(self, rows):
        """What pipeline.py begins with, orders.csv: each fortieth row or so is bad."""
        np, pa, rng = self.np, self.pa, self.np.random.default_rng(2)
        numbers = {"x%d" % c: np.round(rng.normal(0, 1 + c, rows), 6) for c in range(6)}
        price = np.round(rng.lognormal(3, 1, rows), 2)
        quantity = rng.integers(-1, 40, rows)  # not above 0: bad
        region = rng.integers(0, 8, rows)
        target = np.log1p(price) * 3 + quantity * 0.2 + region + numbers["x0"] - 2 * numbers["x1"] + rng.normal(0, 1, rows)
        text = np.round(target, 6).astype("U12").astype(object)
        text[rng.random(rows) < 0.005] = "n/a"
        days = np.datetime64("2020-01-01") + rng.integers(0, 2000, rows)
        names = pa.array(["north", "south", "east", "west", "inner", "outer", "upper", "lower"])
        table = pa.table({
            "order": np.arange(rows), "day": pa.array(days, pa.date32()), "region": names.take(pa.array(region)),
            "price": price, "quantity": quantity, **numbers, "target": pa.array(text, pa.string()),
        })
        self.write_csv(table, "orders.csv")
        return []


def main():
    kinds = {
        "vineyard": Vineyard, "plasma": Plasma, "lmdb": LMDB, "redis": Redis,
        "shared_memory": SharedMemory, "arrow": ArrowFile, "files": Files,
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
