//! `kvs-client`.
fn main() {}
