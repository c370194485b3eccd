//! Nothing acknowledged is lost, and nothing that was refused comes back,
//! wherever power is lost and whichever call to the disk fails.
//!
//! A seeded workload runs on a simulated disk with segments so small that they
//! are begun, cleaned and removed all the time. It is run once for each call it
//! makes, with that call going wrong; then the store is opened again and
//! compared with what was acknowledged. Each failure names the seed and the
//! call: `KVS_SEED=seed cargo test --test power_loss` repeats that workload.
//! `KVS_TORTURE=n` runs n times as many.

#[path = "support/random.rs"]
mod random;
#[path = "support/simulated_disk.rs"]
mod simulated_disk;

use std::collections::BTreeMap;
use std::io::Write;

use kvs::{KvStore, KvsEngine, KvsError, Options};
use random::Random;
use simulated_disk::{EIO, ENOSPC, Plan, SimulatedDisk};

/// A store on a simulated disk.
type Store = KvStore<SimulatedDisk>;
/// What is in a store.
type Map = BTreeMap<String, String>;

/// Workloads that one run of the tests takes.
const SEEDS: u64 = 150;
/// Steps of a workload.
const STEPS: u64 = 70;
/// Keys that there are.
const KEYS: u64 = 10;

/// The seeds to run.
fn seeds() -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed: Option<u64> = number("KVS_SEED");
    let end = SEEDS * number("KVS_TORTURE").unwrap_or(1);
    (0..end).filter(move |each| seed.is_none_or(|seed| seed == *each))
}

