//! `KvStore`: a log-structured store in one directory.
//!
//! Every `set` and `remove` appends a record to the newest of the store's
//! segments; an index in memory says where the newest record of each key is;
//! `get` reads that one. Opening plays all records into the index. This is the
//! design of Bitcask (Sheehy and Smith, 2010), with these differences:
//!
//! * No hint files: opening reads every record, and checks it.
//! * Compaction cleans the oldest segment, in steps that writes pay for.
//! * Keys are all in memory, so the store holds as many as memory does.
//! * One thread calls: no lock inside, `&self` methods on one cell.
//!
//! In reading order: [`record`] and [`header`] (the byte layout), [`segment`] (one
//! file), [`directory`] and [`segments`] (many), [`index`] and [`table`] with
//! [`bucket`], [`entries`] and [`prefetch`](mod@prefetch), [`write`](mod@write),
//! [`successor`], [`read`](mod@read), [`cache`], [`replay`] and
//! [`recover`](mod@recover) with [`ahead`], [`compact`] with [`dead`]; then
//! [`checksums`], [`scan`], [`survey`](mod@survey), [`inspect`] and [`repair`].
//! Below them all is [`disk`], the seam for tests.
//!
//! Not here: sockets, argv, and the bytes of a record.

mod ahead;
mod bucket;
mod cache;
mod checksums;
mod compact;
mod crc32;
mod dead;
mod directory;
#[doc(hidden)]
pub mod disk;
mod entries;
mod header;
mod index;
mod inspect;
mod options;
mod prefetch;
mod read;
mod record;
mod recover;
mod repair;
mod replay;
mod scan;
mod segment;
mod segments;
mod successor;
mod survey;
mod table;
mod write;

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use self::cache::Cache;
use self::compact::Cleaner;
use self::directory::Directory;
use self::disk::{Disk, OsDisk};
use self::index::Index;
pub use self::options::{
    COMPACT_THRESHOLD_BYTES_MIN, Options, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
};
use self::record::Kind;
use self::recover::{Recovered, recover};
pub use self::repair::Repair;
pub(crate) use self::repair::check_not_cut_off;
use self::segments::Segments;
use self::successor::outgrown_bytes;
use self::write::Batch;
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use crate::logger;

/// A persistent map from strings to strings in one directory.
///
/// What `set` and `remove` did survives a crash of the process once they have
/// returned (unless [`Options::buffered`]), and a loss of power once
/// [`sync`](KvsEngine::sync) has. Dropping the store syncs it.
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
pub struct KvStore<D: Disk = OsDisk> {
    /// One cell: methods take `&self`, and one thread calls them.
    inner: RefCell<Inner<D>>,
}

/// The parts of an open store.
struct Inner<D: Disk> {
    /// As it was opened with.
    options: Options,
    /// The files.
    segments: Segments<D>,
    /// Where the newest record of each key is; of those in the batch too, once
    /// it is settled.
    index: Index,
    /// Blocks of segments that were read.
    cache: Cache,
    /// Records that are not written yet.
    batch: Batch,
    /// How far compaction has come.
    cleaner: Cleaner,
    /// Why no writes are accepted, once a sync has failed.
    refused: Option<String>,
    /// Whether the active segment is to be followed before the next record, so
    /// that it can be cleaned.
    successor_due: bool,
    /// Whether the newest record, if there is one in the active segment, is a
    /// mark that all before it is on the disk.
    marked: bool,
    /// Syncs of the active segment that were waited for since the store was opened.
    syncs: u64,
}

impl KvStore {
    /// Opens the store in `directory`, which is created if it is missing.
    ///
    /// # Errors
    ///
    /// [`KvsError::InUse`] when another handle has it open, in this process or
    /// another; [`KvsError::Corrupt`] when something in it is damaged.
    pub fn open(directory: impl Into<PathBuf>) -> Result<KvStore> {
        KvStore::open_with(directory, Options::default())
    }

    /// Opens the store in `directory` with these options.
    ///
    /// # Errors
    ///
    /// As for [`KvStore::open`].
    pub fn open_with(directory: impl Into<PathBuf>, options: Options) -> Result<KvStore> {
        let directory = directory.into();
        check_not_cut_off(&directory)?;
        KvStore::open_on(OsDisk, directory, options)
    }

