//! The disk fails, and the store says so, loses nothing, and goes on or stops.
//!
//! A call that fails before anything is staged fails alone: for lack of space, or of
//! a descriptor. Other calls succeed, and it does too once the fault is gone. A
//! failed write or fsync is fatal: every later call fails until the store is opened
//! again. A restart, a kill or a power failure after that finds what was promised.
//!
//! The faults are those of [`simulation::disk::Fault`].

mod simulation;

use kvs::{KvStore, KvsEngine, KvsError, Options};
use simulation::disk::{Call, EIO, EMFILE, ENOSPC, Fault, SimulatedDisk};
use simulation::random::Random;
use simulation::workload::{DIRECTORY, End, Workload};
use simulation::{for_each_seed, report};

/// Calls from the next on that a fault may wait, or last, at the most.
const CALLS_MAX: u64 = 40;

/// A fault that begins soon.
fn choose_fault(random: &mut Random, workload: &Workload) -> Fault {
    let first = workload.disk.calls() + 1 + random.below(CALLS_MAX);
    let last = first + random.pick(&[0, 0, 1, 5, CALLS_MAX]);
    let kinds = [
        None,
        Some(Call::Write),
        Some(Call::Write),
        Some(Call::Create),
        Some(Call::Remove),
        Some(Call::Read),
        Some(Call::Truncate),
        Some(Call::Sync),
        Some(Call::SyncDir),
    ];
    match random.below(6) {
        0 => Fault::Full { bytes: workload.disk.bytes() + random.below(600) as usize },
        1 => Fault::FileSize { bytes: random.between(100, 6_000) },
        2..4 => {
            let kind = Some(Call::Write);
            Fault::Calls { first, last, kind, errno: random.pick(&[EIO, ENOSPC]) }
        }
        4 => {
            let kind = Some(random.pick(&[Call::Create, Call::Open]));
            Fault::Calls { first, last, kind, errno: EMFILE }
        }
        _ => Fault::Calls { first, last, kind: random.pick(&kinds), errno: EIO },
    }
}

/// Fails unless the error is one that tells of a fault.
fn check_told(error: &KvsError) {
    let is_told = matches!(error, KvsError::Io { .. } | KvsError::Failed { .. });
    assert!(is_told, "a fault is no {error:?}");
}

/// Works for a while on a disk with this fault; the disk may end meanwhile.
fn work_with(workload: &mut Workload, fault: Fault) {
    workload.disk.set_fault(Some(fault));
    for _ in 0..workload.random.between(1, 40) {
        if let Err(error) = workload.step() {
            if workload.disk.has_ended() {
                return;
            }
            check_told(&error);
        }
        if !workload.is_open() || workload.has_failed() {
            return;
        }
    }
}

/// Opens on a disk with this fault, which may fail.
fn open_with(workload: &mut Workload, fault: Fault) {
    workload.disk.set_fault(Some(fault));
    if let Err(error) = workload.open() {
        check_told(&error);
    }
    workload.disk.set_fault(None);
}

/// The fault is gone: a store that has not failed works.
fn check_after(workload: &mut Workload) {
    workload.disk.set_fault(None);
    for _ in 0..10 {
        if workload.has_failed() {
            return;
        }
        workload.check();
        if let Err(error) = workload.step() {
            // An fsync in the background had failed.
            assert!(workload.has_failed(), "{error:?}");
        }
    }
}

/// Has some faults on one disk, and restarts between them; how many there were.
fn faults_of(seed: u64) -> u64 {
    let mut workload = Workload::new(seed);
    let mut random = workload.random.fork();
    let mut faults = 0;
    for _ in 0..10 {
        let fault = choose_fault(&mut random, &workload);
        if !workload.is_open() {
            open_with(&mut workload, fault);
        }
        if !workload.is_open() {
            workload.open().unwrap();
        }
        if random.one_in(3) {
            workload.disk.end_after(1 + random.below(CALLS_MAX));
        }
        let fault = choose_fault(&mut random, &workload);
        work_with(&mut workload, fault);
        let goes_on = !workload.disk.has_ended() && random.one_in(2);
        workload.disk.end_after(0);
        if goes_on && workload.is_open() {
            check_after(&mut workload);
        }
        faults += workload.disk.failed_any().min(1);
        let has_failed = workload.is_open() && workload.has_failed();
        if !goes_on || has_failed || random.one_in(2) {
            workload.end(random.pick(&[End::Kill, End::PowerLoss]));
            workload.open().unwrap();
        }
    }
    faults
}

