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
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::store::directory::{Directory, EngineName};
use super::store::fs::OsFs;
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
    /// The file `db`, to fsync it.
    log: File,
    /// Where large values are, one file each. Its name is a number that only grows.
    blobs: PathBuf,
    /// The largest of these numbers that is on disk.
    synced_blob: Cell<i64>,
    /// The first failure.
    failed: RefCell<Option<String>>,
    /// Fsyncs that were waited for.
    syncs: Cell<u64>,
    /// Locked as long as the database is open.
    _directory: Directory<OsFs>,
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
        let path = directory.path();
        let (log, blobs) = (path.join("db"), path.join("blobs"));
        // sled would create it for everyone whom the umask lets in.
        let created = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&blobs);
        created.map_err(KvsError::cannot("create the directory", &blobs))?;
        let context = format!("cannot open the sled database {}", path.display());
        let db = retry_while_locked(|| sled::Config::new().path(path).open());
        let db = db.map_err(engine_error(context))?;
        let is_ours = |name: &str| ["conf", "db"].contains(&name) || name.starts_with("snap.");
        sync_files(path, is_ours).map_err(KvsError::cannot("fsync the files in", path))?;
        directory.sync()?;
        directory.sync_ancestors()?;
        let store = SledKvStore {
            db,
            log: File::open(&log).map_err(KvsError::cannot("open", &log))?,
            blobs,
            synced_blob: Cell::new(-1),
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

    /// Fsyncs the blobs that the log refers to, and then the log.
    fn sync_log(&self) -> io::Result<()> {
        let synced = self.synced_blob.get();
        let mut newest = synced;
        let is_new = |name: &str| {
            let number = name.parse().unwrap_or(synced);
            newest = newest.max(number);
            number > synced
        };
        if sync_files(&self.blobs, is_new)? {
            File::open(&self.blobs)?.sync_all()?;
        }
        self.synced_blob.set(newest);
        self.log.sync_data()
    }
}

impl Drop for SledKvStore {
    fn drop(&mut self) {
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
        self.fatal(self.db.flush().map(drop).map_err(engine_error("sled cannot flush")))
    }

    fn sync(&self) -> Result<()> {
        self.flush()?;
        self.fatal(self.sync_log().map_err(KvsError::io("cannot fsync sled's files")))?;
        self.syncs.set(self.syncs.get() + 1);
        Ok(())
    }

    fn maintain(&self) -> Result<bool> {
        self.check().map(|()| false)
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        let mut stats = vec![("syncs", self.syncs.get())];
        stats.extend(self.db.size_on_disk().ok().map(|bytes| ("disk_bytes", bytes)));
        stats
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

/// The result of `open`, tried again while it is an error about sled's lock: the
/// threads of a handle of this process that was dropped may still hold it. No other
/// process can, because the directory is locked.
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

/// Fsyncs the files in a directory that `is_wanted` chooses by name, for their owner
/// only. Returns true if there are any.
fn sync_files(directory: &Path, mut is_wanted: impl FnMut(&str) -> bool) -> io::Result<bool> {
    let mut is_any = false;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&mut is_wanted) {
            is_any = true;
            match File::open(entry.path()) {
                // sled has removed it meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                opened => {
                    let file = opened?;
                    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
                    file.sync_all()?;
                }
            }
        }
    }
    Ok(is_any)
}

#[cfg(test)]
#[path = "sled_tests.rs"]
mod tests;
