//! The storage engines in one process: kvs and sled answer the same calls.
//!
//! `cargo bench --bench engines [-- FILTER]` runs the rows. Each engine has a
//! directory of its own with the same pairs in it. Criterion makes the keys and
//! values before it times a call, and drops the results afterwards.
//!
//! The rows named `synced` call `sync` after each write, so that the write
//! survives a power failure. The other writes call nothing. kvs has passed such
//! a write to the system when the call returns; sled still holds it in memory.
//!
//! To compare with an older version, copy this file into a checkout of it and run
//! it there with the same `CARGO_TARGET_DIR` and `-- --save-baseline baseline`.
//! `figures` then shows both.

#[path = "../tests/simulation/random.rs"]
mod random;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use criterion::{BatchSize, Criterion};
use kvs::{KvStore, KvsEngine};
use random::Random;

/// Pairs in each store before a row begins.
const KEYS: u64 = 100_000;
/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// Calls that criterion prepares and then times at once.
const MANY: BatchSize = BatchSize::NumIterations(1_000);

/// Opens an engine in a directory.
type Open = fn(&Path) -> kvs::Result<Box<dyn KvsEngine>>;

/// The engines of this build.
const ENGINES: &[(&str, Open)] = &[
    ("kvs", |path| Ok(Box::new(KvStore::open(path)?))),
    #[cfg(feature = "sled")]
    ("sled", |path| Ok(Box::new(kvs::SledKvStore::open(path)?))),
];

/// The key with this number.
fn key(number: u64) -> String {
    format!("key{number:013}")
}

/// A value that differs for each number.
fn value(number: u64) -> String {
    format!("{number:0VALUE_BYTES$}")
}

/// A key that is in the store, chosen uniformly for the call with this number.
fn any_key(nth: u64) -> String {
    key(Random::new(nth).below(KEYS))
}

/// The key of the call with this number, which is not in the store before.
fn new_key(nth: u64) -> String {
    key(KEYS + nth)
}

/// Makes a directory with a store of [`KEYS`] pairs, and waits until the disk is
/// idle. It lies beside the sources, because a directory for temporary files may
/// be in memory.
fn load(open: Open) -> tempfile::TempDir {
    let directory = tempfile::tempdir_in(".").unwrap();
    let engine = open(directory.path()).unwrap();
    for number in 0..KEYS {
        engine.set(key(number), value(number)).unwrap();
    }
    engine.sync().unwrap();
    assert!(Command::new("sync").status().unwrap().success());
    directory
}

/// Measures a row. `prepare` makes the input of the call with the number that it
/// gets, and `call` is timed.
fn row<I, O>(
    criterion: &mut Criterion,
    name: &str,
    prepare: impl Fn(&dyn KvsEngine, u64) -> I,
    call: impl Fn(&dyn KvsEngine, I) -> O,
) {
    let mut group = criterion.benchmark_group(name);
    for (engine_name, open) in ENGINES {
        let directory = load(*open);
        let engine = open(directory.path()).unwrap();
        let mut calls = 0;
        let mut prepare_next = || {
            calls += 1;
            prepare(&*engine, calls)
        };
        group.bench_function(*engine_name, |bencher| {
            bencher.iter_batched(&mut prepare_next, |input| call(&*engine, input), MANY);
        });
    }
}

/// Measures writes.
fn writes(criterion: &mut Criterion) {
    let new = |_: &dyn KvsEngine, nth| (new_key(nth), value(nth));
    let old = |_: &dyn KvsEngine, nth| (any_key(nth), value(nth));
    let set = |engine: &dyn KvsEngine, (key, value)| engine.set(key, value).unwrap();
    let set_synced = |engine: &dyn KvsEngine, pair| {
        set(engine, pair);
        engine.sync().unwrap();
    };
    row(criterion, "set", new, set);
    row(criterion, "set, synced", new, set_synced);
    row(criterion, "overwrite", old, set);
    row(criterion, "overwrite, synced", old, set_synced);
    let set_first = |engine: &dyn KvsEngine, nth| {
        set(engine, new(engine, nth));
        new_key(nth)
    };
    row(criterion, "remove", set_first, |engine, key| engine.remove(key).unwrap());
}

/// Measures reads.
fn reads(criterion: &mut Criterion) {
    let get = |engine: &dyn KvsEngine, key| {
        let value = engine.get(key).unwrap();
        assert_eq!(value.as_ref().map(String::len), Some(VALUE_BYTES));
        value
    };
    let get_nothing = |engine: &dyn KvsEngine, key| assert_eq!(engine.get(key).unwrap(), None);
    row(criterion, "get", |_, nth| any_key(nth), get);
    row(criterion, "get, missing key", |_, nth| new_key(nth), get_nothing);
}

/// Measures opening a store that was closed. Closing it is not timed.
fn opening(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    for (engine_name, open) in ENGINES {
        let directory = load(*open);
        group.bench_function(*engine_name, |bencher| {
            let open = |()| open(directory.path()).unwrap();
            bencher.iter_batched(|| (), open, BatchSize::PerIteration);
        });
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    writes(&mut criterion);
    reads(&mut criterion);
    opening(&mut criterion);
    criterion.final_summary();
}
