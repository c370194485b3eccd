//! What the tests of durability share: a disk in memory that loses power and
//! fails ([`disk`]), a model of what a store has promised ([`model`]), and a
//! random workload that compares the two ([`workload`]).
//!
//! Everything is chosen by one seed, so that a run can be repeated: a failure
//! prints it, and `KVS_SEED=..` runs that seed alone. `KVS_TORTURE=n` makes `n`
//! times as many runs. (Salts are random whatever the seed. They change bytes,
//! but neither the number nor the order of calls.)
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod disk;
pub mod file;
pub mod model;
pub mod names;
pub mod random;
pub mod state;
pub mod workload;

use std::io::Write;

/// Calls `run` with each of so many seeds, or with the one that was asked for.
pub fn for_each_seed(name: &str, seeds: u64, mut run: impl FnMut(u64)) {
    if let Some(seed) = number_from_env("KVS_SEED") {
        return run(seed);
    }
    let first = name.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(31) + u64::from(byte));
    for seed in 0..seeds * number_from_env("KVS_TORTURE").unwrap_or(1) {
        run((first << 32) + seed);
    }
}

/// A number in the environment.
fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}

/// Prints a line even when the test passes, which `println` would not.
pub fn report(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
