// Package typed makes objects of Go values and Go values of objects: scalars,
// sequences, tensors, Arrow arrays, schemas, record batches and tables, pandas
// indexes, series and data frames, and the global ones of several instances.
// The layouts are those that Vineyard 0.24 and its Python client write, so that
// every client in every language reads what is put here, and what it reads here
// any of them has put.
//
// Nothing is copied where it need not be. [Get] maps the blobs of an object and
// returns values over that memory: they end with [Object.Release] and must not
// be written. [Put] copies each buffer once into a blob, and not at all if it was
// allocated from a [Pool], an Arrow allocator that takes memory from the daemon:
// what is built in it is already where it will be shared.
//
// Vocabulary: a resolver makes a value of an object by its typename, a builder
// makes the metadata of an object of a Go value by its Go type; a [Registry]
// holds both and can be extended and overridden within a scope. A dtype is the
// type of an array's elements, by the names of NumPy.
package typed
