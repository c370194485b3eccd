//! `KvsServer`.
