//! [`SledKvStore`]: sled behind the engine trait, with the same durability as the
//! engine of this crate.
//!
//! sled's `flush` is not enough for that. On Linux it calls `sync_file_range`, which
//! neither flushes the disk's cache nor makes a file length durable. So
//! [`sync`](KvsEngine::sync) also fsyncs sled's files:
//!
//! | name | contents | fsynced |
//! | --- | --- | --- |
//! | `db` | the log, one file | each time |
//! | `blobs/*` | one value too large for the log, written once | when new |
//! | `conf` | written once, when the database is created | at open |
//! | `snap.*` | replaced at open; sled fsyncs the file, not its name | at open |
//!
//! Not here: a file format.
//!
//! Invariant: after a failed write, flush or fsync every call fails, because sled
//! keeps what it could not write in memory, and may wait for ever in the next call
//! (`after_a_failed_sync_every_call_of_sled_fails`).

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::store::background::{HelperThread, OsTask};
use super::store::directory::{Directory, EngineName};
use super::store::fs::{OsFs, Task};
use crate::engine::{KvsEngine, Page};
use crate::error::{KvsError, Result};
use crate::protocol::{Request, encode_request};

/// Permissions of sled's files, and of its directory of blobs.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// Bytes of keys in a page of a scan, but for the last key.
const PAGE_KEY_BYTES: usize = 64 << 10;
/// The first character of a cursor, so that no cursor is empty or `-`.
const CURSOR_PREFIX: char = '>';
/// How long the threads of a database that was dropped may hold sled's lock.
const LOCK_RELEASE_MAX: Duration = Duration::from_secs(5);

/// sled as an engine.
#[derive(Debug)]
pub struct SledKvStore {
    /// The database. Declared, and so dropped, before the directory's lock.
    db: sled::Db,
    /// Its files, to fsync them.
    files: Arc<Files>,
    /// Runs fsyncs that nobody waits for.
    helper: HelperThread,
    /// The one that runs now.
    task: RefCell<Option<OsTask>>,
    /// The first failure.
    failed: RefCell<Option<String>>,
    /// Fsyncs that were waited for.
    syncs: Cell<u64>,
    /// Locked as long as the database is open.
    _directory: Directory<OsFs>,
}

/// The files of a database.
#[derive(Debug)]
struct Files {
    /// The log.
    log: File,
    /// Where large values are, one file each.
    blobs: PathBuf,
    /// The names of those that are on disk.
    synced_blobs: Mutex<HashSet<OsString>>,
}

impl SledKvStore {
    /// Opens the database in `directory`, which is created if it is missing.
    ///
    /// # Errors
    ///
    /// [`KvsError::InUse`] if it is open already; [`KvsError::WrongEngine`] if the
    /// directory holds a [`KvStore`](crate::KvStore); [`KvsError::Engine`] if sled fails.
    pub fn open(directory: impl Into<PathBuf>) -> Result<SledKvStore> {
        let directory = Directory::open(OsFs::default(), &directory.into(), EngineName::Sled)?;
        let path = directory.path().to_owned();
        let blobs = path.join("blobs");
        let context = format!("cannot create the directory {}", blobs.display());
        // sled would create it for everyone whom the umask lets in.
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(&blobs)
            .map_err(KvsError::io(context))?;
        let context = format!("cannot open the sled database {}", path.display());
        let db = open_db(&path).map_err(engine_error(context))?;
        let log_path = path.join("db");
        let context = format!("cannot open {}", log_path.display());
        let log = File::open(&log_path).map_err(KvsError::io(context))?;
        sync_new_files(&path)?;
        directory.sync()?;
        directory.sync_ancestors()?;
        let store = SledKvStore {
            db,
            files: Arc::new(Files { log, blobs, synced_blobs: Mutex::default() }),
            helper: HelperThread::default(),
            task: RefCell::default(),
            failed: RefCell::default(),
            syncs: Cell::default(),
            _directory: directory,
        };
        // sled may have recovered data that is not on disk yet.
        store.sync()?;
        Ok(store)
    }