#[test]
fn a_failing_disk_loses_nothing() {
    let mut faults = 0;
    for_each_seed("faults", 1_500, |seed| faults += faults_of(seed));
    report(&format!("the disk failed {faults} times"));
}

/// A store with a value on the disk.
fn store_with_a_value() -> (SimulatedDisk, KvStore<SimulatedDisk>) {
    let disk = SimulatedDisk::new(1);
    let store = KvStore::open_on(disk.clone(), DIRECTORY, Options::default()).unwrap();
    store.set("key".to_owned(), "first".to_owned()).unwrap();
    store.sync().unwrap();
    (disk, store)
}

/// A fault of all calls of a kind.
fn all(kind: Call) -> Option<Fault> {
    Some(Fault::Calls { first: 0, last: u64::MAX, kind: Some(kind), errno: EIO })
}

/// The value of the key.
fn get(store: &impl KvsEngine) -> Option<String> {
    store.get("key".to_owned()).unwrap()
}

#[test]
fn after_a_failed_sync_every_call_fails() {
    for kind in [Call::Sync, Call::Write] {
        let (disk, store) = store_with_a_value();
        let set = |value: &str| store.set("key".to_owned(), value.to_owned());
        set("second").unwrap();
        disk.set_fault(all(kind));
        let error = if kind == Call::Sync { store.sync() } else { set("third") }.unwrap_err();
        assert!(matches!(error, KvsError::Io { .. }), "{error:?}");
        disk.set_fault(None);
        let results = [
            set("fourth"),
            store.remove("key".to_owned()),
            store.get("key".to_owned()).map(drop),
            store.scan(None).map(drop),
            store.flush(),
            store.sync(),
            store.maintain().map(drop),
        ];
        for result in results {
            let error = result.unwrap_err();
            assert!(matches!(error, KvsError::Failed { .. }), "{error:?}");
            assert!(error.to_string().contains("Input/output error"), "{error}");
        }
        drop(store);
        let store = KvStore::open_on(disk.clone(), DIRECTORY, Options::default()).unwrap();
        assert_eq!(get(&store).as_deref(), Some("second"));
        store.set("key".to_owned(), "fifth".to_owned()).unwrap();
        store.sync().unwrap();
        let after = KvStore::open_on(disk.after_power_loss(), DIRECTORY, Options::default());
        assert_eq!(get(&after.unwrap()).as_deref(), Some("fifth"));
    }
}

/// After a failed fsync the page cache shows data that the disk does not have.
#[test]
fn what_a_failed_sync_lost_is_written_again() {
    for seed in 0..200 {
        let disk = SimulatedDisk::new(seed);
        let store = KvStore::open_on(disk.clone(), DIRECTORY, Options::default()).unwrap();
        store.set("key".to_owned(), "v".repeat(10_000)).unwrap();
        disk.set_fault(all(Call::Sync));
        assert!(store.sync().is_err());
        disk.set_fault(None);
        drop(store);
        let store = KvStore::open_on(disk.clone(), DIRECTORY, Options::default()).unwrap();
        let found = get(&store);
        let after = KvStore::open_on(disk.after_power_loss(), DIRECTORY, Options::default());
        assert_eq!(get(&after.unwrap()), found, "seed {seed}");
    }
}

/// Options of a store with the smallest segments.
fn tiny() -> Options {
    let mut options = Options::default();
    options.segment_bytes = 512;
    options.compact_threshold_bytes = 4096;
    options
}

/// Whichever call fails, a set that begins a segment fails alone, unless the fault is
/// in writing what was staged.
#[test]
fn a_segment_that_cannot_be_created_fails_one_set() {
    let mut failed = Vec::new();
    for nth in 1..20 {
        let disk = SimulatedDisk::new(1);
        let store = KvStore::open_on(disk.clone(), DIRECTORY, tiny()).unwrap();
        store.set("key".to_owned(), "v".repeat(600)).unwrap();
        store.sync().unwrap();
        let at = disk.calls() + nth;
        disk.set_fault(Some(Fault::Calls { first: at, last: at, kind: None, errno: EMFILE }));
        let set = || store.set("next".to_owned(), "value".to_owned());
        let Err(error) = set() else { continue };
        assert!(matches!(error, KvsError::Io { .. }), "{error:?}");
        let again = set();
        match &again {
            Ok(()) => assert!(store.get("next".to_owned()).unwrap().is_some()),
            again => assert!(matches!(again, Err(KvsError::Failed { .. })), "{again:?}"),
        }
        let kinds = [Call::Create, Call::Write, Call::Sync, Call::Truncate];
        let kind = kinds.into_iter().find(|kind| disk.failed(&[*kind]) > 0).unwrap();
        failed.push((kind, again.is_ok()));
    }
    assert!(failed.contains(&(Call::Create, true)) && failed.contains(&(Call::Write, true)));
    let fatal = failed.iter().filter(|(_, went_on)| !went_on);
    assert!(fatal.clone().count() <= 2, "{failed:?}");
}

