//! The engines side by side: the same calls, at the same durability.
//!
//! The level is in the name of each row that writes:
//!
//! * `unsynced`: nothing is done after the call. sled holds the write in memory
//!   for up to half a second. So does kvs when it is told to (`kvs buffered`);
//!   else it has handed it to the system, so that it survives more.
//! * `handed over`: a write that has returned survives the end of the process.
//!   kvs writes each through to the system; sled is flushed after each, which
//!   on Linux hands it over but does not put it on the disk.
//! * `synced`: a write that has returned survives a loss of power. Both engines
//!   are synced after each; `SledKvStore` adds the `fdatasync` that sled's own
//!   flush leaves out, as `strace -e trace=fdatasync` shows.
//!
//! Keys and values are made, and values that were read are compared, outside of
//! the timed part. Each write changes the value, and after overwrites every key
//! is read.

#![allow(missing_docs, reason = "criterion's macros make a public function")]

#[path = "../tests/simulation/random.rs"]
mod random;

use std::cell::RefCell;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kvs::{KvStore, KvsEngine, Options};
use random::Random;

/// Keys that are loaded before anything is timed.
const KEYS: u64 = 100_000;
/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// Calls whose keys and values are made, or compared, at a time.
const CHUNK: u64 = 1_000;
/// Sets that are synced together, in the row of batches.
const BATCH: u64 = 64;
/// The skew of the zipfian choice of keys.
const SKEW: f64 = 0.99;

/// Opens an engine in a directory.
type Open = fn(&Path) -> kvs::Result<Box<dyn KvsEngine>>;

/// Makes what was written as durable as a level says.
type Commit = fn(&dyn KvsEngine);

/// Chooses the number of a key.
type Choose = fn(&mut Random) -> u64;

/// The engines of this build.
const ENGINES: &[(&str, Open)] = &[
    ("kvs", |path| Ok(Box::new(KvStore::open(path)?))),
    #[cfg(feature = "sled")]
    ("sled", |path| Ok(Box::new(kvs::SledKvStore::open(path)?))),
];

/// kvs with writes that wait in memory, as the server opens it.
const BUFFERED: (&str, Open) = ("kvs buffered", |path| {
    let mut options = Options::default();
    options.buffered = true;
    Ok(Box::new(KvStore::open_with(path, options)?))
});

/// The levels of durability.
const LEVELS: [(&str, Commit); 3] = [
    ("unsynced", |_| ()),
    ("handed over", |engine| engine.flush().unwrap()),
    ("synced", |engine| engine.sync().unwrap()),
];

/// A loaded key, all alike.
fn uniform(random: &mut Random) -> u64 {
    random.below(KEYS)
}

/// A loaded key, few often and most seldom.
fn zipfian(random: &mut Random) -> u64 {
    random.zipfian(KEYS, SKEW)
}

/// A key that was not loaded.
fn missing(random: &mut Random) -> u64 {
    KEYS + uniform(random)
}

/// Keys that are chosen so, without end.
fn many(random: &mut Random, choose: Choose) -> impl Iterator<Item = u64> {
    std::iter::repeat_with(move || choose(random))
}

/// The key with this number.
fn key(number: u64) -> String {
    format!("key{number:013}")
}

/// What the key with this number is set to by its write of this number.
fn value(number: u64, version: u32) -> String {
    format!("{version:010}{number:0width$}", width = VALUE_BYTES - 10)
}

/// An engine in a directory of its own, and what is in it.
struct Subject {
    /// The engine. Declared, and so dropped, before its directory.
    engine: Box<dyn KvsEngine>,
    /// How often each key was set.
    versions: RefCell<Vec<u32>>,
    /// Where its files are, on the disk that the sources are on: a directory
    /// for temporary files may be in memory.
    directory: tempfile::TempDir,
}

impl Subject {
    /// One with [`KEYS`] keys, on a disk that has nothing left to write.
    fn loaded(open: Open) -> Subject {
        let directory = tempfile::tempdir_in(".").unwrap();
        let engine = open(directory.path()).unwrap();
        let subject = Subject { engine, versions: RefCell::default(), directory };
        for number in 0..KEYS {
            let (key, value) = subject.next_write(number);
            subject.engine.set(key, value).unwrap();
        }
        subject.engine.sync().unwrap();
        // What earlier rows and removed directories have left to the system is
        // not to be written while this one is timed.
        assert!(Command::new("sync").status().unwrap().success());
        subject
    }

    /// The key with this number, and a value that it never had.
    fn next_write(&self, number: u64) -> (String, String) {
        let mut versions = self.versions.borrow_mut();
        let index = number as usize;
        if index >= versions.len() {
            versions.resize(index + 1, 0);
        }
        versions[index] += 1;
        (key(number), value(number, versions[index]))
    }

    /// The value that the key with this number has to have.
    fn expected(&self, number: u64) -> Option<String> {
        self.versions.borrow().get(number as usize).map(|version| value(number, *version))
    }

