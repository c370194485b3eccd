//! [`KvStore`]: a log-structured store in one directory.
//!
//! The design is that of Bitcask (Sheehy and Smith, 2010). Every `set` and
//! `remove` appends a record to a log. The index in memory maps each key to the
//! location of its newest record, and `get` reads that record. Opening a store
//! replays the log into the index. Compaction gives back the space of records
//! that are not the newest.
//!
//! What differs from Bitcask:
//! * Keys are not held in memory, only fingerprints of them ([`index`]).
//! * Compaction cleans the oldest segment in small steps, driven by the writes
//!   themselves ([`compaction`]).
//! * There are no hint files. Opening reads and checks every record, at more than
//!   a gigabyte a second. Hints would be a second copy of the truth.
//!
//! ```text
//! set -> batch -> active segment            get -> index -> cache -> segment
//!          |           |  full: rotation
//!        index      older segments -> cleaned: live records go to the batch
//! ```
//!
//! In reading order: [`record`] (the format), [`segment`] (one file), [`log`]
//! (many), [`sync`] (their fsyncs), [`index`], [`cache`], this file, [`read`] (`get` and
//! scans), [`reader`], [`recovery`](mod@recovery), [`compaction`], [`inspect`]. Below them
//! are [`directory`], [`reserve`], [`background`], [`fs`] and [`crc32c`].
//!
//! Not here: sockets, argv, and the bytes of a record.

pub(crate) mod background;
mod cache;
mod compaction;
mod crc32c;
pub(crate) mod directory;
#[doc(hidden)]
pub mod fs;
mod index;
mod inspect;
mod log;
mod read;
mod reader;
mod record;
mod recovery;
mod reserve;
mod segment;
mod sync;

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::cache::Cache;
use self::compaction::{Compaction, MAINTAIN_BYTES};
use self::directory::{Directory, EngineName};
use self::fs::{Fs, OsFs};
use self::index::{Index, Location, Update};
use self::log::{Log, Space};
use self::record::{KEY_BYTES_MAX, Kind, VALUE_BYTES_MAX};
use self::recovery::recover;
use self::segment::count_live;
use crate::engine::{KvsEngine, Page};
use crate::error::{KvsError, Result};
use crate::logger;

/// How a store behaves. The default suits a store that is embedded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Largest size of a segment in bytes, from 512 to 2^30. A longer record has a segment
    /// of its own. Small segments give space back sooner, large ones make fewer files.
    pub segment_bytes: u64,
    /// Dead bytes below which nothing is compacted, at least 4096, unless the disk is
    /// full. Above, compaction is due while at least half of all bytes are dead, and a
    /// segment other than the active one is left to clean or the store is idle.
    pub compact_threshold_bytes: u64,
    /// Size of the block cache in bytes; 0 for none.
    pub cache_bytes: usize,
    /// Whether writes wait in memory for the next `flush` or `sync`. A server wants
    /// that: it commits once for many clients. Otherwise `set` and `remove` pass
    /// each record to the operating system.
    pub buffered: bool,
    /// Time without writes after which `maintain` makes everything durable.
    #[doc(hidden)]
    pub idle_time: Duration,
}

impl Options {
    /// The limits of `segment_bytes`. Offsets have 32 bits.
    const SEGMENT_BYTES: (u64, u64) = (512, 1 << 30);
    /// The lower limit of `compact_threshold_bytes`. Below it, compaction could write more
    /// than it gives back.
    const COMPACT_THRESHOLD_BYTES_MIN: u64 = 4 << 10;

    /// Clamps the options to their limits.
    fn within_limits(mut self) -> Options {
        let (min, max) = Options::SEGMENT_BYTES;
        self.segment_bytes = self.segment_bytes.clamp(min, max);
        let threshold = self.compact_threshold_bytes;
        self.compact_threshold_bytes = threshold.max(Options::COMPACT_THRESHOLD_BYTES_MIN);
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            segment_bytes: 8 << 20,
            compact_threshold_bytes: 1 << 20,
            cache_bytes: 64 << 20,
            buffered: false,
            // A little less than a second, so that a caller that calls `maintain` once a
            // second finds the store idle.
            idle_time: Duration::from_millis(900),
        }
    }
}

