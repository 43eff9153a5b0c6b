package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/spf13/pflag"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/driver/codec"
	"github.com/v6d-go/v6d/internal/output"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

// typeOptions are the flags of put that say what input is and becomes.
type typeOptions struct {
	Type      string
	Format    string
	DType     string
	Shape     string
	Columns   []string
	Schema    []string
	Nulls     []string
	Delimiter string
	Encoding  string
	NoHeader  bool
	NoQuotes  bool

	types map[string]arrow.DataType
	dtype typed.DType
	shape []int64
}

// putTypes are what input can become.
var putTypes = []string{"auto", "bytes", "table", "dataframe", "tensor", "scalar", "sequence"}

func (o *typeOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.Type, "type", "auto", "what to store: "+strings.Join(putTypes, ", "))
	f.StringVar(&o.Format, "format", "", "what the input is, instead of what its name and content say: "+strings.Join(codec.Names(), ", "))
	f.StringVar(&o.DType, "dtype", "", "store raw numbers as a tensor of this element type, such as f64 or int32")
	f.StringVar(&o.Shape, "shape", "", "the shape of that tensor, such as 2x3; by default one dimension")
	f.StringSliceVar(&o.Columns, "columns", nil, "store these columns of a table only, in this order")
	f.StringArrayVar(&o.Schema, "schema", nil, "read a column of text as a type, COLUMN=TYPE; may be repeated")
	f.StringArrayVar(&o.Nulls, "null-value", nil, "a word that means no value in CSV; may be repeated")
	f.StringVar(&o.Delimiter, "delimiter", "", "what separates fields of CSV; by default , tab ; or |, whichever the first line has")
	f.StringVar(&o.Encoding, "encoding", "utf8", "how CSV is encoded: utf8, or latin1 for Windows-1252 and ISO 8859-1")
	f.BoolVar(&o.NoHeader, "no-header", false, "the first line of CSV is a row; columns are f0, f1 and so on")
	f.BoolVar(&o.NoQuotes, "no-quotes", false, "a \" in CSV is an ordinary character")
}

func (o *typeOptions) validate() (err error) {
	if o.Type == "" { // not from flags
		o.Type = "bytes"
	}
	switch {
	case !slices.Contains(putTypes, o.Type):
		return usage("--type %q: want one of %s", o.Type, strings.Join(putTypes, ", "))
	case o.Encoding != "utf8" && o.Encoding != "latin1" && o.Encoding != "":
		return usage("--encoding %q: want utf8 or latin1", o.Encoding).WithHint("iconv converts others")
	case len(unescaped(o.Delimiter)) > 1:
		return usage("--delimiter %q: want one character", o.Delimiter)
	case o.Shape != "" && o.DType == "":
		return usage("--shape needs --dtype")
	case o.DType != "" && o.Type != "auto" && o.Type != "tensor":
		return usage("--dtype is for --type tensor, not %s", o.Type)
	case o.DType != "" && (o.Format != "" || o.Columns != nil || o.Schema != nil):
		return usage("--dtype stores input as it is: --format, --columns and --schema are for what is decoded")
	case o.Type == "bytes" && o.Format != "":
		return usage("--type bytes stores input as it is, --format %s decodes it: they exclude each other", o.Format)
	}
	if _, ok := codec.ByName(o.Format); !ok && o.Format != "" {
		return usage("--format %q: want one of %s", o.Format, strings.Join(codec.Names(), ", "))
	}
	if o.DType != "" {
		if o.dtype, err = flagDType(o.DType); err != nil {
			return err
		}
	}
	if o.Shape != "" {
		for d := range strings.SplitSeq(strings.ReplaceAll(o.Shape, ",", "x"), "x") {
			n, err := strconv.ParseInt(d, 10, 64)
			if err != nil || n < 0 {
				return usage("--shape %q: want numbers with x between them, such as 2x3", o.Shape)
			}
			o.shape = append(o.shape, n)
		}
	}
	for _, s := range o.Schema {
		i := strings.LastIndexByte(s, '=')
		if i < 1 {
			return usage("--schema %q: want COLUMN=TYPE", s)
		}
		t, ok := codec.ParseType(s[i+1:])
		if !ok {
			return usage("--schema %q: no type %q", s, s[i+1:]).
				WithHint("types are bool, int8 to int64, uint8 to uint64, float32, float64, string, binary, date, time, timestamp[s|ms|us|ns]")
		}
		if o.types == nil {
			o.types = map[string]arrow.DataType{}
		}
		o.types[s[:i]] = t
	}
	return nil
}

