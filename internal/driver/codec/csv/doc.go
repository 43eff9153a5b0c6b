// Package csv is the codec between delimited text and tables (RFC 4180).
//
// A record is a line, or several when a quoted field holds line breaks; a row is
// a record after the header. Text is cut into blocks of whole records, which are
// parsed side by side; each block becomes a record batch, whose columns are
// decoded straight into memory of the caller's allocator.
//
// The parser is our own because the blocks need one that works on bytes in the
// middle of a file, that says whether a field was quoted (an empty field is
// null, "" is an empty string), and that is no slower than decoding the numbers.
//
// The type of a column is inferred from a sample: the narrowest of null, int64,
// float64, bool, date32, time32[s], timestamp and large_utf8 that holds all of
// it. A later value that does not fit is an error that names its row, never a
// silent change of type.
package csv
