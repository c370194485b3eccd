//! The engines side by side.
fn main() {}
