//! Parsers of scanner results, and their reduction to what was expected.
