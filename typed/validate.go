package typed

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"

	"github.com/v6d-go/v6d/internal/status"
)

// Recovered returns the error of a panic in a library that trusts its input:
// what a Pool was refused, or that the input is damaged.
func Recovered(r any, what string) error {
	switch x := r.(type) {
	case refused:
		return x.err
	case error:
		return status.Errorf(status.Invalid, "%s: %w", what, x)
	}
	return status.Errorf(status.Invalid, "%s: %v", what, r)
}

// Validate checks all of an array that came from outside: that its buffers are
// as long as its length needs, and that its offsets rise and stay inside of what
// they point into. It takes time that grows with the array.
func Validate(a arrow.Array) error {
	data := a.Data()
	end := data.Offset() + a.Len()
	buffer := func(i int) []byte {
		if i < len(data.Buffers()) && data.Buffers()[i] != nil {
			return data.Buffers()[i].Bytes()
		}
		return nil
	}
	if valid := buffer(0); valid != nil && a.DataType().ID() != arrow.NULL && int64(len(valid)) < bitutil.BytesForBits(int64(end)) {
		return short("bitmap", len(valid), int(bitutil.BytesForBits(int64(end))))
	}
	switch x := a.(type) {
	case *array.String:
		return rising(slice[int32](buffer(1)), data.Offset(), a.Len(), len(buffer(2)))
	case *array.Binary:
		return rising(slice[int32](buffer(1)), data.Offset(), a.Len(), len(buffer(2)))
	case *array.LargeString:
		return rising(slice[int64](buffer(1)), data.Offset(), a.Len(), len(buffer(2)))
	case *array.LargeBinary:
		return rising(slice[int64](buffer(1)), data.Offset(), a.Len(), len(buffer(2)))
	case *array.List:
		if err := rising(slice[int32](buffer(1)), data.Offset(), a.Len(), x.ListValues().Len()); err != nil {
			return err
		}
		return Validate(x.ListValues())
	case *array.LargeList:
		if err := rising(slice[int64](buffer(1)), data.Offset(), a.Len(), x.ListValues().Len()); err != nil {
			return err
		}
		return Validate(x.ListValues())
	case *array.FixedSizeList:
		if n := int(x.DataType().(*arrow.FixedSizeListType).Len()) * end; x.ListValues().Len() < n {
			return short("list", x.ListValues().Len(), n)
		}
		return Validate(x.ListValues())
	case *array.Dictionary:
		n := x.Dictionary().Len()
		for i := range x.Len() {
			if x.IsValid(i) && (x.GetValueIndex(i) < 0 || x.GetValueIndex(i) >= n) {
				return fmt.Errorf("element %d is number %d of a dictionary of %d", i, x.GetValueIndex(i), n)
			}
		}
		return Validate(x.Dictionary())
	case array.ExtensionArray:
		return Validate(x.Storage())
	case *array.Struct:
		for i := range x.NumField() {
			if err := Validate(x.Field(i)); err != nil {
				return err
			}
		}
		return nil
	}
	if t, ok := a.DataType().(arrow.FixedWidthDataType); ok && !isNested(t) {
		if n := int(bitutil.BytesForBits(int64(end) * int64(t.BitWidth()))); len(buffer(1)) < n {
			return short("buffer", len(buffer(1)), n)
		}
	}
	return nil
}

func short(what string, have, need int) error {
	return status.Errorf(status.Invalid, "a %s has %d elements, %d are needed", what, have, need)
}

func rising[T int32 | int64](offsets []T, from, n, total int) error {
	if n == 0 {
		return nil
	}
	if len(offsets) < from+n+1 {
		return short("list of offsets", len(offsets), from+n+1)
	}
	last := T(0)
	for i, o := range offsets[from : from+n+1] {
		if o < last || int64(o) > int64(total) {
			return status.Errorf(status.Invalid, "offset %d is %d, after %d, of %d", i, o, last, total)
		}
		last = o
	}
	return nil
}

// ValidateValue checks the arrays in a value that [Get] returned: Get does not,
// because that takes time that grows with them. A value that passes can be read
// without surprises, whoever made the object.
func ValidateValue(v any) error {
	switch x := v.(type) {
	case arrow.Array:
		return Validate(x)
	case arrow.RecordBatch:
		for _, a := range x.Columns() {
			if err := Validate(a); err != nil {
				return err
			}
		}
	case *Table:
		for _, b := range x.Batches {
			if err := ValidateValue(b); err != nil {
				return err
			}
		}
	case *Tensor:
		if x.Text != nil {
			return Validate(x.Text)
		}
	case *Index:
		return ValidateValue(x.Values)
	case *Series:
		if x.Index != nil {
			if err := ValidateValue(x.Index); err != nil {
				return err
			}
		}
		return ValidateValue(x.Values)
	case *DataFrame:
		if x.Index != nil {
			if err := ValidateValue(x.Index); err != nil {
				return err
			}
		}
		for i := range x.Columns {
			if err := ValidateValue(x.Columns[i].Values); err != nil {
				return err
			}
		}
	case *Sequence:
		for _, item := range x.Items {
			if err := ValidateValue(item); err != nil {
				return err
			}
		}
	case *Global:
		for _, part := range x.Parts {
			if err := ValidateValue(part); err != nil {
				return err
			}
		}
	}
	return nil
}
