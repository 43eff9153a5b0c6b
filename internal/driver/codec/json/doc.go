// Package json reads and writes tables as newline-delimited JSON, one object a
// row, and other values as one JSON text.
//
// The source of the format is RFC 8259, and https://github.com/ndjson/ndjson-spec
// for the lines. JSON knows fewer types than Arrow and NumPy do; what it lacks is
// written as text: times as RFC 3339 has them, decimals as digits, bytes as
// base64 (RFC 4648). A float that is whole keeps its fraction, 1.0, so that it is
// one again when it is read; NaN and the infinities become null.
//
// Vocabulary: a token is a value in the text, of which the place and the kind are
// known. A guess is what kinds of values a column has had, from which its type
// follows. A sink decodes tokens into the column of that type. Reading takes two
// passes over the text: one that guesses, so that no later row can be of another
// type, and one that decodes.
package json