// flagDType reads --dtype. Words that mean 4 bytes in C++ and 8 in NumPy mean
// what they do there.
func flagDType(name string) (typed.DType, error) {
	d, err := typed.ParseDType(map[string]string{"int": "int64", "uint": "uint64", "float": "float64", "long": "int64"}[name])
	if err != nil {
		d, err = typed.ParseDType(name)
	}
	switch {
	case name == "i8" || name == "u8":
		return d, usage("--dtype %s: 8 bits, or 8 bytes as in NumPy? Write int8, uint8, int64 or uint64", name)
	case err != nil:
		return d, usage("--dtype %q is no type of elements", name).
			WithHint("there are bool, int8 to int64, uint8 to uint64, float16 to float64, complex64, complex128, datetime64[ns], timedelta64[ns]")
	case d.Size == 0:
		return d, usage("--dtype %s has no fixed size", name)
	case d.Big:
		return d, usage("--dtype %s is big-endian, which Vineyard's Python client reads as little-endian", name).
			WithHint("a .npy file says its order and is turned round")
	}
	return d, nil
}

func unescaped(delimiter string) string {
	if delimiter == `\t` {
		return "\t"
	}
	return delimiter
}

func (o *typeOptions) decoding(pool *typed.Pool) codec.Options {
	d := codec.Options{
		Columns: o.Columns, Types: o.types, NoHeader: o.NoHeader, NoQuotes: o.NoQuotes, Latin1: o.Encoding == "latin1", Nulls: o.Nulls, Pool: pool,
	}
	if c := unescaped(o.Delimiter); c != "" {
		d.Delimiter = c[0]
	}
	return d
}

// format finds out what input is; ok is false for bytes.
func (o *typeOptions) format(in io.Reader, source string) (f codec.Format, ok bool, err error) {
	switch {
	case o.Type == "bytes" || o.DType != "":
		return f, false, nil
	case o.Format != "":
		f, ok = codec.ByName(o.Format)
		return f, ok, nil
	}
	if f, ok = codec.ByExtension(source); ok {
		if f.Name == "json" && (o.Type == "table" || o.Type == "dataframe") {
			f, _ = codec.ByName("ndjson") // a list of rows
		}
		return f, true, nil
	}
	if file, isFile := in.(*os.File); isFile {
		head := make([]byte, 16)
		n, _ := file.ReadAt(head, 0) // pipes fail
		if f, ok = codec.Detect(head[:n]); ok {
			return f, true, nil
		}
	}
	switch o.Type {
	case "table", "dataframe":
		return f, false, usage("nothing says what %s is", source).WithHint("--format does: " + strings.Join(codec.Names(), ", "))
	case "tensor":
		return f, false, usage("nothing says what the elements of %s are", source).WithHint("--dtype does, and --shape; or --format npy")
	case "scalar", "sequence":
		f, _ = codec.ByName("json")
		return f, true, nil
	}
	return f, false, nil
}

// putTyped stores what input holds, or with --dry-run only decodes it.
func putTyped(ctx context.Context, c *client.Client, s output.Streams, in io.Reader, f codec.Format, o putOptions, res putResult, progress *output.Progress) (_ putResult, err error) {
	pool := typed.NewPool(ctx, c)
	defer func() {
		if failed := pool.Close(context.WithoutCancel(ctx)); err == nil {
			err = failed
		}
	}()
	decodeTo := pool
	if (o.Type == "dataframe" || o.DryRun) && f.Name != "arrow" && f.Name != "arrows" {
		// The columns of all batches are put together in the pool. Arrow data takes
		// memory only for what is compressed, and may claim any amount of it.
		decodeTo = nil
	}
	err = codec.Faults(func() error {
		data, err := o.decode(ctx, in, res.Source, f, decodeTo, progress)
		if err != nil {
			return err
		}
		defer data.Close()
		frames := pool
		if o.DryRun {
			frames = nil
		}
		value, err := o.convert(data.Value, frames)
		if err != nil {
			return err
		}
		res.Bytes, res.Shape = typed.Size(value), shapeText(value) // now: the input's memory ends here
		if name, ok := decimalColumn(value); ok {
			fmt.Fprintf(s.Err, "v6d: column %q holds decimals: Vineyard's Python client cannot read a table with some\n", name)
		}
		if !o.DryRun {
			res.ID, err = typed.PutFrom(ctx, c, nil, pool, value)
		}
		return err
	})
	return res, err
}

func (o *putOptions) decode(ctx context.Context, in io.Reader, source string, f codec.Format, pool *typed.Pool, progress *output.Progress) (*codec.Data, error) {
	if o.Type == "scalar" {
		if v, ok, err := textScalar(&in); err != nil || ok {
			return &codec.Data{Value: v}, err
		}
	}
	src, done, err := codec.NewSource(in, progress.Add)
	if err != nil {
		return nil, err
	}
	defer done()
	data, err := f.Decode(ctx, src, o.decoding(pool))
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%s as %s: %w", filepath.Base(source), f.Name, err)
	}
	return data, err
}

// decimalColumn returns the first column of decimals of a table.
func decimalColumn(v any) (string, bool) {
	t, ok := v.(*typed.Table)
	if !ok {
		return "", false
	}
	for _, f := range t.Schema.Fields() {
		if f.Type.ID() == arrow.DECIMAL128 || f.Type.ID() == arrow.DECIMAL256 {
			return f.Name, true
		}
	}
	return "", false
}

