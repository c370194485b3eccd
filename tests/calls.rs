//! How many calls of the disk it takes: what makes a store fast, counted rather
//! than timed.
//!
//! The disk is the simulated one ([`simulation`]). Now and then it reads or writes
//! less than it is asked for, or is interrupted: so some counts have a margin.

mod simulation;

use kvs::{KvStore, KvsEngine, Options};
use simulation::disk::{Call, SimulatedDisk};
use simulation::workload::DIRECTORY;

/// Bytes of a record beside key and value.
const RECORD_BYTES: usize = 13;

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
    let segments = files.iter().filter(|(path, _)| path.extension().is_some());
    segments.map(|(_, bytes)| bytes.len()).collect()
}

#[test]
fn small_syncs_make_the_file_longer_once_in_a_quarter_of_a_mebibyte() {
    let (disk, store) = open(&Options::default());
    let mut lengths = Vec::new();
    for nth in 0..6_000 {
        set(&store, &format!("key{}", nth % 10), 100);
        store.sync().unwrap();
        lengths.push(disk.bytes());
    }
    assert!(lengths[0] > 256 << 10);
    lengths.dedup();
    assert_eq!(lengths.len(), 3, "{lengths:?}");
    assert!(lengths.windows(2).all(|pair| pair[1] - pair[0] >= 250_000));
}

#[test]
fn zeros_are_written_ahead_of_a_small_sync_and_not_of_a_large_one_nor_past_the_segment() {
    for (record_bytes, segment_bytes, grows_by) in [
        (16 << 10, 8 << 20, (16 << 10) + (256 << 10)),
        ((16 << 10) + 1, 8 << 20, (16 << 10) + 1),
        (100, 10_032, 10_000),
        (10_000, 10_032, 10_000),
        (10_001, 10_032, 10_001),
    ] {
        let (disk, store) = open(&segments_of(segment_bytes));
        let empty = disk.bytes();
        set(&store, "key", record_bytes);
        store.sync().unwrap();
        assert_eq!(disk.bytes() - empty, grows_by, "{record_bytes} of {segment_bytes}");
    }
}

#[test]
fn a_file_is_cut_when_zeros_are_left_in_it_and_only_then() {
    for is_synced in [false, true] {
        let (disk, store) = open(&segments_of(10_032));
        let cuts = count(&disk, Call::Truncate, || {
            for _ in 0..1_000 {
                set(&store, "key", 100);
                is_synced.then(|| store.sync().unwrap());
            }
        });
        assert!(lengths(&disk).len() > 8);
        assert_eq!((cuts, count(&disk, Call::Truncate, || drop(store))), (0, 1));
    }
}

