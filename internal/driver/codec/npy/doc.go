// Package npy reads and writes NumPy's files of arrays: .npy, which holds one,
// and .npz, a zip of several.
//
// The source of the format is numpy/lib/format.py of NumPy, versions 1.0, 2.0 and
// 3.0 of the format. What is written here are the bytes that np.save writes for
// an array in C's order, which Vineyard's tensors are in.
//
// Vocabulary: a file is a magic string, a version, the header and the data. The
// header is a literal of Python, a dictionary of three keys: descr is the dtype
// in the spelling of the array protocol (<f8: little endian, float, 8 bytes),
// shape the dimensions, and fortran_order says that in the data the first
// dimension varies fastest, not the last as in C. A member is a file in a zip.
package npy
