//! `kvs-server`.
fn main() {}
