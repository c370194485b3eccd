//! A random workload on a store on a simulated disk, with the model beside it.

use std::collections::BTreeSet;
use std::time::Duration;

use kvs::{KvStore, KvsEngine, KvsError, Options};

use super::disk::{Call, SimulatedDisk};
use super::model::{Map, Model, show};
use super::random::Random;

/// Where the store is.
pub const DIRECTORY: &str = "/above/data";
/// Keys in use, few, so that most writes are overwrites.
const KEYS: u64 = 24;
/// Housekeeping steps that are always enough to finish.
const MAINTAIN_STEPS_MAX: u32 = 1_000;

/// Options of a store with the smallest segments.
pub fn tiny() -> Options {
    let mut options = Options::default();
    options.segment_bytes = 512;
    options.compact_threshold_bytes = 4096;
    options
}

/// How a store ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The machine loses power.
    PowerLoss,
    /// The process is killed.
    Kill,
}

/// A store, its disk, and what it has promised.
pub struct Workload {
    seed: u64,
    pub random: Random,
    pub disk: SimulatedDisk,
    pub options: Options,
    pub model: Model,
    store: Option<KvStore<SimulatedDisk>>,
    /// Values so far, so that each is another one.
    serial: u64,
    /// Fsyncs that had failed when the store was opened.
    failed_syncs: u64,
}

impl Workload {
    /// A disk without a store, and options that make it rotate and compact often.
    pub fn new(seed: u64) -> Workload {
        let mut random = Random::new(seed);
        let mut options = Options::default();
        options.segment_bytes = random.pick(&[512, 700, 1024, 2048, 4096, 16_384]);
        options.compact_threshold_bytes = 4096;
        options.cache_bytes = random.pick(&[0, 4096, 3 * 4096, 1 << 16]);
        options.buffered = random.one_in(2);
        options.idle_time = Duration::from_secs(random.pick(&[0, 1_000]));
        let disk = SimulatedDisk::new(random.next());
        let model = Model::default();
        Workload { seed, random, disk, options, model, store: None, serial: 0, failed_syncs: 0 }
    }

    /// Opens the store and compares all that is in it with the model.
    pub fn open(&mut self) -> Result<(), KvsError> {
        let store = KvStore::open_on(self.disk.clone(), DIRECTORY, self.options.clone())?;
        self.store = Some(store);
        self.failed_syncs = self.count_failed_syncs();
        match self.found() {
            Ok(found) => {
                self.model.settle(found);
                Ok(())
            }
            Err(error) => {
                self.store = None;
                Err(error)
            }
        }
    }

    /// Closes the store, which syncs it, unless something fails.
    pub fn close(&mut self) {
        // One in the background may have failed, and closing is told so.
        let is_failed = self.has_failed() || self.count_failed_syncs() > self.failed_syncs;
        let failed = self.disk.failed_any();
        self.store = None;
        if !is_failed && self.disk.failed_any() == failed && !self.disk.has_ended() {
            self.model.sync();
        }
    }

    /// Fsyncs that failed so far.
    fn count_failed_syncs(&self) -> u64 {
        self.disk.failed(&[Call::Sync, Call::SyncDir])
    }

    /// Drops the store as it is, and goes on with the disk as it is found then.
    pub fn end(&mut self, end: End) {
        let disk = match end {
            End::PowerLoss => self.disk.after_power_loss(),
            End::Kill => self.disk.after_kill(),
        };
        self.disk.set_fault(None);
        self.disk.end_after(0);
        self.store = None;
        self.disk = disk;
        if end == End::PowerLoss {
            self.model.lose_power();
        }
    }

    /// All that is in the store.
    pub fn found(&self) -> Result<Map, KvsError> {
        let mut map = Map::new();
        for nth in 0..KEYS {
            if let Some(value) = self.store().get(key(nth))? {
                map.insert(key(nth), value);
            }
        }
        let keys = self.stat("keys");
        assert_eq!(keys, map.len() as u64, "the store has keys that were never written");
        let scanned = self.scan()?;
        assert!(scanned.iter().eq(map.keys()), "a scan lists {scanned:?}");
        Ok(map)
    }

    /// The keys that a scan lists.
    fn scan(&self) -> Result<BTreeSet<String>, KvsError> {
        let mut keys = BTreeSet::new();
        let mut page = self.store().scan(None)?;
        while let Some(next) = page.next.take() {
            keys.append(&mut page.keys.drain(..).collect());
            page = self.store().scan(Some(&next))?;
        }
        keys.extend(page.keys);
        Ok(keys)
    }

    /// Compares all that reads show with the model.
    pub fn check(&self) {
        let (found, wanted) = (self.found().unwrap(), self.model.map());
        assert!(found == wanted, "wanted {:?}\nfound  {:?}", show(&wanted), show(&found));
    }

