//! Power is lost, or the process killed, at every call that changes the disk,
//! and the store opens again with what it has promised.
//!
//! After each loss: opening succeeds by itself; the map found is the one that a
//! sync has covered, with a first part of the writes after it; and the store
//! works on. After a kill nothing at all that was answered is missing. Power
//! may go again while the store recovers.
//!
//! The disk is simulated ([`simulation`]); its files say what they do not
//! simulate. `tests/damage.rs`, `tests/faults.rs` and `tests/full_disk.rs` have the rest.

mod simulation;

use std::time::Duration;

use kvs::{KvStore, KvsEngine, KvsError, Options};
use simulation::disk::SimulatedDisk;
use simulation::workload::{DIRECTORY, End, Workload};
use simulation::{for_each_seed, report};

/// Opens the store again and again until power stays long enough; how many
/// losses that took, the one before included.
fn come_back(workload: &mut Workload, end: End) -> u64 {
    let mut losses = 1;
    workload.end(end);
    loop {
        let changes = workload.random.pick(&[1, 2, 3, 4, 6, 8, 20, 60, 150]);
        let changes = 1 + workload.random.below(changes);
        workload.disk.end_after(changes);
        match workload.open() {
            Ok(()) => return losses,
            Err(error) => assert!(workload.disk.has_ended(), "it did not open: {error:?}"),
        }
        losses += 1;
        workload.end(end);
    }
}

/// Works until the disk ends.
fn work(workload: &mut Workload) {
    while !workload.disk.has_ended() {
        if let Err(error) = workload.step() {
            assert!(workload.disk.has_ended(), "{error:?}");
        }
    }
}

/// Lives on one disk that ends so many times; how many it was in truth.
fn lives(seed: u64, ends: u64, choose: fn(&mut Workload) -> End) -> u64 {
    let mut workload = Workload::new(seed);
    let end = choose(&mut workload);
    let mut count = come_back(&mut workload, end);
    while count < ends {
        work(&mut workload);
        let end = choose(&mut workload);
        count += come_back(&mut workload, end);
    }
    workload.disk.end_after(u64::MAX / 2);
    workload.close();
    count
}

#[test]
fn every_power_loss_leaves_what_was_synced() {
    let mut losses = 0;
    for_each_seed("losses", 1_200, |seed| losses += lives(seed, 20, |_| End::PowerLoss));
    report(&format!("power was lost {losses} times"));
}

#[test]
fn every_kill_leaves_all_that_was_answered() {
    let mut kills = 0;
    for_each_seed("kills", 250, |seed| kills += lives(seed, 20, |_| End::Kill));
    report(&format!("the process was killed {kills} times"));
}

#[test]
fn kills_and_losses_of_power_may_take_turns() {
    let mut ends = 0;
    let choose = |workload: &mut Workload| workload.random.pick(&[End::PowerLoss, End::Kill]);
    for_each_seed("turns", 150, |seed| ends += lives(seed, 20, choose));
    report(&format!("the process was killed or power lost {ends} times"));
}

#[test]
fn power_may_be_lost_at_every_single_call() {
    let mut losses = 0;
    for_each_seed("every call", 2, |seed| {
        for at in 1.. {
            let mut workload = Workload::new(seed);
            workload.disk.end_after(at);
            let mut steps = 0;
            if workload.open().is_ok() {
                while steps < 120 && !workload.disk.has_ended() {
                    assert!(workload.step().is_ok() || workload.disk.has_ended());
                    steps += 1;
                }
            }
            if steps == 120 {
                break;
            }
            losses += come_back(&mut workload, End::PowerLoss);
        }
    });
    report(&format!("power was lost {losses} times, at one call after another"));
}

