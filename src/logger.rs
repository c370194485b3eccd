//! Messages on stderr.