/// A persistent map from strings to strings, in one directory.
///
/// When `set` or `remove` returns, the write survives a crash of the process
/// (unless [`Options::buffered`]). When [`sync`](KvsEngine::sync) returns, all
/// writes survive a power failure. Dropping the store syncs it.
///
/// ```
/// use kvs::{KvStore, KvsEngine};
///
/// # fn main() -> kvs::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let directory = directory.path();
/// let store = KvStore::open(directory)?;
/// store.set("key".to_owned(), "value".to_owned())?;
/// store.sync()?;
/// assert_eq!(store.get("key".to_owned())?, Some("value".to_owned()));
/// store.remove("key".to_owned())?;
/// # Ok(())
/// # }
/// ```
///
/// A store can be moved to another thread. Threads share one as an
/// `Arc<Mutex<KvStore>>`; the README has an example.
pub struct KvStore<D: Fs = OsFs> {
    /// Methods take `&self`, and one thread calls them at a time.
    inner: RefCell<Inner<D>>,
}

/// The parts of an open store.
struct Inner<D: Fs> {
    options: Options,
    log: Log<D>,
    /// Where the newest record of each key is, once the updates are applied.
    index: Index,
    /// Updates of the index that are not applied yet.
    updates: Vec<Update>,
    cache: Cache,
    compaction: Compaction<D::File>,
    /// When `maintain` was first called after the last write.
    idle_since: Option<Instant>,
}

impl KvStore {
    /// Opens the store in `directory`, which is created if it is missing.
    ///
    /// # Errors
    ///
    /// [`KvsError::InUse`] if another handle has it open, in this process or
    /// another; [`KvsError::Corrupt`] if something in it is damaged;
    /// [`KvsError::WrongEngine`] if sled's files are in the directory.
    pub fn open(directory: impl Into<PathBuf>) -> Result<KvStore> {
        KvStore::open_with(directory, Options::default())
    }

    /// Opens the store in `directory` with these options.
    ///
    /// # Errors
    ///
    /// As for [`KvStore::open`].
    pub fn open_with(directory: impl Into<PathBuf>, options: Options) -> Result<KvStore> {
        KvStore::open_on(OsFs::default(), directory, options)
    }

    /// Writes a line to `out` for each segment, record and damaged range in
    /// `directory`. Returns the number of damaged ranges. Changes nothing and needs
    /// only read permission.
    ///
    /// # Errors
    ///
    /// [`KvsError::InUse`] if the store is open.
    pub fn inspect(directory: &Path, out: &mut dyn std::io::Write) -> Result<u64> {
        inspect::inspect(directory, out)
    }
}

impl<D: Fs> KvStore<D> {
    /// Opens the store in `directory` of another file system.
    #[doc(hidden)]
    pub fn open_on(fs: D, directory: impl Into<PathBuf>, options: Options) -> Result<KvStore<D>> {
        let options = options.within_limits();
        // First, as it may fail: nothing is created then.
        let cache = Cache::new(options.cache_bytes, options.segment_bytes)?;
        let directory = Directory::open(fs, &directory.into(), EngineName::Kvs)?;
        let (log, index) = recover(directory, options.segment_bytes)?;
        logger::info!("{} keys in {} segments", index.len(), log.segments.len());
        let mut inner = Inner {
            options,
            log,
            index,
            updates: Vec::new(),
            cache,
            compaction: Compaction::new(),
            idle_since: None,
        };
        inner.clean_segment()?;
        Ok(KvStore { inner: RefCell::new(inner) })
    }
}

impl<D: Fs> KvsEngine for KvStore<D> {
    fn set(&self, key: String, value: String) -> Result<()> {
        self.set_str(&key, &value)
    }

    fn get(&self, key: String) -> Result<Option<String>> {
        self.get_str(&key)
    }

    fn remove(&self, key: String) -> Result<()> {
        self.inner.borrow_mut().remove(key.as_bytes())
    }

    fn scan(&self, cursor: Option<&str>) -> Result<Page> {
        self.inner.borrow_mut().scan(cursor)
    }

    fn flush(&self) -> Result<()> {
        self.inner.borrow_mut().commit(false)
    }

    fn sync(&self) -> Result<()> {
        self.inner.borrow_mut().commit(true)
    }

    fn maintain(&self) -> Result<bool> {
        self.inner.borrow_mut().maintain()
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        let mut inner = self.inner.borrow_mut();
        inner.apply_updates();
        vec![
            ("keys", inner.index.len()),
            ("live_bytes", inner.log.live_bytes),
            ("dead_bytes", inner.dead_bytes()),
            ("segments", inner.log.segments.len() as u64),
            ("compacting", u64::from(inner.is_compaction_due(true))),
            ("syncs", inner.log.syncs),
        ]
    }

    fn set_str(&self, key: &str, value: &str) -> Result<()> {
        self.inner.borrow_mut().set(key.as_bytes(), value.as_bytes())
    }

    fn get_str(&self, key: &str) -> Result<Option<String>> {
        self.inner.borrow_mut().get(key.as_bytes())
    }

    fn prefetch(&self, keys: &[&str]) {
        self.inner.borrow_mut().prefetch(keys);
    }

