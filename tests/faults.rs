//! The disk fails, and the store says so, loses nothing, and goes on or stops.
//!
//! A call that fails before anything is staged fails alone: for lack of space, or of
//! a descriptor. Other calls succeed, and it does too once the fault is gone. A
//! failed write or fsync is fatal: every later call fails until the store is opened
//! again. A restart, a kill or a power failure after that finds what was promised.
//!
//! The faults are those of [`simulation::disk::Fault`]. `tests/full_disk.rs` fills the disk.

mod simulation;

use kvs::{KvStore, KvsEngine, KvsError, Options};
use simulation::disk::{Call, EIO, EMFILE, ENOSPC, Fault, SimulatedDisk};
use simulation::random::Random;
use simulation::workload::{DIRECTORY, End, Workload, tiny};
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

/// Also if it follows the removal of a segment, which itself may be tried again: the next
/// fsync would not tell of a name that this one lost.
#[test]
fn after_a_failed_sync_of_the_directory_every_call_fails() {
    let (mut failed, mut after_removals) = (0, 0);
    for nth in 1..1_200 {
        let disk = SimulatedDisk::new(1);
        let store = KvStore::open_on(disk.clone(), DIRECTORY, tiny()).unwrap();
        let at = disk.calls() + nth;
        let kind = Some(Call::SyncDir);
        disk.set_fault(Some(Fault::Calls { first: at, last: at, kind, errno: EIO }));
        let mut removals = 0;
        for nth in 0..120 {
            let before = disk.calls_of(Call::Remove);
            let _ = store.set(format!("key{}", nth % 3), "v".repeat(100));
            if disk.failed(&[Call::SyncDir]) > 0 {
                removals = disk.calls_of(Call::Remove) - before;
                break;
            }
        }
        if disk.failed(&[Call::SyncDir]) == 0 {
            continue;
        }
        // A job in the background has ended by then.
        let results: Vec<_> = (0..20).map(|_| store.flush()).collect();
        assert!(matches!(results[19], Err(KvsError::Failed { .. })), "{nth}: {results:?}");
        failed += 1;
        after_removals += removals.min(1);
    }
    assert!(
        failed > 20 && after_removals > 5,
        "{failed}, {after_removals} of them after a removal"
    );
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
