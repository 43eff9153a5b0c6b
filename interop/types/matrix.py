"""The published client's part of the type matrix; driven line by line.

Reads one JSON command a line, answers each with one JSON line, {"error": WHY} if it
did not work:

    {"op": "put", "expr": E}              stores the value of an expression; its id
    {"op": "get", "id": ID}               takes an object; its value and type
    {"op": "mapped", "id": ID, "column": NAME}   whether its buffer lies in the pool
    {"op": "write", "expr": E, "path": P}  writes a file of the format of its extension
    {"op": "read", "path": P, "frame": B}  reads such a file; its value and type

Values are canonical, as types_test.go has it. It is not called types.py: Python would
take that for its own module of this name.
"""

import base64
import decimal
import json
import sys
import warnings

sys.dont_write_bytecode = True
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import polars  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.feather  # noqa: E402
import pyarrow.parquet  # noqa: E402
import scipy.sparse  # noqa: E402
import vineyard  # noqa: E402
from vineyard.data.dataframe import make_global_dataframe  # noqa: E402
from vineyard.data.tensor import make_global_tensor  # noqa: E402

client = vineyard.connect(sys.argv[1])
NAMES = {
    "client": client, "np": np, "pd": pd, "pa": pa, "polars": polars, "sparse": scipy.sparse, "decimal": decimal,
    "vineyard": vineyard, "make_global_dataframe": make_global_dataframe, "make_global_tensor": make_global_tensor,
}


def text(raw):
    """Bytes as text."""
    return base64.b64encode(bytes(raw)).decode()


def label(name):
    """The name of a column: a string as it is, anything else as JSON."""
    return name if isinstance(name, str) else json.dumps(name, separators=(",", ":"))


def named(name):
    """How a type tells of the name of an index or a series."""
    return "" if name is None else " " + label(name)


class Row(dict):
    """A row as JSON writes it: with all its columns, even if some have one name."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self.pairs = pairs

    def items(self):
        return self.pairs


# NumPy and pandas.


def dtype_name(array):
    """The dtype of an array; all that is text is string, be it of a fixed length or objects."""
    if array.dtype.kind == "U":
        return "string"
    if array.dtype != object:
        return array.dtype.name
    return "string" if all(x is None or isinstance(x, str) for x in array.reshape(-1)) else "object"


def elements(array):
    """The elements of an array, as lists in lists."""
    if array.dtype.kind in "SV":
        raw, size = np.ascontiguousarray(array).tobytes(), array.dtype.itemsize
        flat = [text(raw[i : i + size]) for i in range(0, len(raw), size)]
    elif array.dtype.kind == "M":
        fine = array.reshape(-1)
        if np.datetime_data(array.dtype)[0] in ("Y", "M", "W", "D", "h", "m"):
            fine = fine.astype("datetime64[s]")
        flat = [None if np.isnat(x) else str(x) for x in fine]
    elif array.dtype.kind == "m":
        flat = [None if np.isnat(x) else int(x.astype("int64")) for x in array.reshape(-1)]
    else:
        flat = [canonical(x)[0] for x in array.reshape(-1)]
    for n in reversed(array.shape[1:]):
        flat = [flat[i : i + n] for i in range(0, len(flat), n)] if n else []
    if array.size == 0:
        return np.empty(array.shape).tolist()
    return flat if array.shape else flat[0]


def array(x):
    """An array of NumPy. The type tells if it is in Fortran's order."""
    order = " F" if x.flags.f_contiguous and not x.flags.c_contiguous else ""
    return elements(x), f"{dtype_name(x)}[{','.join(map(str, x.shape))}]{order}"


def column(values):
    """The values of a series or an index, whatever holds them; and their dtype."""
    kind = values.dtype
    if isinstance(kind, pd.SparseDtype):
        values = np.asarray(values.sparse.to_dense())
    elif isinstance(kind, pd.DatetimeTZDtype):  # times are told in UTC
        values = np.asarray(values.dt.tz_convert("UTC").dt.tz_localize(None))
    elif isinstance(kind, pd.CategoricalDtype):
        values = np.asarray(values.astype(object))
    elif isinstance(kind, pd.api.extensions.ExtensionDtype):
        return [None if pd.isna(x) else canonical(x)[0] for x in values], str(kind)
    else:
        values = np.asarray(values)
    return elements(values), dtype_name(values)


def numbered(index):
    """Whether an index only numbers the rows."""
    return index.name is None and index.dtype == "int64" and list(index) == list(range(len(index)))