/// Names above the store's directory are fsynced when it is created. Those that this
/// process may not open were not created by it.
#[test]
fn only_directories_of_others_need_no_fsync() {
    const EACCES: i32 = 13;
    for (errno, skipped) in [(EACCES, 2), (EIO, 0)] {
        let mut opened = 0;
        for at in 1..40 {
            let disk = SimulatedDisk::new(1);
            let kind = Some(Call::SyncDir);
            disk.set_fault(Some(Fault::Calls { first: at, last: at, kind, errno }));
            let store = KvStore::open_on(disk.clone(), DIRECTORY, Options::default());
            opened += u32::from(store.is_ok() && disk.failed(&[Call::SyncDir]) == 1);
        }
        assert_eq!(opened, skipped, "{errno}");
    }
}

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
    for (seed, buffered) in [(1, false), (2, true)] {
        let disk = SimulatedDisk::new(seed);
        let mut options = tiny();
        (options.segment_bytes, options.buffered) = (65_536, buffered);
        let store = KvStore::open_on(disk.clone(), DIRECTORY, options).unwrap();
        disk.set_fault(Some(Fault::Full { bytes: 1_000_000 }));
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

/// A sync in the background that has to wait for another one is not forgotten.
#[test]
fn a_background_sync_covers_all_that_was_written() {
    let disk = SimulatedDisk::new(1);
    let mut options = tiny();
    options.segment_bytes = 4096;
    let store = KvStore::open_on(disk.clone(), DIRECTORY, options).unwrap();
    disk.set_job_polls(3);
    store.set("long".to_owned(), "v".repeat(5_000)).unwrap();
    store.set("key".to_owned(), "value".to_owned()).unwrap();
    store.sync_in_background().unwrap();
    for _ in 0..10 {
        store.flush().unwrap();
    }
    for _ in 0..20 {
        let after = KvStore::open_on(disk.after_power_loss(), DIRECTORY, Options::default());
        assert_eq!(get(&after.unwrap()).as_deref(), Some("value"));
    }
}

/// One passing error in cleaning, of each kind and at each call, is tried again.
#[test]
fn a_passing_error_does_not_end_compaction() {
    for (kind, errno) in
        [(Call::Open, EMFILE), (Call::Create, EMFILE), (Call::Read, EIO), (Call::Remove, EIO)]
    {
        let mut failed = 0;
        for nth in (0..600).step_by(47) {
            let disk = SimulatedDisk::new(1);
            let mut options = tiny();
            options.cache_bytes = 0;
            let open = || KvStore::open_on(disk.clone(), DIRECTORY, options.clone()).unwrap();
            let set = |store: &KvStore<SimulatedDisk>, nth: u32| {
                let key = if nth.is_multiple_of(7) { nth } else { nth % 20 };
                store.set(format!("key{key}"), format!("value {nth}"))
            };
            // So many that compaction is not due yet. Then all files are closed.
            let store = open();
            (0..80).for_each(|nth| set(&store, nth).unwrap());
            drop(store);
            let store = open();
            let first = disk.calls() + nth;
            let last = first + 100;
            disk.set_fault(Some(Fault::Calls { first, last, kind: Some(kind), errno }));
            // A set that finds no descriptor for a segment may fail.
            (80..500).for_each(|nth| drop(set(&store, nth)));
            disk.set_fault(None);
            failed += disk.failed(&[kind]).min(1);
            (500..800).for_each(|nth| set(&store, nth).unwrap());
            let dead = || store.stats().into_iter().find(|(name, _)| *name == "dead_bytes");
            let start = std::time::Instant::now();
            while dead().unwrap().1 > 12_000 {
                store.maintain().unwrap();
                assert!(start.elapsed().as_secs() < 30, "{kind:?} at {nth} ends compaction");
                std::thread::yield_now();
            }
        }
        assert!(failed > 0, "no {kind:?} failed");
    }
}