    /// Does something at random.
    pub fn step(&mut self) -> Result<(), KvsError> {
        match self.random.below(100) {
            0..58 => self.set(),
            58..70 => self.remove(),
            70..80 => self.sync(),
            80..86 => self.flush(),
            86..89 => self.maintain(1),
            89 => self.maintain(MAINTAIN_STEPS_MAX),
            90..98 => self.get(),
            _ => {
                self.close();
                self.open()
            }
        }
    }

    /// Sets a key.
    pub fn set(&mut self) -> Result<(), KvsError> {
        let key = key(self.random.below(KEYS));
        let value = self.value();
        self.model.begin(&key, Some(&value));
        let set = self.store().set(key, value);
        self.written(set)
    }

    /// Another value, often short, at times empty, seldom longer than a segment.
    fn value(&mut self) -> String {
        self.serial += 1;
        let longest = self.random.pick(&[0, 10, 10, 40, 40, 40, 200, 200, 900, 6_000]);
        let len = self.random.between(0, longest);
        let value = if len == 0 { String::new() } else { format!("{} ", self.serial) };
        value + &"x".repeat(len)
    }

    /// Removes a key.
    pub fn remove(&mut self) -> Result<(), KvsError> {
        let key = key(self.random.below(KEYS));
        let is_there = self.model.get(&key).is_some();
        self.model.begin(&key, None);
        match self.store().remove(key) {
            Err(KvsError::KeyNotFound) => {
                assert!(!is_there, "the key should be there");
                self.model.take_back_one();
                Ok(())
            }
            removed => {
                assert!(removed.is_err() || is_there, "the key should not be there");
                self.written(removed)
            }
        }
    }

    /// Brings the model to what was said of a write that it knows of.
    fn written(&mut self, written: Result<(), KvsError>) -> Result<(), KvsError> {
        match &written {
            Ok(()) if self.options.buffered => {}
            Ok(()) => self.model.flush(),
            Err(_) if self.has_failed() => {}
            Err(_) => self.model.take_back_one(),
        }
        written
    }

    /// Flushes.
    pub fn flush(&mut self) -> Result<(), KvsError> {
        let flushed = self.store().flush();
        self.check_fatal(&flushed);
        if flushed.is_ok() {
            self.model.flush();
        }
        flushed
    }

    /// Syncs.
    pub fn sync(&mut self) -> Result<(), KvsError> {
        let synced = self.store().sync();
        self.check_fatal(&synced);
        if synced.is_ok() {
            self.model.sync();
        }
        synced
    }

    /// Does so many steps of housekeeping, or all that there are, with nothing
    /// left to flush, as a server does when it is idle.
    pub fn maintain(&mut self, steps: u32) -> Result<(), KvsError> {
        self.flush()?;
        for _ in 0..steps {
            match self.store().maintain() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        assert!(steps < MAINTAIN_STEPS_MAX, "housekeeping does not end");
        Ok(())
    }

    /// Reads a key.
    pub fn get(&mut self) -> Result<(), KvsError> {
        let key = key(self.random.below(KEYS));
        let value = self.store().get(key.clone())?;
        assert_eq!(value.as_ref(), self.model.get(&key), "{key}");
        Ok(())
    }

    /// Fails unless an error of `flush` or `sync` is fatal.
    fn check_fatal(&self, result: &Result<(), KvsError>) {
        assert!(result.is_ok() || self.disk.has_ended() || self.has_failed(), "{result:?}");
    }

    /// Whether every call fails until the store is opened again. There has to be a
    /// reason.
    pub fn has_failed(&self) -> bool {
        // The second call, as the first may be the one that fails.
        let _ = self.store().flush();
        let failed = self.store().flush().is_err();
        let fatal = [Call::Write, Call::Sync, Call::SyncDir, Call::Remove];
        let reason = self.disk.failed(&fatal) > 0 || self.disk.has_ended();
        assert!(!failed || reason, "the store has failed without a reason");
        failed
    }

    /// A figure of the store's.
    pub fn stat(&self, name: &str) -> u64 {
        let stats = self.store().stats();
        stats.iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// The open store.
    pub fn store(&self) -> &KvStore<SimulatedDisk> {
        self.store.as_ref().unwrap()
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.store.is_some()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, calls, changes) = (self.seed, self.disk.calls(), self.disk.changes());
            super::report(&format!(
                "failed at call {calls} (change {changes}); again: KVS_SEED={seed} {:?}",
                self.options
            ));
        }
    }
}

/// The `nth` key; the first one is empty.
fn key(nth: u64) -> String {
    if nth == 0 { String::new() } else { format!("key{nth}") }
}