def index(x):
    """An index."""
    values, kind = column(x.to_series())
    return values, f"index {kind}{named(x.name)}"


def series(x):
    """A series: its values, and its index unless that only numbers the rows."""
    values, kind = column(x)
    if numbered(x.index):
        return values, f"series {kind}{named(x.name)}"
    labels, of = index(x.index)
    return {"index": labels, "values": values}, f"series {kind}{named(x.name)}, {of}"


def frame(x):
    """A data frame: its rows. Its index is the first column, unless that only numbers them."""
    columns = [(label(n), *column(x.iloc[:, i])) for i, n in enumerate(x.columns)]
    if not numbered(x.index):
        unnamed = "level_0" if "index" in x.columns else "index"
        columns.insert(0, (unnamed if x.index.name is None else label(x.index.name), *column(x.index.to_series())))
    rows = [Row([(n, v[i]) for n, v, _ in columns]) for i in range(len(x))]
    return rows, " ".join(["frame", *(f"{n}:{kind}" for n, _, kind in columns)])


# Arrow.


def arrow_scalar(x):
    """An element of an array."""
    if not x.is_valid:
        return None
    kind = x.type
    if pa.types.is_timestamp(kind):
        return str(np.datetime64(x.value, kind.unit))
    if pa.types.is_time(kind):
        return str(np.datetime64(x.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).as_py(), kind.unit)).split("T")[1]
    if pa.types.is_duration(kind):
        return x.cast(pa.int64()).as_py()
    if pa.types.is_date(kind):
        return x.as_py().isoformat()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [arrow_scalar(item) for item in x.values]
    if pa.types.is_struct(kind):
        return {name: arrow_scalar(x[name]) for name in x}
    if pa.types.is_dictionary(kind):
        return arrow_scalar(x.value)
    return canonical(x.as_py())[0]


def arrow_array(x):
    """An array of Arrow."""
    chunks = x.chunks if isinstance(x, pa.ChunkedArray) else [x]
    for chunk in chunks:
        chunk.validate(full=True)
    return [arrow_scalar(item) for item in x], f"array {x.type}"


def schema(x):
    """A schema."""
    return [{"name": f.name, "type": str(f.type), "nullable": f.nullable} for f in x], "schema"


def table(x):
    """A table or a record batch: its rows. The type tells the batches, if there are several."""
    x.validate(full=True)
    sizes, what = [], "batch"
    if isinstance(x, pa.Table):
        what = "table"
        sizes = [b.num_rows for b in x.to_batches()]
    if len(sizes) > 1:
        what += " " + "+".join(map(str, sizes))
    columns = [(f.name, arrow_array(x.column(i))[0]) for i, f in enumerate(x.schema)]
    rows = [Row([(n, v[i]) for n, v in columns]) for i in range(x.num_rows)]
    keys = [" #" + key.decode() for key in sorted(x.schema.metadata or ())]
    return rows, "".join([what, *(f" {f.name}:{f.type}" for f in x.schema), *keys])


# Everything.


def matrix(x):
    """A sparse matrix: the arrays that it is made of."""
    parts = {"csr": ("data", "indices", "indptr"), "csc": ("data", "indices", "indptr"), "bsr": ("data", "indices", "indptr"),
             "coo": ("col", "data", "row"), "dia": ("data", "offsets")}[x.format]
    return {"format": x.format, "shape": list(x.shape), **{p: elements(np.asarray(getattr(x, p))) for p in parts}}, "sparse " + x.dtype.name


def number(x):
    """A number, or a time, of NumPy."""
    if isinstance(x, (np.datetime64, np.timedelta64)):
        return elements(np.array(x)), x.dtype.name
    return canonical(x.item())[0], x.dtype.name


def several(x):
    """A tuple or a list."""
    items = [canonical(item) for item in x]
    return [v for v, _ in items], "(" + " ".join(kind for _, kind in items) + ")"


