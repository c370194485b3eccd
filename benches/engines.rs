//! The engines side by side: the same workload, at the same durability.
//!
//! Two levels, and what each guarantees:
//!
//! * `handed over`: a write that has returned survives the end of the process.
//!   kvs writes each through to the system; sled is flushed after each, which
//!   on Linux hands it over but does not put it on the disk.
//! * `synced`: a write that has returned survives a loss of power. Both engines
//!   are synced after each; `SledKvStore` adds the `fdatasync` that sled's own
//!   flush leaves out, as `strace -e trace=fdatasync` shows.
//!
//! Filling is outside of the timed part, and values that are read are checked.

#![allow(missing_docs, reason = "criterion's macros make a public function")]

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use kvs::{KvStore, KvsEngine};

/// Keys that are loaded before anything is timed.
const KEYS: u64 = 100_000;
/// Bytes of a value.
const VALUE_BYTES: usize = 100;

/// Opens an engine in a directory.
type Open = fn(&Path) -> kvs::Result<Box<dyn KvsEngine>>;

/// Makes what was written as durable as a level says.
type Commit = fn(&dyn KvsEngine);

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

/// The value of the key with this number.
fn value(number: u64) -> String {
    format!("{number:0VALUE_BYTES$}")
}

/// The next of a pseudo-random sequence (xorshift64, Marsaglia 2003).
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// An engine with [`KEYS`] keys, synced.
fn loaded(open: Open, directory: &Path) -> Box<dyn KvsEngine> {
    let engine = open(directory).unwrap();
    for number in 0..KEYS {
        engine.set(key(number), value(number)).unwrap();
    }
    engine.sync().unwrap();
    engine
}

/// Times writes: of keys that are new, and of keys that are there.
fn writes(criterion: &mut Criterion) {
    let levels: [(&str, Commit); 2] = [
        ("handed over", |engine| engine.flush().unwrap()),
        ("synced", |engine| engine.sync().unwrap()),
    ];
    for (level, commit) in levels {
        for what in ["set", "overwrite"] {
            let mut group = criterion.benchmark_group(format!("{what}, {level}"));
            for (name, open) in ENGINES {
                let directory = tempfile::tempdir_in(".").unwrap();
                let engine = loaded(*open, directory.path());
                let (mut next, mut state) = (KEYS, 1);
                group.bench_function(*name, |bencher| {
                    bencher.iter(|| {
                        let number = if what == "set" { next } else { random(&mut state) % KEYS };
                        next += 1;
                        engine.set(key(number), value(next)).unwrap();
                        commit(&*engine);
                    });
                });
            }
        }
    }
}

/// Times reads of keys that are there, all alike, and of keys that are not.
fn reads(criterion: &mut Criterion) {
    for (what, offset) in [("get", 0), ("get a missing key", KEYS)] {
        let mut group = criterion.benchmark_group(what);
        for (name, open) in ENGINES {
            let directory = tempfile::tempdir_in(".").unwrap();
            let engine = loaded(*open, directory.path());
            let mut state = 1;
            group.bench_function(*name, |bencher| {
                bencher.iter(|| {
                    let number = offset + random(&mut state) % KEYS;
                    let expected = (offset == 0).then(|| value(number));
                    assert_eq!(engine.get(key(number)).unwrap(), expected);
                });
            });
        }
    }
}

/// Times opening a store that was closed.
fn opening(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    for (name, open) in ENGINES {
        let directory = tempfile::tempdir_in(".").unwrap();
        drop(loaded(*open, directory.path()));
        group.bench_function(*name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    let begun = Instant::now();
                    let engine = open(directory.path()).unwrap();
                    total += begun.elapsed();
                    assert_eq!(engine.get(key(0)).unwrap(), Some(value(0)));
                }
                total
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = writes, reads, opening
}
criterion_main!(benches);