/// Writes without a sync, so that a later record lies in another page than the
/// beginning of the first, and loses power: one may be found without the other.
/// What there was before, and the disk.
fn lose_two_pages(disk: &SimulatedDisk, nth: u32) -> (Option<String>, SimulatedDisk) {
    let mut options = Options::default();
    options.buffered = true;
    options.segment_bytes = 16 << 10;
    let store = KvStore::open_on(disk.clone(), DIRECTORY, options).unwrap();
    let found = store.get("later".to_owned()).unwrap();
    store.set("long".to_owned(), format!("{nth}{}", "x".repeat(5_000))).unwrap();
    store.set("later".to_owned(), nth.to_string()).unwrap();
    store.flush().unwrap();
    (found, disk.after_power_loss())
}

/// A tail is cut off when the record before it is torn, intact as it may be. Until
/// the cut is synced, the disk may still hold it where the next tail is written.
#[test]
fn what_was_cut_off_does_not_come_back_behind_newer_writes() {
    for_each_seed("cut off", 20_000, |seed| {
        let (_, disk) = lose_two_pages(&SimulatedDisk::new(seed), 1);
        let (found, disk) = lose_two_pages(&disk, 2);
        let (again, _) = lose_two_pages(&disk, 3);
        let is_right = again == found || again.as_deref() == Some("2");
        assert!(is_right, "seed {seed}: first {found:?}, then {again:?}");
    });
}

/// A store whose last write is behind a checkpoint of an fsync in the background.
fn store_behind_a_checkpoint() -> (SimulatedDisk, KvStore<SimulatedDisk>) {
    let disk = SimulatedDisk::new(1);
    let mut options = Options::default();
    options.segment_bytes = 4096;
    options.idle_time = Duration::ZERO;
    let store = KvStore::open_on(disk.clone(), DIRECTORY, options).unwrap();
    disk.set_job_polls(2);
    let set = |key: &str, value: &str| store.set(key.to_owned(), value.to_owned()).unwrap();
    set("a", "1");
    store.sync_in_background().unwrap();
    ["b", "c"].iter().for_each(|key| set(key, "1"));
    set("key", "acknowledged");
    (disk, store)
}

#[test]
fn an_idle_store_has_everything_on_disk() {
    let (disk, store) = store_behind_a_checkpoint();
    for _ in 0..20 {
        while store.maintain().unwrap() {}
    }
    for _ in 0..20 {
        let after = KvStore::open_on(disk.after_power_loss(), DIRECTORY, Options::default());
        assert!(after.unwrap().get("key".to_owned()).unwrap().is_some());
    }
}

#[test]
fn a_closed_store_knows_that_everything_was_on_disk() {
    let (disk, store) = store_behind_a_checkpoint();
    drop(store);
    let mut files = disk.files();
    let newest = files.values_mut().next_back().unwrap();
    let at = newest.windows(12).position(|bytes| bytes == b"acknowledged").unwrap();
    newest[at] ^= 1;
    let disk = SimulatedDisk::from_files(&files);
    let opened = KvStore::open_on(disk, DIRECTORY, Options::default()).map(drop);
    assert!(matches!(opened, Err(KvsError::Corrupt { .. })), "{opened:?}");
}

/// All names but the newest may be lost of the segments that no fsync has covered.
#[test]
fn a_torn_tail_may_be_as_long_as_what_is_unsynced() {
    let disk = SimulatedDisk::new(1);
    let mut options = Options::default();
    options.segment_bytes = 4096;
    let store = KvStore::open_on(disk.clone(), DIRECTORY, options.clone()).unwrap();
    disk.set_job_polls(u64::MAX);
    let is_segment = |path: &std::path::Path| !path.ends_with("reserve.kvs");
    while disk.files().keys().filter(|path| is_segment(path)).count() < 10 {
        store.set("key".to_owned(), "v".repeat(100)).unwrap();
    }
    let mut files = disk.files();
    files.retain(|path, _| is_segment(path));
    let newest = files.pop_last().map(|(path, bytes)| (path, bytes[..36].to_vec())).unwrap();
    let oldest = files.pop_first().unwrap();
    let disk = SimulatedDisk::from_files(&[oldest, newest].into());
    let store = KvStore::open_on(disk, DIRECTORY, options).unwrap();
    assert!(store.get("key".to_owned()).unwrap().is_some());
}
