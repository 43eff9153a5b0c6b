"""Writes the files beside it, with NumPy 1.26: .interop/venv/bin/python generate.py"""
import io, os, zipfile
import numpy as np

os.chdir(os.path.dirname(os.path.abspath(__file__)))
grid = np.arange(24).reshape(2, 3, 4)
times = np.array(["2020-01-02T03:04:05.678901234", "NaT", "1969-12-31T23:59:59"], "M8[ns]")
arrays = {
    "bool": np.array([True, False, True]),
    "int8": grid.astype("i1"), "int16": grid.astype("i2"), "int32": -grid.astype("i4"), "int64": grid.astype("i8") << 40,
    "uint8": grid.astype("u1"), "uint16": grid.astype("u2"), "uint32": grid.astype("u4"),
    "uint64": np.array([0, 2**64 - 1], "u8"),
    "float16": np.array([0.5, -1.25, np.inf], "f2"), "float32": np.array([0.5, np.nan, -0.0], "f4"), "float64": np.array([[0.1, 1e300]]),
    "complex64": np.array([1 + 2j, -3j], "c8"), "complex128": np.array([1 + 2j, -3j], "c16"),
    "datetime64": times, "timedelta64": times - times[2], "day": times.astype("M8[D]"),
    "unicode": np.array([["a", "grün"], ["", "𝄞"]]),
    "scalar": np.array(3.5), "empty": np.zeros((2, 0, 3), "u2"), "deep": np.ones((1,) * 15 + (2,), "i2"),
    "big_int32": grid.astype(">i4"), "big_complex128": np.array([1 + 2j, -3j], ">c16"), "big_unicode": np.array(["a", "grün"], ">U4"),
    "big_datetime64": times.astype(">M8[ns]"),
    "fortran": np.asfortranarray(grid.astype("f8")), "fortran_unicode": np.asfortranarray(np.array([["a", "b"], ["cc", "d"], ["e", "ff"]])),
    "big_fortran": np.asfortranarray(grid.astype(">i2")),
    "object": np.array([None, 1]), "structured": np.zeros(2, [("a", "i4"), ("b", "f8")]),
    "bytes": np.array([b"ab", b"c"]), "void": np.zeros(2, "V3"), "longdouble": np.zeros(2, "f16"),
    "unitless": np.zeros(2, "m8"), "multiple": np.array([1], "M8[25s]"),
}
for name, a in arrays.items():
    np.save(name + ".npy", a)
for version in (2, 3):
    with open("version%d.npy" % version, "wb") as f:
        np.lib.format.write_array(f, grid.astype("i4"), version=(version, 0))
np.savez("plain.npz", x=arrays["float64"], y=arrays["unicode"])
np.savez("positional.npz", arrays["int8"], arrays["scalar"])
np.savez_compressed("deflated.npz", zeros=np.zeros((100, 100)), **{"grün/ä": arrays["bool"]})
# Headers of all lengths around the places where padding starts anew.
np.savez_compressed("headers.npz", *(np.zeros((0, 10 ** (i % 3)) + (1,) * (i // 3), "u1") for i in range(80)))
with zipfile.ZipFile("other.npz", "w") as z:
    z.writestr("readme.txt", "hello")