    fn sync_in_background(&self) -> Result<()> {
        let mut inner = self.inner.borrow_mut();
        inner.log.is_sync_due = true;
        inner.commit(false)
    }
}

impl<D: Fs> Inner<D> {
    /// Sets a key.
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.log.check()?;
        check_len("a key", key.len(), KEY_BYTES_MAX)?;
        check_len("a value", value.len(), VALUE_BYTES_MAX)?;
        let fingerprint = self.index.fingerprint(key);
        let location = self.stage(Kind::Set, key, value, Space::Shared)?;
        self.finish_write(location, (fingerprint, Some(location)))
    }

    /// Removes a key.
    fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.log.check()?;
        self.apply_updates();
        let fingerprint = self.index.fingerprint(key);
        if self.index.get(fingerprint).is_none() {
            return Err(KvsError::KeyNotFound);
        }
        let location = self.stage(Kind::Remove, key, b"", Space::Reserved)?;
        self.finish_write(location, (fingerprint, None))
    }

    /// Stages a client's record. If the disk is full, cleans a segment and tries again.
    fn stage(&mut self, kind: Kind, key: &[u8], value: &[u8], space: Space) -> Result<Location> {
        match self.log.stage(kind, key, value, space) {
            Err(_) if self.log.must_free_space() => {
                self.commit(false)?;
                self.log.stage(kind, key, value, space)
            }
            staged => staged,
        }
    }

    /// Queues the index update of a staged record, and commits unless the commit can wait.
    fn finish_write(&mut self, record: Location, update: Update) -> Result<()> {
        self.idle_since = None;
        self.updates.push(update);
        self.compaction.owe(record.len.into());
        let can_wait = !self.compaction.is_far_behind() && !self.log.must_free_space();
        if self.options.buffered && can_wait { Ok(()) } else { self.commit(false) }
    }

    /// Applies the queued updates to the index, and counts live bytes. Adds the bytes that
    /// became dead to the cleaning that is owed.
    fn apply_updates(&mut self) {
        let Inner { index, updates, log, compaction, .. } = self;
        let (mut live, mut dead) = (0, 0);
        index.apply(updates, |new, old| {
            count_live(&mut log.segments, new, old);
            live += new.map_or(0, |new| u64::from(new.len));
            dead += old.map_or(0, |old| u64::from(old.len));
        });
        log.live_bytes = log.live_bytes + live - dead;
        compaction.owe(dead);
        updates.clear();
    }

    /// Writes the batch, cleans what is owed, and fsyncs if `durable`.
    fn commit(&mut self, durable: bool) -> Result<()> {
        if self.log.is_checkpoint_due() {
            self.log.write_checkpoint()?;
        } else {
            self.log.write()?;
        }
        self.clean_owed()?;
        if durable {
            self.log.sync()?;
        }
        self.log.run_background()
    }

    /// Does one bounded step of housekeeping. Returns true if there is more to do.
    fn maintain(&mut self) -> Result<bool> {
        self.commit(false)?;
        self.apply_updates();
        let idle_since = *self.idle_since.get_or_insert_with(Instant::now);
        let is_idle = idle_since.elapsed() >= self.options.idle_time;
        if self.is_compaction_due(is_idle) && !self.log.is_retry_pending() {
            self.clean_up_to(MAINTAIN_BYTES, is_idle)?;
            self.log.run_background()?;
            return Ok(true);
        }
        let awaits_removal = self.log.cleaned_count() > 0 && !self.log.is_retry_pending();
        if !is_idle {
            return Ok(awaits_removal);
        }
        // Others may need the descriptors.
        self.log.close_files(0);
        if self.log.synced < self.log.end() && self.log.checkpointed < self.log.end() {
            self.log.is_sync_due = true;
            self.log.start_background();
            return Ok(true);
        }
        if self.log.checkpointed < self.log.end() {
            self.log.write_checkpoint()?;
        }
        Ok(awaits_removal)
    }
}

impl<D: Fs> Drop for Inner<D> {
    fn drop(&mut self) {
        match self.commit(true).and_then(|()| self.log.close()) {
            // The failure was reported when it happened.
            Ok(()) | Err(KvsError::Failed { .. }) => {}
            Err(error) => {
                logger::error!("the store was not closed cleanly: {}", error.chain().join(": "));
            }
        }
    }
}

impl<D: Fs> fmt::Debug for KvStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvStore").finish_non_exhaustive()
    }
}

/// Fails if a length is over its limit.
fn check_len(what: &'static str, len: usize, max: usize) -> Result<()> {
    if len <= max {
        return Ok(());
    }
    Err(KvsError::TooLarge { what, len: len as u64, max: max as u64 })
}
