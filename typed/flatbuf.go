package typed

import (
	"bytes"
	"encoding/binary"
	"fmt"

	flatbuffers "github.com/google/flatbuffers/go"
)

// The Arrow library allocates as many fields, and entries of metadata, as a schema
// says it has, and trusts those numbers. They are looked at first here. Slots are those of Schema.fbs,
// Message.fbs and File.fbs of the Arrow format.
const (
	slotMessageHeader = 8
	slotFooterSchema  = 6
	slotSchemaFields  = 6
	slotFieldDict     = 12
	slotFieldChildren = 14

	slotSchemaMetadata = 8
	slotFieldMetadata  = 16
	slotRootMetadata   = 12 // of a message, and of a footer
)

// maxFields bounds the fields of a schema, with their children.
const maxFields = 1 << 20

// CheckSchema checks the numbers of fields in the schema that Arrow IPC data
// begins with, or in the footer of a file, against how much data there is. It
// reports whether there are dictionaries.
func CheckSchema(b []byte) (dictionaries bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("its schema is damaged: %v", r)
		}
	}()
	slot := slotMessageHeader
	if magic := []byte("ARROW1"); bytes.HasPrefix(b, magic) {
		if len(b) < 20 || !bytes.HasSuffix(b, magic) {
			return false, fmt.Errorf("it has no footer: was it truncated?")
		}
		end := len(b) - 10
		n := int64(int32(binary.LittleEndian.Uint32(b[end:])))
		if n <= 0 || n > int64(end) {
			return false, fmt.Errorf("its footer claims %d bytes of %d", n, len(b))
		}
		b, slot = b[end-int(n):end], slotFooterSchema
	} else {
		if len(b) >= 4 && binary.LittleEndian.Uint32(b) == 0xffffffff {
			b = b[4:]
		}
		if len(b) < 8 {
			return false, fmt.Errorf("it ends before its schema")
		}
		n := int64(int32(binary.LittleEndian.Uint32(b)))
		if n <= 0 || n > int64(len(b)-4) {
			return false, fmt.Errorf("its schema claims %d bytes of %d", n, len(b))
		}
		b = b[4 : 4+n]
	}
	root := flatbuffers.Table{Bytes: b, Pos: flatbuffers.GetUOffsetT(b)}
	at := flatbuffers.UOffsetT(root.Offset(flatbuffers.VOffsetT(slot)))
	if at == 0 {
		return false, fmt.Errorf("it has no schema")
	}
	schema := flatbuffers.Table{Bytes: b, Pos: root.Indirect(root.Pos + at)}
	left := maxFields
	if err := checkVector(root, slotRootMetadata); err != nil {
		return false, err
	}
	if err := checkVector(schema, slotSchemaMetadata); err != nil {
		return false, err
	}
	return checkFields(schema, slotSchemaFields, &left, 0)
}

// checkVector checks the length of a list of tables, each of which takes four
// bytes at least.
func checkVector(t flatbuffers.Table, slot flatbuffers.VOffsetT) error {
	at := flatbuffers.UOffsetT(t.Offset(slot))
	if at == 0 {
		return nil
	}
	if n := t.VectorLen(at); n < 0 || n > len(t.Bytes)/4 {
		return fmt.Errorf("its schema claims %d entries in %d bytes", n, len(t.Bytes))
	}
	return nil
}

// checkFields walks the fields in a slot of a table.
func checkFields(t flatbuffers.Table, slot flatbuffers.VOffsetT, left *int, depth int) (dictionaries bool, err error) {
	at := flatbuffers.UOffsetT(t.Offset(slot))
	if at == 0 {
		return false, nil
	}
	n := t.VectorLen(at)
	if *left -= n; n < 0 || n > len(t.Bytes)/4 || *left < 0 || depth > maxDepth {
		return false, fmt.Errorf("its schema claims %d fields in %d bytes", n, len(t.Bytes))
	}
	start := t.Vector(at)
	for i := range n {
		field := flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(start + flatbuffers.UOffsetT(4*i))}
		if err := checkVector(field, slotFieldMetadata); err != nil {
			return false, err
		}
		found, err := checkFields(field, slotFieldChildren, left, depth+1)
		if err != nil {
			return false, err
		}
		dictionaries = dictionaries || found || field.Offset(slotFieldDict) != 0
	}
	return dictionaries, nil
}
