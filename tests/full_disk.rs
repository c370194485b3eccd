//! The disk is full: sets fail and change nothing, reads and removals work, and what is
//! removed makes space for sets.
//!
//! The disk is simulated, and counts bytes: it has no blocks that a short file could waste.

mod simulation;

use kvs::{KvStore, KvsEngine, KvsError};
use simulation::disk::{Fault, SimulatedDisk};
use simulation::random::Random;
use simulation::workload::{DIRECTORY, tiny};

/// Sets values until the disk is full. Returns the keys.
fn fill(store: &impl KvsEngine, value_len: usize) -> Vec<String> {
    for nth in 0.. {
        match store.set(format!("key{nth:05}"), "v".repeat(value_len)) {
            Ok(()) => {}
            Err(KvsError::Io { source, .. }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
                return (0..nth).map(|nth| format!("key{nth:05}")).collect();
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    unreachable!("the disk has an end");
}

/// A full disk fails sets, and nothing else: they have changed nothing, reads go on,
/// and so do sets that overwrite once there is space.
#[test]
fn a_full_disk_fails_before_anything_is_staged() {
    for spare in (0..4_000).step_by(61) {
        for buffered in [false, true] {
            let disk = SimulatedDisk::new(1);
            let mut options = tiny();
            options.buffered = buffered;
            let open = || KvStore::open_on(disk.clone(), DIRECTORY, options.clone()).unwrap();
            let store = open();
            disk.set_fault(Some(Fault::Full { bytes: disk.bytes() + spare }));
            let keys = fill(&store, 40);
            store.sync().unwrap();
            let check = |store: &KvStore<SimulatedDisk>| {
                for key in &keys {
                    assert!(store.get(key.clone()).unwrap().is_some(), "{key}, {spare}");
                }
                let missing = format!("key{:05}", keys.len());
                assert_eq!(store.get(missing).unwrap(), None);
            };
            check(&store);
            drop(store);
            disk.set_fault(None);
            let store = open();
            check(&store);
            store.set("key00000".to_owned(), "again".to_owned()).unwrap();
        }
    }
}

/// Space that is enough for a record is enough, although more is wanted.
#[test]
fn a_record_that_just_fits_is_set() {
    let is_set = |spare: &usize| {
        let disk = SimulatedDisk::new(1);
        let store = KvStore::open_on(disk.clone(), DIRECTORY, tiny()).unwrap();
        disk.set_fault(Some(Fault::Full { bytes: disk.bytes() + spare }));
        store.set("key".to_owned(), "v".repeat(81)).is_ok()
    };
    let least = (0..6_000).find(is_set).unwrap();
    // The reserve has the size of the log with a whole segment more, and space for
    // tombstones. The last checkpoint has 28 bytes.
    assert_eq!(least, (36 + 512 + 4096) + 100 + 28);
}

/// In the order of sets, in the opposite order, with a restart between, and with writes that
/// wait for a flush. The last disk is not much larger than a segment.
#[test]
fn a_full_disk_can_be_emptied() {
    let orders: [fn(&mut Vec<String>); 3] =
        [|_| {}, |keys| keys.reverse(), |keys| keys.sort_by_key(|key| key[7..].to_owned())];
    for (segment_bytes, disk_bytes, value_len) in [
        (512, 20_000, 20),
        (4096, 200_000, 100),
        (65_536, 1_000_000, 100),
        (16_384, 300_000, 0),
        (65_536, 180_000, 0),
    ] {
        for order in orders {
            for restarts in [false, true] {
                let disk = SimulatedDisk::new(1);
                let mut options = tiny();
                options.segment_bytes = segment_bytes;
                options.buffered = restarts;
                let open = || KvStore::open_on(disk.clone(), DIRECTORY, options.clone()).unwrap();
                let mut store = open();
                disk.set_fault(Some(Fault::Full { bytes: disk_bytes }));
                let mut keys = fill(&store, value_len);
                assert!(keys.len() > 100);
                order(&mut keys);
                for (nth, key) in keys.iter().enumerate() {
                    if restarts && nth % 101 == 50 {
                        drop(store);
                        store = open();
                    }
                    let removed = store.remove(key.clone());
                    assert!(
                        removed.is_ok(),
                        "{nth} of {} {segment_bytes} {restarts}: {removed:?} {:?} {}",
                        keys.len(),
                        store.stats(),
                        disk.bytes()
                    );
                }
                while store.maintain().unwrap() {}
                assert!(fill(&store, value_len).len() > keys.len() / 2);
            }
        }
    }
}

/// Half of all bytes need not be dead for that.
#[test]
fn some_removals_on_a_full_disk_make_space_for_sets() {
    // The last disk is smaller than a segment.
    for (bytes, segment_bytes, buffered) in
        [(1_000_000, 65_536, false), (1_000_000, 65_536, true), (3_100_000, 8 << 20, false)]
    {
        let disk = SimulatedDisk::new(1);
        let mut options = tiny();
        (options.segment_bytes, options.buffered) = (segment_bytes, buffered);
        let store = KvStore::open_on(disk.clone(), DIRECTORY, options).unwrap();
        disk.set_fault(Some(Fault::Full { bytes }));
        let keys = fill(&store, 4_000);
        for key in &keys[..keys.len() / 5] {
            store.remove(key.clone()).unwrap();
        }
        let again = fill(&store, 4_000).len();
        assert!(again * 10 > keys.len(), "{again} of {} removed", keys.len() / 5);
    }
}

/// Tombstones leave the space that cleaning needs, whatever filled the disk. The first
/// sizes are those of a segment that one call does not clean.
#[test]
fn a_disk_that_overwrites_have_filled_can_be_emptied() {
    let sizes = [(2 << 20, 1_250, 4_650_000), (65_536, 20, 200_000), (4_096, 300, 30_000)];
    for (seed, (segment, value_len, bytes)) in (0..40).zip(sizes.into_iter().cycle()) {
        let mut random = Random::new(seed);
        let disk = SimulatedDisk::new(seed);
        let mut options = tiny();
        options.segment_bytes = segment;
        options.buffered = true;
        let store = KvStore::open_on(disk.clone(), DIRECTORY, options).unwrap();
        disk.set_fault(Some(Fault::Full { bytes: bytes + random.below(segment) as usize / 8 }));
        let key = |nth: usize| format!("first{nth}");
        let count = segment as usize * 9 / 10 / (value_len + 30);
        (0..count).for_each(|nth| store.set(key(nth), "v".repeat(value_len)).unwrap());
        let mut failed = 0;
        while failed < 300 {
            let key = format!("key{}", random.below(60));
            let value = "v".repeat(random.between(0, segment as usize / 400));
            match random.below(8) {
                0 => match store.remove(key) {
                    Ok(()) | Err(KvsError::KeyNotFound) => failed += 1,
                    removed => panic!("{removed:?}"),
                },
                _ => failed += usize::from(store.set(key, value).is_err()),
            }
            store.sync().unwrap();
            store.maintain().unwrap();
        }
        for nth in 0..count {
            let removed = store.remove(key(nth));
            assert!(removed.is_ok(), "seed {seed}, {nth} of {count}: {removed:?}");
            store.sync().unwrap();
        }
        while store.maintain().unwrap() {}
        store.set("key".to_owned(), "v".repeat(segment as usize / 2)).unwrap();
    }
}

/// Cleaning copies a record that is longer than a segment, too.
#[test]
fn a_full_disk_can_be_emptied_around_a_long_value() {
    let disk = SimulatedDisk::new(1);
    let mut options = tiny();
    options.segment_bytes = 4096;
    let open = || KvStore::open_on(disk.clone(), DIRECTORY, options.clone()).unwrap();
    let store = open();
    disk.set_fault(Some(Fault::Full { bytes: 200_000 }));
    store.set("long".to_owned(), "v".repeat(30_000)).unwrap();
    for key in fill(&store, 100) {
        store.remove(key).unwrap();
    }
    while store.maintain().unwrap() {}
    store.set("key".to_owned(), "v".repeat(30_000)).unwrap();
    drop(store);
    assert_eq!(open().get("long".to_owned()).unwrap().map(|value| value.len()), Some(30_000));
}
