//! [`SledKvStore`]: sled behind the engine trait, with the same promise of
//! durability as the built-in engine.
//!
//! sled's own `flush` is not enough for that: on Linux it calls
//! `sync_file_range`, which empties no disk cache and keeps no file size. So
//! [`sync`](KvsEngine::sync) also syncs sled's files itself:
//!
//! | name | what it is | synced |
//! | --- | --- | --- |
//! | `db` | all of the log, in one file that is never replaced | each time |
//! | `blobs/*` | one item too large for the log each, written once | when new |
//! | `conf` | written once, when the database is made | on opening |
//! | `snap.*` | replaced on opening; sled syncs the file, not its name | on opening |
//! | `lock` | ours: who has the database open | never |
//!
//! Not here: a format of ours, and an undo. sled keeps a write in memory that it
//! could not put on the disk, so after a failed `flush` or `sync` reads may
//! still see what was not acknowledged, and writes are refused.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::private;
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};

/// The owner may read and write; nobody else may anything.
const FILE_MODE: u32 = 0o600;
/// Bytes of the lock file that are read: more than a process id has.
const LOCK_BYTES_MAX: u64 = 20;

/// How long sled's threads may take to let go of a database that was dropped.
const LETTING_GO_MAX: Duration = Duration::from_secs(5);

/// The second engine.
#[derive(Debug)]
pub struct SledKvStore {
    /// The database. Declared, and so dropped, before the lock.
    db: sled::Db,
    /// A handle on its log, for syncing.
    log: File,
    /// Where large items are, a file each.
    blobs_path: PathBuf,
    /// Those that are synced.
    synced_blobs: RefCell<HashSet<OsString>>,
    /// What the first write, flush or sync that failed did so with.
    refusal: RefCell<Option<String>>,
    /// Syncs that succeeded.
    syncs: Cell<u64>,
    /// Held for as long as the database is open.
    _lock: File,
}

impl SledKvStore {
    /// Opens the database in `directory`, which is created if it is missing.
    ///
    /// # Errors
    ///
    /// [`KvsError::InUse`] when it is open already; [`KvsError::Engine`] with
    /// what sled says.
    pub fn open(directory: impl Into<PathBuf>) -> Result<SledKvStore> {
        let directory = directory.into();
        let blobs_path = directory.join("blobs");
        // sled would create its directory open to all whom the umask lets in.
        private::create(&directory)?;
        let lock = lock(&directory)?;
        private::create(&blobs_path)?;
        let context = format!("cannot open the sled database {}", directory.display());
        let db = open_db(&directory).map_err(engine_error(context))?;
        let path = directory.join("db");
        let log =
            File::open(&path).map_err(KvsError::io(format!("cannot open {}", path.display())))?;
        settle(&directory)?;
        private::sync_ancestors(&directory, private::sync)?;
        let store = SledKvStore {
            db,
            log,
            blobs_path,
            synced_blobs: RefCell::default(),
            refusal: RefCell::default(),
            syncs: Cell::default(),
            _lock: lock,
        };
        // What recovery has read need not be on the disk; after this it is.
        store.sync()?;
        Ok(store)
    }

