package typed

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
)

// Size returns about how many bytes the elements of a value take.
func Size(v any) int64 {
	switch x := v.(type) {
	case *Tensor:
		switch x.DType.Kind {
		case String:
			return Size(arrow.Array(x.Text))
		case Pickled:
			if x.Pickle != nil {
				return int64(len(x.Pickle.Bytes))
			}
		}
		return int64(len(x.Data))
	case *Index:
		return Size(x.Values)
	case *Series:
		if x.Index == nil {
			return Size(x.Values)
		}
		return Size(x.Values) + Size(x.Index)
	case *DataFrame:
		n := int64(0)
		if x.Index != nil {
			n = Size(x.Index)
		}
		for i := range x.Columns {
			n += Size(x.Columns[i].Values)
		}
		return n
	case *Table:
		n := int64(0)
		for _, b := range x.Batches {
			n += Size(b)
		}
		return n
	case arrow.RecordBatch:
		n := int64(0)
		for _, a := range x.Columns() {
			n += Size(a)
		}
		return n
	case arrow.Array:
		return arraySize(x)
	case *Sequence:
		n := int64(0)
		for _, item := range x.Items {
			n += Size(item)
		}
		return n
	case *Global:
		n := int64(0)
		for _, part := range x.Parts {
			n += Size(part)
		}
		return n
	case *Pickle:
		return int64(len(x.Bytes))
	case []byte:
		return int64(len(x))
	}
	return 0
}

// arraySize counts the bytes of the elements of an array, not of the buffers
// that they may be a part of.
func arraySize(a arrow.Array) int64 {
	n := int64(0)
	if a.NullN() > 0 && a.DataType().ID() != arrow.NULL {
		n = bitutil.BytesForBits(int64(a.Len()))
	}
	switch x := a.(type) {
	case *array.LargeString:
		return n + 8*int64(a.Len()+1) + int64(len(x.ValueBytes()))
	case *array.String:
		return n + 4*int64(a.Len()+1) + int64(len(x.ValueBytes()))
	case *array.LargeBinary:
		return n + 8*int64(a.Len()+1) + int64(len(x.ValueBytes()))
	case *array.Binary:
		return n + 4*int64(a.Len()+1) + int64(len(x.ValueBytes()))
	case *array.LargeList:
		return n + 8*int64(a.Len()+1) + arraySize(x.ListValues())
	case *array.List:
		return n + 4*int64(a.Len()+1) + arraySize(x.ListValues())
	case *array.FixedSizeList:
		return n + arraySize(x.ListValues())
	case *array.Dictionary:
		return n + arraySize(x.Indices()) + arraySize(x.Dictionary())
	case array.ExtensionArray:
		return arraySize(x.Storage())
	}
	if t, ok := a.DataType().(arrow.FixedWidthDataType); ok {
		return n + bitutil.BytesForBits(int64(a.Len())*int64(t.BitWidth()))
	}
	return n
}
