//! Disk space: what was overwritten or removed is given back, whatever the workload.
//!
//! `src/engine/store/compaction.rs` states the bound.

mod simulation;

use std::fs;
use std::path::Path;
use std::time::Duration;

use kvs::{KvStore, KvsEngine, Options};
use simulation::disk::SimulatedDisk;
use simulation::random::Random;
use simulation::workload::DIRECTORY;

/// Bytes of all files in a directory.
fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap();
    // A segment may be removed meanwhile.
    entries.filter_map(|entry| Some(entry.unwrap().metadata().ok()?.len())).sum()
}

/// A figure of a store.
fn stat(store: &impl KvsEngine, name: &str) -> u64 {
    store.stats().into_iter().find(|(known, _)| *known == name).unwrap().1
}

/// A store in a directory, and the most bytes that it had live.
struct Bounded {
    directory: tempfile::TempDir,
    options: Options,
    store: Option<KvStore>,
    live_max: u64,
    batch_bytes: u64,
}

impl Bounded {
    fn new(options: Options) -> Bounded {
        let directory = tempfile::tempdir().unwrap();
        let mut new = Bounded { directory, options, store: None, live_max: 0, batch_bytes: 0 };
        new.reopen();
        new
    }

    fn store(&self) -> &KvStore {
        self.store.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.store = None;
        let opened = KvStore::open_with(self.directory.path(), self.options.clone());
        self.store = Some(opened.unwrap());
    }

    fn set(&self, key: u64, value_len: usize) {
        self.store().set(format!("key{key:06}"), "v".repeat(value_len)).unwrap();
    }

    /// Fails if the directory has more bytes than the bound.
    fn check(&mut self, when: &str) {
        let size = size_of(self.directory.path());
        self.live_max = self.live_max.max(stat(self.store(), "live_bytes"));
        let Options { segment_bytes, compact_threshold_bytes, .. } = self.options;
        let segments = 6 * segment_bytes.max(self.batch_bytes);
        // Preallocated space and the reserve come on top.
        let extra = (1 << 20) + segment_bytes + segment_bytes / 8 + 4096;
        let bound = 3 * self.live_max + 2 * compact_threshold_bytes + segments + extra;
        assert!(size <= bound, "{size} bytes {when}; the bound is {bound}");
    }
}

/// Options with segments of so many bytes and the lowest threshold.
fn small(segment_bytes: u64) -> Options {
    let mut options = Options::default();
    options.segment_bytes = segment_bytes;
    options.compact_threshold_bytes = 4096;
    options.cache_bytes = 1 << 20;
    options
}

/// The order in which keys are overwritten.
type Choose = fn(&mut Random, u64, u64) -> u64;

#[test]
fn disk_use_stays_within_the_bound() {
    let orders: [Choose; 3] = [
        |random, keys, _| random.below(keys),
        |_, keys, nth| nth % keys,
        |random, keys, _| random.below(keys).min(random.below(keys)).min(random.below(keys)) / 3,
    ];
    for choose in orders {
        for (keys, value_len, segment_bytes) in [
            (1_000, 100, 4 << 10),
            (100, 10_000, 64 << 10),
            (3_000, 0, 512),
            (20, 1 << 20, 64 << 10),
        ] {
            let mut bounded = Bounded::new(small(segment_bytes));
            bounded.batch_bytes = value_len as u64 + 64;
            let mut random = Random::new(1);
            for nth in 0..6 * keys {
                bounded
                    .set(if nth < keys { nth } else { choose(&mut random, keys, nth) }, value_len);
                bounded.check(&format!("after {nth} sets of {value_len} bytes"));
            }
        }
    }
}

#[test]
fn mixed_sets_and_removes_stay_within_the_bound() {
    for seed in 0..6 {
        for buffered in [false, true] {
            let mut options = small(32 << 10);
            options.buffered = buffered;
            let mut bounded = Bounded::new(options);
            bounded.batch_bytes = 4 << 20;
            let mut random = Random::new(seed);
            for nth in 0..3_000 {
                let key = random.below(60);
                match random.below(10) {
                    0..=4 => {
                        let len_max = random.pick(&[10, 100, 30_000, 200_000]);
                        bounded.set(key, random.below(len_max) as usize);
                    }
                    5..=8 => drop(bounded.store().remove(format!("key{key:06}"))),
                    _ if random.one_in(20) => bounded.reopen(),
                    _ => bounded.store().sync().unwrap(),
                }
                bounded.check(&format!("after {nth} steps of seed {seed}"));
            }
        }
    }
}