def canonical(x):
    """A value as JSON has it, and its type."""
    if x is None or x is pd.NaT or x is pd.NA:
        return None, "none"
    if isinstance(x, (bool, int, str)):
        return x, type(x).__name__
    if isinstance(x, float):
        return (x if np.isfinite(x) else None), "float"
    if isinstance(x, complex):
        return [canonical(x.real)[0], canonical(x.imag)[0]], "complex"
    if isinstance(x, (bytes, memoryview)):
        return text(x), "bytes"
    if isinstance(x, decimal.Decimal):
        return str(x), "decimal"
    if isinstance(x, dict):
        return {label(k): canonical(v)[0] for k, v in x.items()}, "dict"
    if isinstance(x, (set, frozenset)):
        return [canonical(v)[0] for v in sorted(x)], "set"
    if isinstance(x, vineyard.Blob):
        return text(memoryview(x) if not x.is_empty else b""), "bytes"
    if isinstance(x, (vineyard.Object, vineyard.ObjectMeta)):
        return {"opaque": x.typename}, ""
    if type(x).__module__.startswith("vineyard.io."):  # a stream
        return {"opaque": "vineyard::" + type(x).__name__}, ""
    if isinstance(x, pd.arrays.SparseArray):
        values, kind = array(np.asarray(x))
        return values, "sparse " + kind
    if isinstance(x, polars.DataFrame):
        values, kind = table(x.to_arrow())
        return values, "polars " + kind
    for kinds, f in (
        ((tuple, list), several), (np.ndarray, array), (np.generic, number), (pd.Index, index), (pd.Series, series), (pd.DataFrame, frame),
        ((pa.Array, pa.ChunkedArray), arrow_array), (pa.Schema, schema), ((pa.RecordBatch, pa.Table), table), (scipy.sparse.spmatrix, matrix),
    ):
        if isinstance(x, kinds):
            return f(x)
    if isinstance(x, pd.Timestamp):
        return elements(np.array(x.tz_convert("UTC").tz_localize(None) if x.tz else x, dtype="datetime64[ns]")), "timestamp"
    if hasattr(x, "isoformat"):
        return x.isoformat(), type(x).__name__
    raise TypeError(f"there is no canonical form of {type(x)}: {x!r}")


def write(value, path):
    """Writes a file of the format that its extension names."""
    kind = path.rpartition(".")[2]
    if kind == "npy":
        np.save(path, value, allow_pickle=False)
    elif kind == "npz":
        np.savez(path, **value)
    elif kind in ("raw", "csv", "json", "ndjson", "txt"):
        with open(path, "wb") as file:
            file.write(value.encode() if isinstance(value, str) else bytes(value))
    else:
        if isinstance(value, pd.DataFrame):
            value = pa.Table.from_pandas(value, preserve_index=False).replace_schema_metadata(None)
        if kind == "parquet":
            pa.parquet.write_table(value, path)
            return
        with pa.OSFile(path, "wb") as file:
            new = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
            with new(file, value.schema) as out:
                out.write(value)


def read(path, is_frame):
    """Reads such a file."""
    kind = path.rpartition(".")[2]
    if kind == "npy":
        return canonical(np.load(path, allow_pickle=False))
    if kind == "parquet":
        value = pa.parquet.read_table(path)
    else:
        with pa.OSFile(path, "rb") as file:
            value = pa.ipc.open_file(file).read_all()
    return canonical(value.to_pandas() if is_frame else value)


def mapped(id_, name):
    """Whether a buffer lies in shared memory: a tensor's, or that of a column of a table."""
    value = client.get(id_)
    if name:
        address = value.column(name).chunk(0).buffers()[1].address
    else:
        address = value.__array_interface__["data"][0]
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            fields = line.split(None, 5)
            first, last = (int(x, 16) for x in fields[0].split("-"))
            if first <= address < last:
                return {"where": fields[5].strip() if len(fields) > 5 else "", "shared": "s" in fields[1]}
    return {"where": "nowhere", "shared": False}


def run(command):
    """Does what a command says."""
    op = command["op"]
    if op == "put":
        value = eval(command["expr"], dict(NAMES))  # the test's own
        made = value if isinstance(value, vineyard.ObjectID) else value.id if isinstance(value, (vineyard.Object, vineyard.ObjectMeta)) else client.put(value)
        return {"id": repr(made)}
    if op == "write":
        write(eval(command["expr"], dict(NAMES)), command["path"])
        return {}
    if op == "mapped":
        return mapped(vineyard.ObjectID(command["id"]), command.get("column"))
    value, kind = canonical(client.get(vineyard.ObjectID(command["id"]))) if op == "get" else read(command["path"], command["frame"])
    return {"value": value, "type": kind}


print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    try:
        answer = json.dumps(run(json.loads(line)), allow_nan=False)
    except Exception as error:  # the package has its own exceptions
        while error.__cause__:
            error = error.__cause__
        answer = json.dumps({"error": f"{type(error).__name__}: {error}".partition("\n")[0][:400]})
    print(answer, flush=True)
