//! The disk fails, and the store says so, undoes what failed and goes on.
//!
//! While calls fail: exactly the failed operations are told of it, nothing of
//! them is visible, and reads go on. Once the fault is gone, writes work again;
//! but after a failed sync, or when the undoing failed, all writes are refused
//! until the store is opened anew. A restart, a kill or a loss of power after
//! that finds what was told.
//!
//! The faults are those of [`simulation::disk::Fault`].

mod simulation;

use kvs::{KvStore, KvsEngine, KvsError, Options};
use simulation::disk::{Call, EIO, ENOSPC, Fault, SimulatedDisk};
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
        _ => Fault::Calls { first, last, kind: random.pick(&kinds), errno: EIO },
    }
}

/// Fails unless the error is one that tells of a fault.
fn check_told(error: &KvsError) {
    let is_told = matches!(error, KvsError::Io { .. } | KvsError::WritesRefused { .. });
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
        if !workload.is_open() {
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

/// The fault is gone: reads are right, and writes too unless they are refused, be it
/// from here on, as a sync beside them had failed.
fn check_after(workload: &mut Workload) {
    workload.disk.set_fault(None);
    workload.check();
    for _ in 0..10 {
        if let Err(error) = workload.step() {
            assert!(workload.is_refused(), "{error:?}");
        }
        workload.check();
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
        if !goes_on || random.one_in(2) {
            workload.end(random.pick(&[End::Kill, End::PowerLoss]));
            workload.open().unwrap();
        }
    }
    faults
}

#[test]
fn whatever_fails_exactly_that_is_told_and_undone() {
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

/// Two processes that start at once both find no lock file; one of them makes it.
#[test]
fn a_lock_file_that_another_process_makes_meanwhile_is_opened() {
    const ENOENT: i32 = 2;
    let (disk, store) = store_with_a_value();
    drop(store);
    let lock = disk.calls() + 2;
    let kind = Some(Call::Open);
    disk.set_fault(Some(Fault::Calls { first: lock, last: lock, kind, errno: ENOENT }));
    let store = KvStore::open_on(disk.clone(), DIRECTORY, Options::default()).unwrap();
    assert_eq!(disk.failed(&[Call::Open]), 1);
    assert_eq!(store.get("key".to_owned()).unwrap().as_deref(), Some("first"));
}

/// A fault of all calls of a kind.
fn all(kind: Call) -> Option<Fault> {
    Some(Fault::Calls { first: 0, last: u64::MAX, kind: Some(kind), errno: EIO })
}

#[test]
fn after_a_failed_sync_reads_go_on_and_writes_are_refused_until_the_store_is_opened_anew() {
    let (disk, store) = store_with_a_value();
    store.set("key".to_owned(), "second".to_owned()).unwrap();
    disk.set_fault(all(Call::Sync));
    assert!(matches!(store.sync(), Err(KvsError::Io { .. })));
    disk.set_fault(None);
    let get = |store: &KvStore<SimulatedDisk>| store.get("key".to_owned()).unwrap().unwrap();
    for _ in 0..2 {
        let refused = store.set("key".to_owned(), "third".to_owned()).unwrap_err();
        assert!(refused.to_string().contains("Input/output error"), "{refused}");
        for written in [store.sync(), store.flush(), store.remove("key".to_owned())] {
            assert!(matches!(written, Err(KvsError::WritesRefused { .. })), "{written:?}");
        }
        assert_eq!(get(&store), "second");
    }
    drop(store);
    let store = KvStore::open_on(disk.clone(), DIRECTORY, Options::default()).unwrap();
    assert_eq!(get(&store), "second");
    store.set("key".to_owned(), "fourth".to_owned()).unwrap();
    store.sync().unwrap();
    drop(store);
    let disk = disk.after_power_loss();
    let store = KvStore::open_on(disk, DIRECTORY, Options::default()).unwrap();
    assert_eq!(get(&store), "fourth");
}

#[test]
fn when_a_failed_append_cannot_be_cut_away_writes_are_refused() {
    let (disk, store) = store_with_a_value();
    disk.set_fault(Some(Fault::Calls { first: 0, last: u64::MAX, kind: None, errno: EIO }));
    let refused = store.set("key".to_owned(), "second".to_owned());
    assert!(matches!(refused, Err(KvsError::WritesRefused { .. })), "{refused:?}");
    disk.set_fault(None);
    let refused = store.set("key".to_owned(), "third".to_owned());
    assert!(matches!(refused, Err(KvsError::WritesRefused { .. })), "{refused:?}");
    assert_eq!(store.get("key".to_owned()).unwrap().as_deref(), Some("first"));
}

/// After a sync of more than one write that failed, while a cut does not.
#[test]
fn what_a_failed_sync_was_to_cover_is_not_found_after_a_kill() {
    let disk = SimulatedDisk::new(1);
    let mut options = Options::default();
    options.buffered = true;
    let store = KvStore::open_on(disk.clone(), DIRECTORY, options).unwrap();
    store.set("key".to_owned(), "first".to_owned()).unwrap();
    store.sync().unwrap();
    store.set("key".to_owned(), "second".to_owned()).unwrap();
    store.set("other".to_owned(), "second".to_owned()).unwrap();
    let first = disk.calls() + 1;
    let last = first + 1;
    disk.set_fault(Some(Fault::Calls { first, last, kind: Some(Call::Sync), errno: EIO }));
    assert!(matches!(store.sync(), Err(KvsError::Io { .. })));
    let after = KvStore::open_on(disk.after_kill(), DIRECTORY, Options::default()).unwrap();
    for store in [&store, &after] {
        assert_eq!(store.get("key".to_owned()).unwrap().as_deref(), Some("first"));
        assert_eq!(store.get("other".to_owned()).unwrap(), None);
    }
}

/// Whichever call of it fails; but after that of the active segment's sync, writes
/// are refused as they are after any.
#[test]
fn a_segment_that_cannot_be_begun_fails_the_write_and_is_begun_by_the_next() {
    let mut failed = Vec::new();
    for nth in 1..10 {
        let disk = SimulatedDisk::new(1);
        let mut options = Options::default();
        options.segment_bytes = 512;
        let store = KvStore::open_on(disk.clone(), DIRECTORY, options).unwrap();
        store.set("key".to_owned(), "v".repeat(600)).unwrap();
        store.sync().unwrap();
        let at = disk.calls() + nth;
        disk.set_fault(Some(Fault::Calls { first: at, last: at, kind: None, errno: EIO }));
        let set = || store.set("next".to_owned(), "value".to_owned());
        let Err(error) = set() else { continue };
        assert!(matches!(error, KvsError::Io { .. }), "{error:?}");
        assert_eq!(store.get("next".to_owned()).unwrap(), None);
        match set() {
            Ok(()) => assert_eq!(store.get("next".to_owned()).unwrap().as_deref(), Some("value")),
            refused => assert!(matches!(refused, Err(KvsError::WritesRefused { .. }))),
        }
        let kinds = [Call::Create, Call::Write, Call::Sync, Call::SyncDir];
        let kind = kinds.into_iter().find(|kind| disk.failed(&[*kind]) > 0).unwrap();
        failed.push((kind, set().is_ok()));
    }
    assert!(failed.contains(&(Call::Create, true)) && failed.contains(&(Call::SyncDir, true)));
    let refused: Vec<_> = failed.iter().filter(|(_, is_open)| !is_open).collect();
    assert_eq!(refused, [&(Call::Sync, false)]);
}

/// Names above the store's directory are synced when it is made; but who may not
/// read a directory has not made what is in it.
#[test]
fn a_directory_above_that_may_not_be_read_need_not_be_synced_and_any_other_failure_counts() {
    const EACCES: i32 = 13;
    for (errno, forgiven) in [(EACCES, 2), (EIO, 0)] {
        let mut opened = 0;
        for at in 1..40 {
            let disk = SimulatedDisk::new(1);
            let kind = Some(Call::SyncDir);
            disk.set_fault(Some(Fault::Calls { first: at, last: at, kind, errno }));
            let store = KvStore::open_on(disk.clone(), DIRECTORY, Options::default());
            opened += u32::from(store.is_ok() && disk.failed(&[Call::SyncDir]) == 1);
        }
        assert_eq!(opened, forgiven, "{errno}");
    }
}

/// What a batch has copied and retired is taken back with it: else the segment would
/// go, and the copies are nowhere.
#[test]
fn what_cleaning_did_in_a_batch_that_failed_is_done_again() {
    let mut options = Options::default();
    options.segment_bytes = 512;
    options.compact_threshold_bytes = 4096;
    let mut failed = 0;
    for nth in 0..150 {
        let disk = SimulatedDisk::new(1);
        let open = || KvStore::open_on(disk.clone(), DIRECTORY, options.clone()).unwrap();
        let store = open();
        for live in 0..100 {
            store.set(format!("live{live}"), format!("value {live}")).unwrap();
        }
        let mut last = None;
        for step in 0..400 {
            if step == 250 {
                let (first, kind) = (disk.calls() + nth, Some(Call::Write));
                let last = first + 2;
                disk.set_fault(Some(Fault::Calls { first, last, kind, errno: EIO }));
            }
            match store.set("key".to_owned(), format!("value {step}")) {
                Ok(()) => last = Some(format!("value {step}")),
                Err(error) => assert!(matches!(error, KvsError::Io { .. }), "{error:?}"),
            }
        }
        failed += disk.failed(&[Call::Write]).min(1);
        let check = |store: &KvStore<SimulatedDisk>| {
            for live in 0..100 {
                let found = store.get(format!("live{live}")).unwrap();
                assert_eq!(found, Some(format!("value {live}")), "fault {nth}");
            }
            assert_eq!(store.get("key".to_owned()).unwrap(), last);
        };
        while store.maintain().unwrap() {}
        check(&store);
        drop(store);
        check(&open());
    }
    assert!(failed > 60, "only {failed} batches failed");
}

#[test]
fn a_full_disk_fails_what_does_not_fit_and_nothing_else() {
    for room in 0..200 {
        let (disk, store) = store_with_a_value();
        disk.set_fault(Some(Fault::Full { bytes: disk.bytes() + room }));
        let mut kept = Vec::new();
        for nth in 0..20 {
            let (key, value) = (format!("key{nth}"), "v".repeat(nth));
            match store.set(key.clone(), value.clone()) {
                Ok(()) => kept.push((key, value)),
                Err(KvsError::Io { source, .. }) => {
                    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
                    assert_eq!(store.get(key).unwrap(), None);
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        disk.set_fault(None);
        store.set("more".to_owned(), "room".to_owned()).unwrap();
        kept.push(("more".to_owned(), "room".to_owned()));
        let disk = disk.after_kill();
        drop(store);
        let store = KvStore::open_on(disk, DIRECTORY, Options::default()).unwrap();
        assert!(store.stats().contains(&("keys", kept.len() as u64 + 1)));
        for (key, value) in kept {
            assert_eq!(store.get(key).unwrap(), Some(value));
        }
    }
}
