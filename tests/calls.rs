//! How many calls of the file system an operation takes: what makes a store fast,
//! counted rather than timed.
//!
//! The file system is the simulated one ([`simulation`]). It reads or writes less than
//! it is asked for now and then, or is interrupted. So some counts have a margin.

mod simulation;

use std::time::Duration;

use kvs::{KvStore, KvsEngine, Options};
use simulation::disk::{Call, EMFILE, Fault, SimulatedDisk};
use simulation::random::Random;
use simulation::workload::DIRECTORY;

/// Bytes of a record beside key and value.
const RECORD_BYTES: usize = 16;

/// A disk, and a store on it.
fn open(options: &Options) -> (SimulatedDisk, KvStore<SimulatedDisk>) {
    let disk = SimulatedDisk::new(1);
    let store = KvStore::open_on(disk.clone(), DIRECTORY, options.clone()).unwrap();
    (disk, store)
}

/// Options of a store with segments of so many bytes, no cache and no compaction.
fn segments_of(bytes: u64) -> Options {
    let mut options = Options::default();
    options.segment_bytes = bytes;
    options.cache_bytes = 0;
    options.compact_threshold_bytes = 1 << 40;
    options
}

/// Calls of this kind that `run` makes.
fn count(disk: &SimulatedDisk, kind: Call, run: impl FnOnce()) -> u64 {
    let before = disk.calls_of(kind);
    run();
    disk.calls_of(kind) - before
}

/// Sets a key, with a record of so many bytes.
fn set(store: &impl KvsEngine, key: &str, record_bytes: usize) {
    let value = "v".repeat(record_bytes - RECORD_BYTES - key.len());
    store.set(key.to_owned(), value).unwrap();
}

/// The lengths of the segments that are left, oldest first.
fn lengths(disk: &SimulatedDisk) -> Vec<usize> {
    let files = disk.files();
    let is_segment = |path: &&std::path::PathBuf| !path.ends_with("reserve.kvs");
    files.keys().filter(is_segment).map(|path| files[path].len()).collect()
}

/// A figure of a store.
fn stat(store: &impl KvsEngine, name: &str) -> u64 {
    store.stats().into_iter().find(|(known, _)| *known == name).unwrap().1
}

#[test]
fn a_file_grows_once_in_a_mebibyte() {
    let (disk, store) = open(&segments_of(8 << 20));
    let mut grown = Vec::new();
    for nth in 0..30_000 {
        set(&store, &format!("key{}", nth % 10), 100);
        store.sync().unwrap();
        grown.push(lengths(&disk)[0]);
    }
    grown.dedup();
    assert_eq!(grown.len(), 3, "{grown:?}");
    assert!(grown.windows(2).all(|pair| pair[1] - pair[0] == 1 << 20));
}

#[test]
fn a_set_is_one_write_and_a_sync_one_fsync() {
    let (disk, store) = open(&segments_of(8 << 20));
    set(&store, "key", 100);
    let writes = count(&disk, Call::Write, || (0..1_000).for_each(|_| set(&store, "key", 100)));
    assert!((1_000..1_100).contains(&writes), "{writes} writes");
    let syncs = || store.sync().unwrap();
    assert_eq!((count(&disk, Call::Sync, syncs), count(&disk, Call::Sync, syncs)), (1, 0));
}

#[test]
fn segments_are_fsynced_in_order() {
    let mut options = segments_of(512);
    options.buffered = true;
    let (disk, store) = open(&options);
    (0..4).for_each(|nth| set(&store, &format!("key{nth}"), 600));
    let before = disk.fsyncs().len();
    store.sync().unwrap();
    let fsyncs = disk.fsyncs().split_off(before);
    assert!(fsyncs.len() == 4 && fsyncs.is_sorted(), "{fsyncs:?}");
}

#[test]
fn segments_are_closed_when_descriptors_run_out() {
    let (disk, store) = open(&segments_of(512));
    for nth in 0..4 {
        set(&store, &format!("key{nth}"), 600);
        store.sync().unwrap();
    }
    drop(store);
    let mut options = segments_of(512);
    options.idle_time = std::time::Duration::ZERO;
    let store = KvStore::open_on(disk.clone(), DIRECTORY, options).unwrap();
    let get = |nth: u32| store.get(format!("key{nth}"));
    let fail_next = || {
        let next = disk.calls() + 1;
        disk.set_fault(Some(Fault::Calls { first: next, last: next, kind: None, errno: EMFILE }));
    };
    get(0).unwrap().unwrap();
    fail_next();
    get(1).unwrap().unwrap();
    assert_eq!(disk.failed(&[Call::Open]), 1);
    disk.set_fault(None);
    let opened = count(&disk, Call::Open, || drop((get(1).unwrap(), get(0).unwrap())));
    assert_eq!(opened, 1, "the first one was closed");
    store.maintain().unwrap();
    assert_eq!(count(&disk, Call::Open, || drop(get(1).unwrap())), 1, "idle: all were closed");
}

