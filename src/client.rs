//! `KvsClient`.