    /// Fails if an earlier write, flush or fsync did.
    fn check(&self) -> Result<()> {
        match &*self.failed.borrow() {
            Some(cause) => Err(KvsError::Failed { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Makes an error fatal.
    fn fatal<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|e| {
            self.failed.borrow_mut().get_or_insert_with(|| e.chain().join(": "));
        })
    }

    /// Waits for the fsync in the background, unless it runs on and `is_patient` is false.
    fn end_task(&self, is_patient: bool) -> Result<()> {
        let mut task = self.task.borrow_mut();
        let Some(synced) = task.as_mut().and_then(|task| task.result(is_patient)) else {
            return Ok(());
        };
        *task = None;
        self.fatal(synced.map_err(KvsError::io("cannot fsync sled's files")))
    }
}

impl Files {
    /// Fsyncs the blobs that the log refers to, and then the log.
    fn sync(&self) -> io::Result<()> {
        self.sync_blobs()?;
        self.log.sync_data()
    }

    /// Fsyncs the blobs that are new, and forgets those that are gone.
    fn sync_blobs(&self) -> io::Result<()> {
        let mut synced = self.synced_blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut present = HashSet::new();
        let mut is_any_new = false;
        for entry in fs::read_dir(&self.blobs)? {
            let entry = entry?;
            if synced.contains(&entry.file_name()) {
                present.insert(entry.file_name());
            } else if sync_file(&entry.path())? {
                is_any_new = true;
                present.insert(entry.file_name());
            }
        }
        if is_any_new {
            File::open(&self.blobs)?.sync_all()?;
        }
        *synced = present;
        Ok(())
    }
}

impl Drop for SledKvStore {
    fn drop(&mut self) {
        let _ = self.end_task(true);
        // Dropping the last handle flushes, and after a failure that may never
        // return. One more handle prevents it until the process ends.
        if self.failed.borrow().is_some() {
            std::mem::forget(self.db.clone());
        }
    }
}

impl KvsEngine for SledKvStore {
    fn set(&self, key: String, value: String) -> Result<()> {
        self.check()?;
        let inserted = self.db.insert(key.into_bytes(), value.into_bytes());
        self.fatal(inserted.map(drop).map_err(engine_error("sled cannot set the key")))
    }

    fn get(&self, key: String) -> Result<Option<String>> {
        self.check()?;
        let value = self.db.get(key).map_err(engine_error("sled cannot get the key"))?;
        value.map(|bytes| text(&bytes)).transpose()
    }

    fn remove(&self, key: String) -> Result<()> {
        self.check()?;
        let removed = self.db.remove(key).map_err(engine_error("sled cannot remove the key"));
        self.fatal(removed)?.map(drop).ok_or(KvsError::KeyNotFound)
    }

    fn scan(&self, cursor: Option<&str>) -> Result<Page> {
        self.check()?;
        let start = match cursor.map(|cursor| cursor.strip_prefix(CURSOR_PREFIX).ok_or(cursor)) {
            None => Bound::Unbounded,
            Some(Ok(key)) => Bound::Excluded(key.as_bytes()),
            Some(Err(cursor)) => return Err(KvsError::BadCursor(cursor.to_owned())),
        };
        let mut page = Page::default();
        let mut key_bytes = 0;
        for key in self.db.range::<&[u8], _>((start, Bound::Unbounded)).keys() {
            let key = text(&key.map_err(engine_error("sled cannot scan"))?)?;
            key_bytes += key.len();
            if key_bytes > PAGE_KEY_BYTES {
                page.next = Some(format!("{CURSOR_PREFIX}{key}"));
            }
            page.keys.push(key);
            if page.next.is_some() {
                break;
            }
        }
        Ok(page)
    }

    fn flush(&self) -> Result<()> {
        self.check()?;
        self.fatal(self.db.flush().map(drop).map_err(engine_error("sled cannot flush")))?;
        self.end_task(false)
    }

    fn sync(&self) -> Result<()> {
        self.flush()?;
        self.end_task(true)?;
        self.fatal(self.files.sync().map_err(KvsError::io("cannot fsync sled's files")))?;
        self.syncs.set(self.syncs.get() + 1);
        Ok(())
    }

    fn maintain(&self) -> Result<bool> {
        self.check()?;
        self.end_task(false)?;
        Ok(self.task.borrow().is_some())
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        let mut stats = vec![("syncs", self.syncs.get())];
        stats.extend(self.db.size_on_disk().ok().map(|bytes| ("disk_bytes", bytes)));
        stats
    }

    fn sync_in_background(&self) -> Result<()> {
        self.flush()?;
        let mut task = self.task.borrow_mut();
        if task.is_none() {
            let files = self.files.clone();
            *task = Some(self.helper.start(move || files.sync()));
        }
        Ok(())
    }
}

/// Writes a `SET` line for each key of a database to `out`. What is lost is passed to
/// `report` and counted.
pub(super) fn export(
    directory: &Path,
    out: &mut dyn Write,
    report: &mut dyn FnMut(&str),
) -> Result<u64> {
    let store = SledKvStore::open(directory)?;
    let (mut line, mut lost) = (Vec::new(), 0);
    for pair in store.db.iter() {
        let pair = pair.map_err(engine_error("sled cannot read a key"));
        match pair.and_then(|(key, value)| Ok((text(&key)?, text(&value)?))) {
            Ok((key, value)) => {
                line.clear();
                let (key, value) = (key.into(), value.into());
                encode_request(&Request::Set { key, value }, &mut line);
                out.write_all(&line).map_err(KvsError::io("cannot write the export"))?;
            }
            Err(error) => {
                lost += 1;
                report(&error.chain().join(": "));
            }
        }
    }
    Ok(lost)
}

/// The string in bytes of sled.
fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(engine_error("sled holds bytes that are not UTF-8"))
}

/// Opens sled. Waits while the threads of a handle of this process that was dropped
/// still hold sled's own lock. No other process can, because the directory is locked.
fn open_db(directory: &Path) -> sled::Result<sled::Db> {
    retry_while_locked(|| sled::Config::new().path(directory).open())
}

/// The result of `open`, tried again while it is an error about sled's lock.
fn retry_while_locked<T>(open: impl Fn() -> sled::Result<T>) -> sled::Result<T> {
    let start = Instant::now();
    loop {
        match open() {
            // sled keeps only the text of this error.
            Err(sled::Error::Io(error))
                if error.to_string().starts_with("could not acquire lock")
                    && start.elapsed() < LOCK_RELEASE_MAX =>
            {
                std::thread::sleep(LOCK_RELEASE_MAX / 1000);
            }
            opened => return opened,
        }
    }
}

/// Adds a context to an error of sled, or to one about what sled returned.
fn engine_error<E: std::error::Error + Send + Sync + 'static>(
    context: impl Into<String>,
) -> impl FnOnce(E) -> KvsError {
    |error| KvsError::Engine { context: context.into(), source: Box::new(error) }
}

/// Fsyncs what sled has created at open, for its owner only.
fn sync_new_files(directory: &Path) -> Result<()> {
    let context = || format!("cannot fsync {}", directory.display());
    for entry in fs::read_dir(directory).map_err(KvsError::io(context()))? {
        let entry = entry.map_err(KvsError::io(context()))?;
        let is_ours = ["conf", "db"].iter().any(|name| entry.file_name() == *name)
            || entry.file_name().as_encoded_bytes().starts_with(b"snap.");
        if is_ours {
            sync_file(&entry.path()).map_err(KvsError::io(context()))?;
        }
    }
    Ok(())
}

/// Fsyncs a file, for its owner only. Returns false if sled has removed it meanwhile.
fn sync_file(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    file.sync_all()?;
    Ok(true)
}

#[cfg(test)]
#[path = "sled_tests.rs"]
mod tests;