// textScalar takes input that is no JSON for a string: `echo hello | v6d put -
// --type scalar`. Otherwise in begins again.
func textScalar(in *io.Reader) (any, bool, error) {
	b, err := io.ReadAll(io.LimitReader(*in, 1<<20))
	if err != nil {
		return nil, false, err
	}
	text := strings.TrimRight(string(b), "\r\n")
	if _, err := strconv.ParseFloat(text, 64); err == nil || text == "true" || text == "false" || strings.HasPrefix(text, `"`) {
		*in = bytes.NewReader(b)
		return nil, false, nil
	}
	if strings.HasPrefix(text, "[") || strings.HasPrefix(text, "{") {
		return nil, false, usage("a list or an object is no scalar").WithHint("--type sequence stores a list")
	}
	return typed.Scalar{Value: text}, true, nil
}

// convert makes what was asked for of what was decoded.
func (o *putOptions) convert(v any, pool *typed.Pool) (any, error) {
	switch o.Type {
	case "table":
		return codec.Table(v)
	case "dataframe":
		t, err := codec.Table(v)
		if err != nil {
			return nil, err
		}
		var f *typed.DataFrame
		err = typed.Guard(func() error {
			f, err = t.DataFrame(pool)
			return err
		})
		return f, err
	case "tensor":
		switch x := v.(type) {
		case *typed.Tensor:
			return x, nil
		case *typed.Table:
			if len(x.Names()) == 1 && len(x.Batches) == 1 {
				return typed.TensorOf(x.Batches[0].Column(0))
			}
			return nil, usage("a table of %d columns is no tensor", len(x.Names())).WithHint("--columns picks one")
		}
	case "scalar":
		if s, ok := v.(typed.Scalar); ok {
			return s, nil
		}
	case "sequence":
		if s, ok := v.(*typed.Sequence); ok {
			return s, nil
		}
	default:
		return v, nil
	}
	return nil, usage("what the input holds cannot be stored as a %s", o.Type)
}

// rawTensor stores numbers as they are: --dtype.
func rawTensor(ctx context.Context, c *client.Client, data *stored, o *typeOptions) (client.ID, error) {
	size := int64(o.dtype.Size)
	shape := o.shape
	if o.Shape == "" {
		if data.size%size != 0 {
			return 0, usage("%d bytes are no whole number of elements of %s, which have %d", data.size, o.dtype, size)
		}
		shape = []int64{data.size / size}
	}
	want := float64(size)
	for _, d := range shape {
		want *= float64(d)
	}
	if want != float64(data.size) || want > math.MaxInt64 {
		return 0, usage("a tensor of %s of the shape %s has %.0f bytes, the input %d", o.dtype, o.Shape, want, data.size)
	}
	m, err := typed.TensorMeta(&typed.Tensor{DType: o.dtype, Shape: shape}, client.BlobMember(data.id), data.size)
	if err != nil {
		return 0, err
	}
	return c.CreateObject(ctx, m)
}

// shapeText says in a few words how large a value is.
func shapeText(v any) string {
	switch x := v.(type) {
	case *typed.Table:
		return fmt.Sprintf("%d rows, %d columns", x.Rows(), len(x.Names()))
	case arrow.RecordBatch:
		return fmt.Sprintf("%d rows, %d columns", x.NumRows(), x.NumCols())
	case *typed.DataFrame:
		return fmt.Sprintf("%d rows, %d columns", x.Rows(), len(x.Columns))
	case *typed.Tensor:
		return fmt.Sprintf("%s of %s", shapeOf(x.Shape), x.DType)
	case *typed.Series:
		return fmt.Sprintf("%d rows of %s", x.Values.Len(), x.Values.DType)
	case *typed.Index:
		return fmt.Sprintf("%d labels of %s", x.Values.Len(), x.Values.DType)
	case *typed.Sequence:
		return fmt.Sprintf("%d items", len(x.Items))
	case *typed.Global:
		return fmt.Sprintf("%d parts", len(x.Parts))
	case *typed.Sparse:
		return shapeOf(x.Shape)
	case *arrow.Schema:
		return fmt.Sprintf("%d columns", x.NumFields())
	case arrow.Array:
		return fmt.Sprintf("%d elements of %s, %d of them null", x.Len(), x.DataType(), x.NullN())
	case typed.Scalar:
		return fmt.Sprint(x.Value)
	}
	return ""
}

func shapeOf(shape []int64) string {
	if len(shape) == 0 {
		return "one element"
	}
	text := make([]string, len(shape))
	for i, d := range shape {
		text[i] = strconv.FormatInt(d, 10)
	}
	return strings.Join(text, "x")
}

// fits is the end of a dry run: it fails if there is less memory than it takes.
func fits(ctx context.Context, c *client.Client, res putResult) (putResult, error) {
	st, err := c.InstanceStatus(ctx)
	if err != nil {
		return res, err
	}
	if free := st.MemoryLimit - st.MemoryUsage; res.Bytes > free {
		return res, status.Errorf(status.NotEnoughMemory, "it takes %s, the pool has %s left", config.FormatSize(res.Bytes), config.FormatSize(free)).
			WithHint("delete objects, or start the daemon with a larger --size")
	}
	return res, nil
}