#[test]
fn a_get_is_one_read_and_none_when_its_block_is_in_the_cache() {
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
fn files_stay_open_as_many_as_may_be_and_the_one_opened_first_is_closed_for_another() {
    let (disk, store) = open(&segments_of(512));
    for nth in 0..131 {
        set(&store, &format!("key{nth}"), 600);
        store.sync().unwrap();
    }
    assert_eq!(lengths(&disk).len(), 131);
    let get = |nth: u32| {
        count(&disk, Call::Open, || drop(store.get(format!("key{nth}")).unwrap().unwrap()))
    };
    let opened = |numbers: std::ops::Range<u32>| numbers.map(get).sum::<u64>();
    assert_eq!(opened(0..128), 128);
    assert_eq!(opened(0..128), 0);
    assert_eq!((get(128), opened(1..128)), (1, 0));
    assert_eq!((get(0), get(1), get(128)), (1, 1, 0));
}

#[test]
fn what_is_not_to_be_synced_yet_is_synced_beside_in_parts_of_a_segment() {
    let (disk, store) = open(&segments_of(1 << 20));
    disk.set_beside_looks(0);
    let syncs = count(&disk, Call::Sync, || {
        (0..8_000).for_each(|nth| set(&store, &format!("key{}", nth % 10), 100));
    });
    // An eighth of a segment at a time: six of them in 800,000 bytes.
    assert_eq!(syncs, 6);
    assert!(store.stats().contains(&("syncs", 0)), "a write has waited");
    let (disk, store) = open(&segments_of(64 << 20));
    let syncs = count(&disk, Call::Sync, || (0..64).for_each(|_| set(&store, "key", 100 << 10)));
    assert_eq!(syncs, 5, "a mebibyte at a time of one that is larger than eight");
}

/// Lengths of the older segments of a store whose syncs beside end after so many
/// looks, which are one for each record of 100 bytes.
fn older_lengths(looks: u64) -> Vec<usize> {
    let (disk, store) = open(&segments_of(64 << 10));
    disk.set_beside_looks(looks);
    (0..4_000).for_each(|nth| set(&store, &format!("key{}", nth % 10), 100));
    let mut lengths = lengths(&disk);
    lengths.pop();
    lengths
}

#[test]
fn a_full_segment_is_followed_at_once_where_the_disk_keeps_up() {
    let lengths = older_lengths(0);
    assert_eq!(lengths.len(), 6);
    let size = 64 << 10;
    assert!(lengths.iter().all(|len| (size..size + 400).contains(len)), "{lengths:?}");
}

#[test]
fn a_full_segment_takes_more_while_the_disk_is_behind_but_a_quarter_of_its_size_at_most() {
    for looks in [100, u64::MAX] {
        let lengths = older_lengths(looks);
        assert_eq!(lengths.len(), 4, "{lengths:?}");
        let size = (64 << 10) + (16 << 10);
        assert!(lengths.iter().all(|len| (size..size + 200).contains(len)), "{lengths:?}");
    }
}

#[test]
fn cleaning_reads_a_segment_in_few_calls_though_it_goes_in_small_steps() {
    let mut options = segments_of(1 << 20);
    options.compact_threshold_bytes = 4096;
    let (disk, store) = open(&options);
    let reads = count(&disk, Call::Read, || {
        (0..100_000).for_each(|nth| set(&store, &format!("key{}", nth % 1_000), 100));
    });
    let left: usize = lengths(&disk).iter().sum();
    let cleaned = 10_000_000 - left as u64;
    assert!(cleaned > 5_000_000, "{left} bytes are left");
    assert!(reads < cleaned / (8 << 10), "{reads} reads of {cleaned} bytes");
}

/// A store whose one segment is to be compacted, on a disk on which no sync beside
/// comes to an end by itself.
fn open_behind(segment_bytes: u64) -> (SimulatedDisk, KvStore<SimulatedDisk>) {
    let mut options = segments_of(segment_bytes);
    options.compact_threshold_bytes = 1 << 20;
    let (disk, store) = open(&options);
    disk.set_beside_looks(u64::MAX);
    (disk, store)
}

#[test]
fn idle_housekeeping_ends_also_while_the_disk_is_behind() {
    let (disk, store) = open_behind(8 << 20);
    (0..14_000).for_each(|nth| set(&store, &format!("key{}", nth % 10), 100));
    let steps = (0..1_000).take_while(|_| store.maintain().unwrap()).count();
    assert!((2..100).contains(&steps), "{steps} steps");
    assert!(store.stats().contains(&("compacting", 0)) && lengths(&disk).len() == 1);
}

/// Cleaning that must wait for the next segment is not all done by one write then.
#[test]
fn no_write_pays_for_what_others_have_saved_up() {
    const READ_BYTES: u64 = 16 << 10;
    let (disk, store) = open_behind(8 << 20);
    let mut most = 0;
    for nth in 0..150_000 {
        most = most.max(count(&disk, Call::Read, || set(&store, &format!("key{}", nth % 10), 100)));
    }
    assert!(most * READ_BYTES <= 512 << 10, "{most} reads");
}

/// A commit that is larger than many segments cleans many, and begins one.
#[test]
fn segments_that_are_cleaned_do_not_pile_up() {
    let mut options = segments_of(4 << 10);
    options.compact_threshold_bytes = 4096;
    options.buffered = true;
    let (disk, store) = open(&options);
    let key = |nth: usize| format!("key{:05}", nth % 2_000);
    for nth in 0..2_000 {
        set(&store, &key(nth), 100);
        store.flush().unwrap();
    }
    for batch in 0..40 {
        (0..2_000).for_each(|nth| set(&store, &key(batch * 2_000 + nth), 100));
        store.sync().unwrap();
    }
    assert!(lengths(&disk).len() < 10, "{:?}", lengths(&disk));
}
