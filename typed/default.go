package typed

import (
	"context"
	"reflect"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/v6d-go/v6d/client"
)

// heap is Go's own memory.
var heap = memory.DefaultAllocator

// newDefault registers the types of Vineyard 0.24.
func newDefault() *Registry {
	r := &Registry{types: map[string]Type{}, builders: map[reflect.Type]Builder{}}
	for _, t := range []Type{
		{"vineyard::Scalar", "Scalar", "int, float, string and bool; Python reads a bool as 0 or 1", resolveScalar, true},
		{"vineyard::Sequence", "*Sequence", "Python reads a tuple", resolveSequence, true},
		{"vineyard::PickleBuffer", "*Pickle", "of what Python pickled Value decodes plain values, NumPy's arrays and times of pandas; written of None, bool, int, float, str, bytes, list, tuple and dict", resolvePickle, true},
		{"vineyard::Array", "*Tensor", "of one dimension", resolveArray, false},
		{"vineyard::Tensor", "*Tensor", "every dtype of NumPy but structures; arrays of objects are pickles", resolveTensor, true},

		{"vineyard::NumericArray", "arrow.Array", "numbers, dates, times, timestamps and durations", resolveNumeric, true},
		{"vineyard::BooleanArray", "*array.Boolean", "", resolveBoolean, true},
		{largeStrings, "*array.LargeString", "all strings are written so", resolveBinary(true, arrow.BinaryTypes.LargeString), true},
		{"vineyard::LargeStringArray", "*array.LargeString", "", resolveBinary(true, arrow.BinaryTypes.LargeString), false},
		{"vineyard::BaseBinaryArray<arrow::StringArray>", "*array.String", "", resolveBinary(false, arrow.BinaryTypes.String), false},
		{"vineyard::StringArray", "*array.String", "", resolveBinary(false, arrow.BinaryTypes.String), false},
		{"vineyard::BaseBinaryArray<arrow::LargeBinaryArray>", "*array.LargeBinary", "what Python writes, and cannot read", resolveBinary(true, arrow.BinaryTypes.LargeBinary), false},
		{largeBinaries, "*array.LargeBinary", "the spelling that Python reads", resolveBinary(true, arrow.BinaryTypes.LargeBinary), true},
		{"vineyard::BaseBinaryArray<arrow::BinaryArray>", "*array.Binary", "", resolveBinary(false, arrow.BinaryTypes.Binary), false},
		{"vineyard::FixedSizeBinaryArray", "*array.FixedSizeBinary", "decimals, too, in a table whose schema says so", resolveFixedBinary, true},
		{"vineyard::NullArray", "*array.Null", "", resolveNull, true},
		{largeLists, "*array.LargeList", "all lists are written so", resolveList(true), true},
		{"vineyard::BaseListArray<arrow::LargeListArray>", "*array.LargeList", "", resolveList(true), false},
		{"vineyard::BaseListArray<arrow::ListArray>", "*array.List", "", resolveList(false), false},
		{"vineyard::FixedSizeListArray", "*array.FixedSizeList", "", resolveFixedList, false},
		{"vineyard::SchemaProxy", "*arrow.Schema", "", resolveSchema, true},
		{"vineyard::RecordBatch", "arrow.RecordBatch", "", resolveRecordBatch, true},
		{"vineyard::Table", "*Table", "", resolveTable, true},

		{"vineyard::Index", "*Index", "", resolveIndex, true},
		{"vineyard::Series", "*Series", "", resolveSeries, true},
		{"vineyard::DataFrame", "*DataFrame", "", resolveDataFrame, true},
		{"vineyard::SparseArray", "*SparseArray", "a sparse column of pandas", resolveSparseArray, false},
		{"vineyard::GlobalTensor", "*Global", "parts on other instances are absent", resolveGlobal, true},
		{"vineyard::GlobalDataFrame", "*Global", "parts on other instances are absent", resolveGlobal, true},
		{"vineyard::Collection", "*Global", "", resolveGlobal, false},
		{"vineyard::BSRMatrix", "*Sparse", "", resolveSparse("data", "indices", "indptr"), false},
		{"vineyard::CSCMatrix", "*Sparse", "", resolveSparse("data", "indices", "indptr"), false},
		{"vineyard::CSRMatrix", "*Sparse", "", resolveSparse("data", "indices", "indptr"), false},
		{"vineyard::COOMatrix", "*Sparse", "", resolveSparse("data", "row", "col"), false},
		{"vineyard::DIAMatrix", "*Sparse", "", resolveSparse("data", "offsets"), false},

		{Name: "vineyard::Hashmap", Note: "a hash table of C++: its slots are laid out by the compiler"},
		{Name: "vineyard::PerfectHashmap", Note: "a hash table of C++"},
		{Name: "vineyard::ArrowFragment", Note: "a part of a property graph"},
		{Name: "vineyard::ArrowFragmentGroup", Note: "the parts of a property graph"},
		{Name: "vineyard::ArrowVertexMap", Note: "the vertices of a property graph"},
		{Name: "vineyard::ArrowLocalVertexMap", Note: "the vertices of a part of a property graph"},
		{Name: "vineyard::ByteStream", Note: "a stream: v6d stream cat"},
		{Name: "vineyard::DataframeStream", Note: "a stream: v6d stream cat"},
		{Name: "vineyard::RecordBatchStream", Note: "a stream: v6d stream cat"},
		{Name: "vineyard::StreamCollection", Note: "a list of streams"},
		{Name: "vineyard::ParallelStream", Note: "a list of streams"},
	} {
		r.Register(t)
	}
	for _, v := range []any{Scalar{}, 0, int64(0), uint64(0), 0.0, false, ""} {
		r.RegisterBuilder(v, buildScalar)
	}
	for _, v := range []any{(*Sequence)(nil), []any(nil)} {
		r.RegisterBuilder(v, buildSequence)
	}
	for _, v := range []any{(*Pickle)(nil), None{}, Dict(nil), Tuple(nil)} {
		r.RegisterBuilder(v, buildPickle)
	}
	r.RegisterBuilder((*Tensor)(nil), buildTensor)
	r.RegisterBuilder((*arrow.Array)(nil), buildArrow)
	r.RegisterBuilder((*arrow.Schema)(nil), buildSchema)
	r.RegisterBuilder((*arrow.RecordBatch)(nil), buildRecordBatch)
	r.RegisterBuilder((*Table)(nil), buildTable)
	r.RegisterBuilder((*Index)(nil), buildIndex)
	r.RegisterBuilder((*Series)(nil), buildSeries)
	r.RegisterBuilder((*DataFrame)(nil), buildDataFrame)
	r.RegisterBuilder((*Global)(nil), buildGlobal)
	r.RegisterBuilder([]byte(nil), func(ctx context.Context, w *Writer, value any) (*client.Meta, error) {
		return w.Blob(ctx, value.([]byte))
	})
	return r
}
