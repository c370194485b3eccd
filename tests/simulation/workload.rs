//! A random workload on a store on a simulated disk, with the model beside it.

use kvs::{KvStore, KvsEngine, KvsError, Options};

use super::disk::{Call, SimulatedDisk};
use super::model::{Map, Model, show};
use super::random::Random;

/// Where the store is.
pub const DIRECTORY: &str = "/data/kvs";
/// Keys in use, few, so that most writes are overwrites.
const KEYS: u64 = 24;
/// Housekeeping steps that are always enough to finish.
const MAINTAIN_STEPS_MAX: u32 = 1_000;

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
    /// Whether the store has refused writes since it was opened.
    was_refused: bool,
    /// Syncs that had failed when it was opened.
    failed_syncs: u64,
    /// Values so far, so that each is another one.
    serial: u64,
}

impl Workload {
    /// A disk without a store, and options that make it rotate and compact often.
    pub fn new(seed: u64) -> Workload {
        let mut random = Random::new(seed);
        let mut options = Options::default();
        options.segment_bytes = random.pick(&[512, 700, 1024, 2048, 4096, 16_384]);
        options.compact_threshold_bytes = kvs::COMPACT_THRESHOLD_BYTES_MIN;
        options.cache_bytes = random.pick(&[0, 4096, 3 * 4096, 1 << 16]);
        options.buffered = random.one_in(2);
        let disk = SimulatedDisk::new(random.next());
        let model = Model::default();
        Workload {
            seed,
            random,
            disk,
            options,
            model,
            store: None,
            was_refused: false,
            failed_syncs: 0,
            serial: 0,
        }
    }

    /// Opens the store and compares all that is in it with the model.
    pub fn open(&mut self) -> Result<(), KvsError> {
        let store = KvStore::open_on(self.disk.clone(), DIRECTORY, self.options.clone())?;
        self.store = Some(store);
        self.was_refused = false;
        self.failed_syncs = self.disk.failed(&[Call::Sync]);
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

    /// Closes the store, which syncs it, unless something fails that nobody is told
    /// of, or has failed beside and was not told yet.
    pub fn close(&mut self) {
        let failed = self.disk.failed_any();
        self.store = None;
        let is_failed = self.was_refused
            || self.disk.failed_any() > failed
            || self.disk.failed(&[Call::Sync]) > self.failed_syncs;
        if !is_failed && !self.disk.has_ended() {
            self.model.sync();
        }
    }

    /// Drops the store as it is, and goes on with the disk as it is found then.
    pub fn end(&mut self, end: End) {
        let disk = match end {
            End::PowerLoss => self.disk.after_power_loss(),
            End::Kill => self.disk.after_kill(),
        };
        let could_not_cut = self.disk.failed(&[Call::Truncate]) > 0;
        self.disk.set_fault(None);
        self.disk.end_after(0);
        self.store = None;
        self.disk = disk;
        match end {
            End::PowerLoss => self.model.lose_power(),
            End::Kill if !could_not_cut => self.model.end_doubt(),
            End::Kill => {}
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
        Ok(map)
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
            Err(error) => self.failed(error, true),
        }
        written
    }

    /// Flushes.
    pub fn flush(&mut self) -> Result<(), KvsError> {
        let flushed = self.store().flush();
        match &flushed {
            Ok(()) => self.model.flush(),
            Err(error) => self.failed(error, false),
        }
        flushed
    }

    /// Syncs.
    pub fn sync(&mut self) -> Result<(), KvsError> {
        let synced = self.store().sync();
        match &synced {
            Ok(()) => self.model.sync(),
            Err(error) => self.failed(error, false),
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
                Err(error) => {
                    self.failed(&error, false);
                    return Err(error);
                }
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

    /// Takes back what a failed call has undone, unless the disk has ended, so
    /// that nobody was told. `is_write` when that is one write that was refused.
    fn failed(&mut self, error: &KvsError, is_write: bool) {
        if self.disk.has_ended() {
            return;
        }
        let is_refused = self.is_refused();
        let is_doubtful = [Call::Sync, Call::Truncate, Call::SyncDir, Call::Remove];
        let reason = self.disk.failed(&is_doubtful);
        assert!(!is_refused || reason > 0, "writes are refused without reason: {error}");
        match is_write && (self.options.buffered || self.was_refused) {
            true => self.model.take_back_one(),
            false if is_refused => self.model.doubt(),
            false => self.model.take_back(),
        }
        self.was_refused = is_refused;
    }

    /// Whether writes are refused until the store is opened anew.
    pub fn is_refused(&self) -> bool {
        matches!(self.store().flush(), Err(KvsError::WritesRefused { .. }))
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