    /// Writes a line to `out` for each segment and each record in `directory`,
    /// intact or not; how many damaged ranges there are. Changes nothing but
    /// the lock file, which names this process then.
    ///
    /// # Errors
    ///
    /// [`KvsError::InUse`] when the store is open.
    pub fn inspect(directory: &Path, out: &mut dyn std::io::Write) -> Result<u64> {
        inspect::inspect(directory, out)
    }

    /// Makes a store that opens from what is intact of a damaged one, which is
    /// set aside. Does nothing to a store that opens.
    ///
    /// # Errors
    ///
    /// [`KvsError::InUse`] when the store is open.
    pub fn repair(directory: &Path) -> Result<Repair> {
        repair::repair(directory)
    }

    /// How many keys have a value.
    fn key_count(&self) -> u64 {
        self.inner.borrow().index.len() as u64
    }

    /// Whether there is, or was, a store in `directory`. Changes nothing.
    pub fn exists(directory: &Path) -> Result<bool> {
        directory::is_store(directory)
    }
}

impl<D: Disk> KvStore<D> {
    /// Opens the store in `directory` of a file system that stands in for the
    /// operating system's.
    #[doc(hidden)]
    pub fn open_on(disk: D, directory: impl Into<PathBuf>, options: Options) -> Result<KvStore<D>> {
        let options = options.within_limits();
        // First, as it may fail: nothing is written then.
        let cache = Cache::new(options.cache_bytes, outgrown_bytes(options.segment_bytes))?;
        let directory = Directory::open(disk, directory.into())?;
        let Recovered { segments, index, marked } = recover(directory)?;
        let how = if marked { "nothing to recover" } else { "recovered" };
        logger::info!("{} keys in {} segments, {how}", index.len(), segments.count());
        let inner = Inner {
            options,
            segments,
            batch: Batch::default(),
            index,
            cache,
            cleaner: Cleaner::default(),
            refused: None,
            successor_due: false,
            marked,
            syncs: 0,
        };
        Ok(KvStore { inner: RefCell::new(inner) })
    }
}

impl<D: Disk> KvsEngine for KvStore<D> {
    fn set(&self, key: String, value: String) -> Result<()> {
        self.set_str(&key, &value)
    }

    fn set_str(&self, key: &str, value: &str) -> Result<()> {
        self.inner.borrow_mut().write(Kind::Set, key.as_bytes(), value.as_bytes())
    }

    fn get(&self, key: String) -> Result<Option<String>> {
        self.inner.borrow_mut().get(key.as_bytes())
    }

    fn remove(&self, key: String) -> Result<()> {
        let mut inner = self.inner.borrow_mut();
        inner.settle();
        match inner.index.get(key.as_bytes()) {
            Some(_) => inner.write(Kind::Remove, key.as_bytes(), b""),
            None => Err(KvsError::KeyNotFound),
        }
    }

    fn scan(&self, _: Option<&str>) -> Result<crate::engine::Page> {
        Ok(crate::engine::Page::default())
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

    fn prefetch(&self, keys: &[&str]) {
        self.inner.borrow().prefetch(keys);
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        let mut inner = self.inner.borrow_mut();
        inner.settle();
        vec![
            ("keys", inner.index.len() as u64),
            ("live_bytes", inner.index.live_bytes()),
            ("dead_bytes", inner.dead_bytes()),
            ("segments", inner.segments.count() as u64),
            ("compacting", u64::from(inner.is_compacting())),
            ("syncs", inner.syncs),
        ]
    }
}

impl<D: Disk> Inner<D> {
    /// Puts all on the disk and marks it so, that the next start has nothing to recover.
    fn close(&mut self) -> Result<()> {
        self.commit(true)?;
        self.mark()?;
        self.commit(true)?;
        self.drop_room()
    }
}

impl<D: Disk> Drop for Inner<D> {
    fn drop(&mut self) {
        if self.refused.is_some() {
            return;
        }
        if let Err(error) = self.close() {
            logger::error!("the store was not closed cleanly: {}", error.chain().join(": "));
        }
    }
}

impl<D: Disk> fmt::Debug for KvStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvStore").finish_non_exhaustive()
    }
}