/// One client that waits for each fsync leaves no checkpoint but those at the ends of
/// segments: the flags of its records say the same.
#[test]
fn checkpoints_are_written_only_where_they_are_needed() {
    let (disk, store) = open(&segments_of(8 << 20));
    let empty = stat(&store, "dead_bytes");
    for nth in 0..1_000 {
        set(&store, &format!("key{nth}"), 100);
        store.sync().unwrap();
        store.maintain().unwrap();
    }
    assert_eq!(stat(&store, "dead_bytes"), empty);
    drop(store);
    assert_eq!(lengths(&disk)[0], 36 + 100_000 + 24, "one checkpoint, at the end");
}

/// Once everything is on disk, an idle store writes nothing more.
#[test]
fn an_idle_store_writes_nothing() {
    let mut options = segments_of(8 << 20);
    options.idle_time = Duration::ZERO;
    let (disk, store) = open(&options);
    set(&store, "key", 100);
    while store.maintain().unwrap() {}
    let before = disk.changes();
    (0..10).for_each(|_| assert!(!store.maintain().unwrap()));
    assert_eq!(disk.changes(), before);
}

#[test]
fn a_get_is_one_read_or_none() {
    for (cache_bytes, reads_max) in [(0, 1_100), (1 << 20, 40)] {
        let mut options = segments_of(8 << 20);
        options.cache_bytes = cache_bytes;
        let (disk, store) = open(&options);
        (0..1_000).for_each(|nth| set(&store, &format!("key{nth}"), 100));
        let reads = count(&disk, Call::Read, || {
            (0..1_000).for_each(|nth| drop(store.get(format!("key{nth}")).unwrap().unwrap()));
        });
        assert!(reads <= reads_max, "{reads} reads with {cache_bytes} bytes of cache");
    }
}

#[test]
fn many_segments_need_few_descriptors() {
    let (disk, store) = open(&segments_of(512));
    for nth in 0..131 {
        set(&store, &format!("key{nth}"), 600);
        store.sync().unwrap();
    }
    assert_eq!(lengths(&disk).len(), 131);
    drop(store);
    let store = KvStore::open_on(disk.clone(), DIRECTORY, segments_of(512)).unwrap();
    let get = |nth: u32| {
        count(&disk, Call::Open, || drop(store.get(format!("key{nth}")).unwrap().unwrap()))
    };
    let opened = |numbers: std::ops::Range<u32>| numbers.map(get).sum::<u64>();
    assert_eq!((opened(0..128), opened(0..128)), (128, 0));
    assert_eq!((get(128), opened(0..127)), (1, 127), "all others were closed");
    assert_eq!((get(128), opened(0..127)), (0, 0));
}

/// A set that finds the disk full does not look for space in another segment.
#[test]
fn a_set_on_a_full_disk_creates_no_file() {
    let (disk, store) = open(&segments_of(4 << 20));
    (0..60).for_each(|nth| set(&store, &format!("key{nth}"), 100_000));
    disk.set_fault(Some(Fault::Full { bytes: disk.bytes() }));
    let created = count(&disk, Call::Create, || {
        let fails = |_: &i32| store.set("key".to_owned(), "v".repeat(100_000)).is_err();
        assert!((0..30).filter(fails).count() > 20);
    });
    assert_eq!(created, 0);
}

/// A full segment is fsynced in the background, and no write waits for it.
#[test]
fn full_segments_are_fsynced_in_the_background() {
    let (disk, store) = open(&segments_of(64 << 10));
    disk.set_job_polls(3);
    let syncs = count(&disk, Call::Sync, || {
        (0..4_000).for_each(|nth| set(&store, &format!("key{}", nth % 10), 100));
    });
    assert_eq!((syncs, stat(&store, "syncs"), lengths(&disk).len()), (6, 0, 7));
}

/// Where no fsync in the background ends, writes wait for it once so many full
/// segments wait.
#[test]
fn a_slow_disk_bounds_what_is_unsynced() {
    let (disk, store) = open(&segments_of(4 << 10));
    disk.set_job_polls(u64::MAX);
    let mut waited_at = Vec::new();
    for nth in 0..1_000 {
        let syncs = count(&disk, Call::Sync, || set(&store, &format!("key{nth}"), 100));
        if syncs > 0 {
            waited_at.push(lengths(&disk).len());
        }
    }
    assert!(waited_at.windows(2).all(|pair| pair[1] - pair[0] <= 8), "{waited_at:?}");
    assert!(waited_at.len() > 3);
}