/// A program that opens a store, writes a little and exits.
#[test]
fn restarts_do_not_fill_the_disk() {
    for (segment_bytes, rounds) in [(8 << 20, 500), (16 << 10, 300)] {
        let mut options = Options::default();
        options.segment_bytes = segment_bytes;
        options.compact_threshold_bytes = 1 << 20;
        options.cache_bytes = 0;
        let mut bounded = Bounded::new(options);
        for round in 0..rounds {
            (0..1_000).for_each(|key| bounded.set(key, 4));
            bounded.reopen();
            bounded.check(&format!("after {round} restarts"));
        }
        assert!(size_of(bounded.directory.path()) < 30 << 20);
    }
}

/// A program that ends without closing the store leaves the removal of cleaned segments
/// to the next opening.
#[test]
fn kills_do_not_fill_the_disk() {
    for segment_bytes in [512, 4096] {
        let mut disk = SimulatedDisk::new(1);
        for _ in 0..1_000 {
            let options = small(segment_bytes);
            let store = KvStore::open_on(disk.clone(), DIRECTORY, options).unwrap();
            disk.set_job_polls(6);
            store.set("key".to_owned(), "v".repeat(30)).unwrap();
            disk = disk.after_kill();
            assert!(disk.bytes() < 60_000, "{} bytes for one key", disk.bytes());
        }
    }
}

#[test]
fn large_values_stay_within_the_bound() {
    let mut bounded = Bounded::new(Options::default());
    bounded.batch_bytes = 9 << 20;
    // Figures would make the store look at its log, so they are not asked for before.
    for count in [1, 60, 13] {
        (0..count).for_each(|_| bounded.set(0, 9 << 20));
        bounded.check(&format!("after {count} sets"));
    }
}

#[test]
fn large_batches_stay_within_the_bound() {
    let mut options = Options::default();
    options.buffered = true;
    let mut bounded = Bounded::new(options);
    for round in 0..20 {
        (0..60_000).for_each(|nth| bounded.set(nth % 500, 40));
        bounded.store().flush().unwrap();
        bounded.check(&format!("after {round} batches"));
    }
}

/// A batch that is longer than what one call cleans pays before it ends.
#[test]
fn batches_among_many_live_keys_stay_within_the_bound() {
    const KEYS: u64 = 50_000;
    let mut options = small(1 << 20);
    options.buffered = true;
    let mut bounded = Bounded::new(options);
    let mut random = Random::new(1);
    (0..KEYS).for_each(|key| bounded.set(key, 75));
    for round in 0..10 {
        (0..KEYS).for_each(|_| bounded.set(random.below(KEYS), 75));
        bounded.store().flush().unwrap();
        bounded.check(&format!("after {round} batches"));
    }
}

/// Without a call of `maintain`.
#[test]
fn removing_large_values_gives_their_space_back() {
    let mut bounded = Bounded::new(Options::default());
    (0..200).for_each(|key| bounded.set(key, 1 << 20));
    for key in 0..200 {
        bounded.store().remove(format!("key{key:06}")).unwrap();
    }
    bounded.store = None;
    let size = size_of(bounded.directory.path());
    assert!(size < 4 * (8 << 20), "{size} bytes are left for no key");
}

#[test]
fn removing_everything_gives_all_space_back() {
    let mut options = Options::default();
    options.idle_time = Duration::ZERO;
    let bounded = Bounded::new(options);
    (0..40_000).for_each(|key| bounded.set(key, 100));
    for key in 0..40_000 {
        bounded.store().remove(format!("key{key:06}")).unwrap();
    }
    while bounded.store().maintain().unwrap() {}
    let directory = bounded.directory;
    drop(bounded.store);
    let size = size_of(directory.path());
    assert!(size < Options::default().compact_threshold_bytes, "{size} bytes are left");
}

/// An embedder calls nothing but `set`, and the segments that are cleaned go.
#[test]
fn an_embedder_needs_no_maintenance() {
    let mut bounded = Bounded::new(small(64 << 10));
    for nth in 0..200_000 {
        bounded.set(nth % 100, 20);
        if nth % 100 == 0 {
            bounded.check(&format!("after {nth} sets"));
        }
    }
}

#[test]
fn a_reserve_shrinks_with_the_longest_segment() {
    let directory = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(directory.path(), small(4096)).unwrap();
    let reserve = || fs::metadata(directory.path().join("reserve.kvs")).unwrap().len();
    let set = |nth: u32| store.set(format!("key{}", nth % 20), "v".repeat(100)).unwrap();
    store.set("long".to_owned(), "v".repeat(300_000)).unwrap();
    (0..3_000).for_each(set);
    assert!(reserve() >= 300_000, "{}", reserve());
    store.remove("long".to_owned()).unwrap();
    (0..10_000).for_each(set);
    assert!(reserve() <= 2 * (4096 + 512 + 4096), "{}", reserve());
}