    /// Fails once a sync has.
    fn check_writable(&self) -> Result<()> {
        match &*self.refusal.borrow() {
            Some(cause) => Err(KvsError::WritesRefused { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Has sled write what it holds back.
    fn flush_db(&self) -> Result<()> {
        self.db.flush().map(drop).map_err(engine_error("sled cannot flush"))
    }

    /// Puts sled's files on the disk: those that the log refers to, then the log.
    fn sync_files(&self) -> Result<()> {
        self.sync_blobs().map_err(KvsError::io("cannot sync sled's blobs"))?;
        self.log.sync_data().map_err(KvsError::io("cannot sync sled's log"))
    }

    /// Syncs the blobs that are new, and forgets those that are gone.
    fn sync_blobs(&self) -> io::Result<()> {
        let mut synced = self.synced_blobs.borrow_mut();
        let mut present = HashSet::new();
        let mut is_any_new = false;
        for entry in fs::read_dir(&self.blobs_path)? {
            let entry = entry?;
            // sled's own thread removes a blob at any time.
            let is_here = synced.contains(&entry.file_name())
                || unless_gone(sync_private(&entry.path()))?
                    .inspect(|()| is_any_new = true)
                    .is_some();
            if is_here {
                present.insert(entry.file_name());
            }
        }
        if is_any_new {
            File::open(&self.blobs_path)?.sync_all()?;
        }
        *synced = present;
        Ok(())
    }

    /// Lets the outcome of a write, flush or sync pass, and refuses writes from
    /// the first that failed on: sled may wait for ever in the next.
    fn watch<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.inspect_err(|e| {
            self.refusal.borrow_mut().get_or_insert_with(|| e.chain().join(": "));
        })
    }
}

impl Drop for SledKvStore {
    fn drop(&mut self) {
        // Dropping the last handle flushes, and after a failure that may never
        // return: one more handle keeps it, until the process ends.
        if self.refusal.borrow().is_some() {
            std::mem::forget(self.db.clone());
        }
    }
}

impl KvsEngine for SledKvStore {
    fn set(&self, key: String, value: String) -> Result<()> {
        self.check_writable()?;
        let inserted = self.db.insert(key.into_bytes(), value.into_bytes());
        self.watch(inserted.map(drop).map_err(engine_error("sled cannot set the key")))
    }

    fn get(&self, key: String) -> Result<Option<String>> {
        let value = self.db.get(key).map_err(engine_error("sled cannot get the key"))?;
        value
            .map(|bytes| String::from_utf8(bytes.to_vec()))
            .transpose()
            .map_err(engine_error("sled holds a value that is not UTF-8"))
    }

    fn remove(&self, key: String) -> Result<()> {
        self.check_writable()?;
        let removed = self.db.remove(key).map_err(engine_error("sled cannot remove the key"));
        match self.watch(removed)? {
            Some(_) => Ok(()),
            None => Err(KvsError::KeyNotFound),
        }
    }

    fn scan(&self, _: Option<&str>) -> Result<crate::engine::Page> {
        Ok(crate::engine::Page::default())
    }

    fn flush(&self) -> Result<()> {
        self.check_writable()?;
        self.watch(self.flush_db())
    }

    fn sync(&self) -> Result<()> {
        self.check_writable()?;
        self.watch(self.flush_db().and_then(|()| self.sync_files()))?;
        self.syncs.set(self.syncs.get() + 1);
        Ok(())
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        let mut stats = vec![("syncs", self.syncs.get())];
        stats.extend(self.db.size_on_disk().ok().map(|bytes| ("disk_bytes", bytes)));
        stats
    }
}

/// Opens sled, and waits while a handle of this process that was dropped still
/// holds sled's own lock: its threads let go of it a little later. No other can,
/// as our lock is held.
fn open_db(directory: &Path) -> sled::Result<sled::Db> {
    await_lock(|| sled::Config::new().path(directory).open())
}

/// What `open` gives, again and again while that is an error about sled's lock.
fn await_lock<T>(open: impl Fn() -> sled::Result<T>) -> sled::Result<T> {
    let begun = Instant::now();
    loop {
        match open() {
            // sled keeps no more of this error than its text.
            Err(sled::Error::Io(error))
                if error.to_string().starts_with("could not acquire lock")
                    && begun.elapsed() < LETTING_GO_MAX =>
            {
                std::thread::sleep(LETTING_GO_MAX / 1000);
            }
            opened => return opened,
        }
    }
}

/// Gives an error of sled, or about what it returned, its context.
fn engine_error<E: std::error::Error + Send + Sync + 'static>(
    context: impl Into<String>,
) -> impl FnOnce(E) -> KvsError {
    let context = context.into();
    move |e| KvsError::Engine { context, source: Box::new(e) }
}

/// Takes the lock of the database. sled has one of its own, but its error does
/// not say who holds it.
fn lock(directory: &Path) -> Result<File> {
    let path = directory.join("lock");
    let context = || format!("cannot lock {}", path.display());
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    let mut file = options.open(&path).map_err(KvsError::io(context()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(KvsError::InUse { path: directory.to_owned(), pid: holder(&file) });
        }
        Err(TryLockError::Error(e)) => return Err(KvsError::io(context())(e)),
    }
    file.set_len(0)
        .and_then(|()| write!(file, "{}", std::process::id()))
        .map_err(KvsError::io(context()))?;
    Ok(file)
}

/// The process id in a lock file.
fn holder(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(LOCK_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.parse().ok()
}

/// Makes what sled has created on opening private and puts it on the disk.
fn settle(directory: &Path) -> Result<()> {
    let context = || format!("cannot sync {}", directory.display());
    for entry in fs::read_dir(directory).map_err(KvsError::io(context()))? {
        let entry = entry.map_err(KvsError::io(context()))?;
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            unless_gone(sync_private(&entry.path())).map_err(KvsError::io(context()))?;
        }
    }
    private::sync(directory)
}

/// Makes a file private and puts it on the disk.
fn sync_private(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    file.sync_all()
}

/// `None` for a file that is not there any more.
fn unless_gone(outcome: io::Result<()>) -> io::Result<Option<()>> {
    match outcome {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(Some),
    }
}

#[cfg(test)]
#[path = "sled_tests.rs"]
mod tests;