/// Says how much was tried, also when the test passes, for which `println!` is
/// held back.
fn tell(what: &str) {
    let line = format!("power_loss: {what}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Options with which everything happens all the time.
fn options(seed: u64) -> Options {
    let mut random = Random::new(seed ^ 0xABCD);
    let mut options = Options::default();
    options.segment_bytes = 512 + random.below(3_000);
    options.compact_threshold_bytes = kvs::COMPACT_THRESHOLD_BYTES_MIN;
    options.cache_bytes = (random.below(3) * 8_192) as usize;
    options.buffered = random.below(2) == 0;
    options
}

/// What is in a store.
fn contents(store: &Store) -> Result<Map, KvsError> {
    let mut map = Map::new();
    for key in (0..KEYS).map(|nth| format!("key{nth}")) {
        if let Some(value) = store.get(key.clone())? {
            map.insert(key, value);
        }
    }
    Ok(map)
}

/// What is in a store, where one read may be the call that fails.
fn contents_at_last(store: &Store) -> Map {
    contents(store).or_else(|_| contents(store)).unwrap()
}

/// What has been acknowledged of a workload.
struct Model {
    /// The contents after each write so far, the first before any.
    states: Vec<Map>,
    /// The oldest of these that a loss of power may leave.
    synced: usize,
    /// The oldest that the end of the process may leave.
    handed_over: usize,
}

impl Model {
    /// A store that holds this, and has synced it.
    fn new(map: Map) -> Model {
        Model { states: vec![map], synced: 0, handed_over: 0 }
    }

    /// What reads see.
    fn now(&self) -> &Map {
        &self.states[self.states.len() - 1]
    }

    /// A write was acknowledged.
    fn write(&mut self, key: &str, value: Option<&str>) {
        let mut map = self.now().clone();
        match value {
            Some(value) => map.insert(key.to_owned(), value.to_owned()),
            None => map.remove(key),
        };
        self.states.push(map);
    }
}

/// Runs a workload until it ends or a call fails; how that went.
fn run(
    store: &Store,
    model: &mut Model,
    random: &mut Random,
    buffered: bool,
) -> Result<(), KvsError> {
    for step in 0..STEPS {
        let key = format!("key{}", random.below(KEYS));
        match random.below(20) {
            0..=10 => {
                let len = if random.below(12) == 0 { 6_000 } else { 120 };
                let value = format!("{step} {}", "v".repeat(random.below(len) as usize));
                // A write that fails may still be found after a loss of power.
                model.write(&key, Some(&value));
                store.set(key, value)?;
            }
            11..=14 => {
                if model.now().contains_key(&key) {
                    model.write(&key, None);
                }
                match store.remove(key) {
                    Err(KvsError::KeyNotFound) => {}
                    removed => removed?,
                }
            }
            15..=16 => {
                store.sync()?;
                model.synced = model.states.len() - 1;
            }
            17 => {
                store.flush()?;
                model.handed_over = model.states.len() - 1;
            }
            _ => drop(store.maintain()?),
        }
        if !buffered {
            model.handed_over = model.states.len() - 1;
        }
        model.handed_over = model.handed_over.max(model.synced);
    }
    Ok(())
}

/// Opens a store that a fault of `disk` may have left, and checks that it holds
/// one of the states from `oldest` on.
fn check(disk: &SimulatedDisk, options: &Options, model: &Model, oldest: usize, what: &str) -> Map {
    let store = KvStore::open_on(disk.clone(), "/kvs", options.clone())
        .unwrap_or_else(|error| panic!("{what}: {}", error.chain().join(": ")));
    let found = contents(&store).unwrap();
    // It ends without closing, which would sync what recovery has to.
    disk.set_plan(Plan::LosePower(1));
    drop(store);
    let is_one = model.states[oldest..].contains(&found);
    assert!(is_one, "{what}: found\n{found:?}\nnot one of\n{:?}", &model.states[oldest..]);
    found
}

/// Loses power at every call of every workload, then while the store recovers,
/// and then while it goes on.
#[test]
fn power_is_lost_at_every_call() {
    let mut losses = 0;
    for seed in seeds() {
        for call in 1.. {
            let options = options(seed);
            let disk = SimulatedDisk::new(Plan::LosePower(call));
            let mut model = Model::new(Map::new());
            if let Ok(store) = KvStore::open_on(disk.clone(), "/kvs", options.clone()) {
                let _ = run(&store, &mut model, &mut Random::new(seed), options.buffered);
            }
            let is_over = disk.calls() < call;
            let mut disk = disk.after_power_loss(seed ^ call, Plan::Work);
            losses += 1;
            let what = format!("seed {seed}, call {call}");
            for round in 0..call % 3 {
                disk.set_plan(Plan::LosePower(1 + (seed + call * 7) % 6));
                let _ = KvStore::open_on(disk.clone(), "/kvs", options.clone());
                disk = disk.after_power_loss(seed + call + round, Plan::Work);
                losses += 1;
            }
            let found = check(&disk, &options, &model, model.synced, &what);
            losses += go_on(&disk, &options, found, seed ^ (call << 20), &what);
            if is_over {
                break;
            }
        }
    }
    tell(&format!("{losses} losses of power"));
    assert!(losses > 20_000 || std::env::var("KVS_SEED").is_ok());
}

/// Goes on with a store that has recovered, and loses power once more.
fn go_on(disk: &SimulatedDisk, options: &Options, map: Map, seed: u64, what: &str) -> u64 {
    let mut random = Random::new(seed);
    let mut model = Model::new(map);
    disk.set_plan(Plan::LosePower(1 + random.below(150)));
    if let Ok(store) = KvStore::open_on(disk.clone(), "/kvs", options.clone()) {
        let _ = run(&store, &mut model, &mut random, options.buffered);
    }
    let disk = disk.after_power_loss(random.below(u64::MAX), Plan::Work);
    check(&disk, options, &model, model.synced, &format!("{what}, going on"));
    1
}

/// Ends the process at every call: what was handed over is there.
#[test]
fn the_process_ends_at_every_call() {
    for seed in seeds() {
        for call in 1.. {
            let options = options(seed);
            let disk = SimulatedDisk::new(Plan::LosePower(call));
            let mut model = Model::new(Map::new());
            if let Ok(store) = KvStore::open_on(disk.clone(), "/kvs", options.clone()) {
                let _ = run(&store, &mut model, &mut Random::new(seed), options.buffered);
            }
            let is_over = disk.calls() < call;
            let disk = disk.after_process_end(Plan::Work);
            let what = format!("seed {seed}, call {call}");
            let found = check(&disk, &options, &model, model.handed_over, &what);
            // What was found is on the disk from now on, whatever was before.
            let disk = disk.after_power_loss(seed ^ call, Plan::Work);
            check(&disk, &options, &Model::new(found), 0, &what);
            if is_over {
                break;
            }
        }
    }
}

/// Runs a workload through a fault, told after each step what reads have to see.
fn run_through(store: &Store, seed: u64, buffered: bool, what: &str) -> Model {
    let mut random = Random::new(seed);
    let mut model = Model::new(Map::new());
    for step in 0..STEPS {
        let key = format!("key{}", random.below(KEYS));
        let before = model.states.len();
        let action = random.below(20);
        let result = match action {
            0..=10 => {
                let value = format!("{step} {}", "v".repeat(random.below(150) as usize));
                model.write(&key, Some(&value));
                store.set(key, value)
            }
            11..=13 if model.now().contains_key(&key) => {
                model.write(&key, None);
                store.remove(key)
            }
            14..=16 => store.sync(),
            17 => store.flush(),
            _ => store.maintain().map(drop),
        };
        let is_commit = (14..=17).contains(&action);
        match result {
            Ok(()) if is_commit || !buffered => model.handed_over = model.states.len() - 1,
            Ok(()) => {}
            Err(_) => undo(store, &mut model, before, buffered, what),
        }
    }
    model
}

/// After a failed call, reads see what was there before it: with writes handed
/// over one by one, exactly; else what was last committed, or a later state.
fn undo(store: &Store, model: &mut Model, before: usize, buffered: bool, what: &str) {
    let found = contents_at_last(store);
    let oldest = if buffered { model.handed_over } else { before - 1 };
    let at = model.states[oldest..before].iter().rposition(|state| *state == found);
    let at = oldest + at.unwrap_or_else(|| panic!("{what}: after a fault, reads see {found:?}"));
    model.states.truncate(at + 1);
    model.handed_over = at;
}

/// Fails every call of every workload in turn, and fills the disk for a while.
#[test]
fn every_call_fails_once() {
    let mut faults = 0;
    for seed in seeds() {
        let options = options(seed);
        for call in 1.. {
            let plan = match call % 4 {
                0 => Plan::Full(call, call + 1 + seed % 20),
                1 => Plan::Fail(call, ENOSPC),
                _ => Plan::Fail(call, EIO),
            };
            let what = format!("seed {seed}, call {call}, {plan:?}");
            let disk = SimulatedDisk::new(plan);
            let Ok(store) = KvStore::open_on(disk.clone(), "/kvs", options.clone()) else {
                check(
                    &disk.after_process_end(Plan::Work),
                    &options,
                    &Model::new(Map::new()),
                    0,
                    &what,
                );
                continue;
            };
            let model = run_through(&store, seed, options.buffered, &what);
            let is_over = disk.calls() < call;
            faults += 1;
            assert_eq!(contents_at_last(&store), *model.now(), "{what}");
            let oldest = if options.buffered { model.handed_over } else { model.states.len() - 1 };
            let disk = disk.after_process_end(Plan::Work);
            check(&disk, &options, &model, oldest, &what);
            drop(store);
            if is_over {
                break;
            }
        }
    }
    tell(&format!("{faults} faults"));
    assert!(faults > 5_000 || std::env::var("KVS_SEED").is_ok());
}