    /// Reads every key.
    fn check(&self) {
        for number in 0..self.versions.borrow().len() as u64 {
            assert_eq!(self.engine.get(key(number)).unwrap(), self.expected(number));
        }
    }

    /// Times that many calls which set the next of these keys, and commit.
    fn time_sets(
        &self,
        calls: u64,
        mut numbers: impl Iterator<Item = u64>,
        commit: Commit,
    ) -> Duration {
        let mut total = Duration::ZERO;
        for count in chunks(calls) {
            let numbers = numbers.by_ref().take(count);
            let writes: Vec<_> = numbers.map(|number| self.next_write(number)).collect();
            let begun = Instant::now();
            for (key, value) in writes {
                self.engine.set(key, value).unwrap();
                commit(&*self.engine);
            }
            total += begun.elapsed();
        }
        total
    }

    /// Times that many batches of [`BATCH`] sets and a sync.
    fn time_batches(&self, batches: u64, random: &mut Random) -> Duration {
        let mut total = Duration::ZERO;
        for _ in 0..batches {
            total += self.time_sets(BATCH, many(random, uniform), |_| ());
            let begun = Instant::now();
            self.engine.sync().unwrap();
            total += begun.elapsed();
        }
        total
    }

    /// Times that many gets of the next of these keys.
    fn time_gets(&self, calls: u64, mut numbers: impl Iterator<Item = u64>) -> Duration {
        let mut total = Duration::ZERO;
        for count in chunks(calls) {
            let numbers: Vec<u64> = numbers.by_ref().take(count).collect();
            let keys: Vec<String> = numbers.iter().map(|number| key(*number)).collect();
            let mut found = Vec::with_capacity(keys.len());
            let begun = Instant::now();
            found.extend(keys.into_iter().map(|key| self.engine.get(key).unwrap()));
            total += begun.elapsed();
            let expected = numbers.iter().map(|number| self.expected(*number));
            assert!(found.into_iter().eq(expected));
        }
        total
    }
}

/// Sizes of chunks that sum up to `calls`.
fn chunks(calls: u64) -> impl Iterator<Item = usize> {
    (0..calls).step_by(CHUNK as usize).map(move |done| CHUNK.min(calls - done) as usize)
}

/// Times sets of new keys.
fn sets(criterion: &mut Criterion) {
    for (level, commit) in LEVELS {
        writes(criterion, "set", level, |subject, calls, _| {
            let new = subject.versions.borrow().len() as u64;
            subject.time_sets(calls, new.., commit)
        });
    }
}

/// Times sets of keys that are there, chosen all alike.
fn overwrites(criterion: &mut Criterion) {
    for (level, commit) in LEVELS {
        writes(criterion, "overwrite", level, |subject, calls, random| {
            subject.time_sets(calls, many(random, uniform), commit)
        });
    }
}

/// Times writes of a kind, and then checks them.
fn writes(
    criterion: &mut Criterion,
    what: &str,
    level: &str,
    time: impl Fn(&Subject, u64, &mut Random) -> Duration,
) {
    let mut group = criterion.benchmark_group(format!("{what}, {level}"));
    let buffered = (level == "unsynced").then_some(BUFFERED);
    for (name, open) in ENGINES.iter().copied().chain(buffered) {
        let (subject, mut random) = (Subject::loaded(open), Random::new(1));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|calls| time(&subject, calls, &mut random));
        });
        subject.check();
    }
}

/// Times batches of overwrites that are synced together.
fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(format!("{BATCH} overwrites, synced once"));
    group.throughput(Throughput::Elements(BATCH));
    for (name, open) in ENGINES {
        let (subject, mut random) = (Subject::loaded(*open), Random::new(1));
        group.bench_function(*name, |bencher| {
            bencher.iter_custom(|batches| subject.time_batches(batches, &mut random));
        });
        subject.check();
    }
}

/// Times reads.
fn reads(criterion: &mut Criterion) {
    let choices: [(&str, Choose); 3] =
        [("get, uniform", uniform), ("get, zipfian 0.99", zipfian), ("get, missing key", missing)];
    for (what, choose) in choices {
        let mut group = criterion.benchmark_group(what);
        for (name, open) in ENGINES {
            let (subject, mut random) = (Subject::loaded(*open), Random::new(1));
            group.bench_function(*name, |bencher| {
                bencher.iter_custom(|calls| subject.time_gets(calls, many(&mut random, choose)));
            });
        }
    }
}

/// Times opening a store that was closed.
fn opening(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    for (name, open) in ENGINES {
        let Subject { engine, directory, .. } = Subject::loaded(*open);
        drop(engine);
        group.bench_function(*name, |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| time_open(*open, &directory)).sum());
        });
    }
}

/// Times one opening, and checks that a key is there.
fn time_open(open: Open, directory: &tempfile::TempDir) -> Duration {
    let begun = Instant::now();
    let engine = open(directory.path()).unwrap();
    let took = begun.elapsed();
    assert_eq!(engine.get(key(KEYS - 1)).unwrap(), Some(value(KEYS - 1, 1)));
    took
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = sets, overwrites, batches, reads, opening
}
criterion_main!(benches);