/// Segments that are cleaned wait for an fsync that is under way. Callers do not.
#[test]
fn cleaned_segments_make_nobody_wait_for_an_fsync() {
    let mut options = segments_of(512);
    options.compact_threshold_bytes = 4096;
    let (disk, store) = open(&options);
    for nth in 0..40 {
        set(&store, &format!("key{nth}"), 400);
    }
    store.sync().unwrap();
    disk.set_job_polls(u64::MAX);
    let removed = count(&disk, Call::Remove, || {
        (0..40).for_each(|nth| store.remove(format!("key{nth}")).unwrap());
        (0..50).for_each(|_| store.flush().unwrap());
    });
    assert_eq!(removed, 0, "the fsync that a removal needs was waited for");
    assert!(stat(&store, "segments") > 40 && stat(&store, "dead_bytes") < 8_000);
}

#[test]
fn cleaning_reads_a_segment_in_few_calls() {
    let mut options = segments_of(1 << 20);
    options.compact_threshold_bytes = 4096;
    let (disk, store) = open(&options);
    let reads = count(&disk, Call::Read, || {
        (0..100_000).for_each(|nth| set(&store, &format!("key{}", nth * 7_919 % 1_000), 100));
    });
    let left: usize = lengths(&disk).iter().sum();
    let cleaned = 10_000_000 - left as u64;
    assert!(cleaned > 5_000_000, "{left} bytes are left");
    assert!(reads < cleaned / (8 << 10), "{reads} reads of {cleaned} bytes");
}

/// A busy store does not end its active segment early to clean it: more segments need
/// more fsyncs.
#[test]
fn a_busy_store_fills_its_segments() {
    let mut options = segments_of(1 << 20);
    options.compact_threshold_bytes = 4096;
    let (disk, store) = open(&options);
    let created = count(&disk, Call::Create, || {
        (0..60_000).for_each(|_| set(&store, "key", 100));
    });
    // The reserve is one, too.
    assert!(created <= 7, "{created} files for six mebibytes");
}

/// A segment without live records is removed unread.
#[test]
fn dead_segments_are_not_read() {
    let mut options = segments_of(64 << 10);
    options.compact_threshold_bytes = 512 << 10;
    let (disk, store) = open(&options);
    let reads = count(&disk, Call::Read, || (0..20_000).for_each(|_| set(&store, "key", 100)));
    assert!(reads < 20 && lengths(&disk).len() < 16, "{reads} reads");
}

/// A crash may come between the record that a segment was cleaned and its removal.
#[test]
fn opening_removes_segments_that_were_cleaned() {
    let mut options = segments_of(64 << 10);
    options.compact_threshold_bytes = 256 << 10;
    let (disk, store) = open(&options);
    disk.set_job_polls(u64::MAX);
    // Without the segments that are cleaned.
    let bytes = |store: &_| stat(store, "live_bytes") + stat(store, "dead_bytes");
    while stat(&store, "segments") < bytes(&store).div_ceil(64 << 10) + 2 {
        set(&store, "key", 100);
    }
    let killed = disk.after_kill();
    let opened = KvStore::open_on(killed, DIRECTORY, segments_of(64 << 10)).unwrap();
    assert!(bytes(&opened) <= bytes(&store) + 28, "no more than a checkpoint came to it");
}

/// No single write cleans what others owe, however much that is.
#[test]
fn one_call_cleans_at_most_a_mebibyte() {
    let (disk, store) = open(&segments_of(1 << 20));
    let mut random = Random::new(1);
    (0..150_000).for_each(|_| set(&store, &format!("key{}", random.below(30_000)), 100));
    drop(store);
    let mut options = segments_of(1 << 20);
    options.compact_threshold_bytes = 4096;
    let store = KvStore::open_on(disk.clone(), DIRECTORY, options).unwrap();
    let mut most = 0;
    for nth in 0..50 {
        let reads = count(&disk, Call::Read, || set(&store, &format!("key{nth}"), 700_000));
        most = most.max(reads);
    }
    // Reads of 64 KiB each, and short ones.
    assert!((10..=40).contains(&most), "one set read {most} times");
}

/// Copies of live records owe no further cleaning. Otherwise cleaning would fall behind
/// by its own work, and each `set` would have to catch up.
#[test]
fn a_small_batch_cleans_little() {
    const KEYS: u64 = 100_000;
    let mut options = segments_of(8 << 20);
    options.compact_threshold_bytes = 0;
    options.buffered = true;
    let (disk, store) = open(&options);
    (0..KEYS).for_each(|nth| set(&store, &format!("key{nth}"), 100));
    let mut random = Random::new(1);
    let mut writes = Vec::new();
    for _ in 0..1_500 {
        writes.push(count(&disk, Call::Write, || {
            (0..200).for_each(|_| set(&store, &format!("key{}", random.below(KEYS)), 100));
            store.flush().unwrap();
        }));
    }
    let most = *writes.iter().max().unwrap();
    assert!(stat(&store, "segments") < 10 && most < 40, "a batch made {most} writes");
}
