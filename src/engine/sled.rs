//! [`SledKvStore`]: sled behind the engine trait, as durable as this crate's own engine.
//!
//! sled's `flush` does not make data survive a power failure. On Linux it calls
//! `sync_file_range`, which neither flushes the disk's cache nor makes a file length
//! durable. So [`sync`](KvsEngine::sync) also fsyncs the log (`db`), and each value too
//! large for it (`blobs/*`) once. Opening fsyncs `conf` and `snap.*`, which sled writes
//! only then.
//!
//! Invariant: after a failed write, flush or fsync every call fails, because sled
//! keeps what it could not write in memory, and its next call may never return
//! (`after_a_failed_sync_every_call_of_sled_fails`).

use std::cell::{Cell, OnceCell};
use std::error::Error;
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::ops::Bound;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::store::directory::{Directory, EngineName};
use super::store::fs::{Fs, OsFs};
use crate::engine::{KvsEngine, Page};
use crate::error::{KvsError, Result};
use crate::protocol::{Request, encode_request};

const FILE_MODE: u32 = 0o600;
/// A page of a scan ends with the key that exceeds this number of bytes.
const PAGE_KEY_BYTES: usize = 64 << 10;
/// The first character of a cursor, so that no cursor is empty or `-`.
const CURSOR_PREFIX: char = '>';
/// How long the threads of a database that was dropped may hold sled's lock.
const LOCK_RELEASE_MAX: Duration = Duration::from_secs(5);

/// sled as an engine.
#[derive(Debug)]
pub struct SledKvStore {
    /// Declared, and so dropped, before the directory, which carries the lock.
    db: sled::Db,
    log: File,
    /// Blobs up to this number are on disk.
    synced_blob: Cell<u64>,
    first_failure: OnceCell<String>,
    directory: Directory<OsFs>,
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
        let cannot_open = || KvsError::cannot("open the sled database", path);
        // sled would create it for everyone whom the umask lets in.
        OsFs::default().create_dir(&path.join("blobs")).map_err(cannot_open())?;
        // sled panics at some damage.
        let opened = std::panic::catch_unwind(|| open_db(path))
            .map_err(|_| io::Error::other("sled has panicked, as its files are damaged"));
        let context = format!("cannot open the sled database {}", path.display());
        let db = opened.map_err(engine_error(&context))?.map_err(engine_error(&context))?;
        sync_files(path, |name| name == "conf" || name == "db" || name.starts_with("snap."))
            .map_err(cannot_open())?;
        let log = File::open(path.join("db")).map_err(cannot_open())?;
        directory.sync_ancestors()?;
        let store = SledKvStore {
            db,
            log,
            synced_blob: Cell::new(0),
            first_failure: OnceCell::new(),
            directory,
        };
        // sled may have recovered data that is not on disk yet.
        store.sync()?;
        Ok(store)
    }

    /// Fails if an earlier write, flush or fsync failed.
    fn check(&self) -> Result<()> {
        let failed = |cause: &String| Err(KvsError::Failed { cause: cause.clone() });
        self.first_failure.get().map_or(Ok(()), failed)
    }

    /// Does a write, flush or fsync. An error is fatal.
    fn write<T>(&self, write: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check()?;
        write().inspect_err(|error| {
            self.first_failure.get_or_init(|| error.chain().join(": "));
        })
    }

    /// [`choice::export`](super::choice::export) of a database. sled opens a damaged one
    /// without the pairs that it cannot find, and writes to it.
    pub(super) fn export(
        directory: &Path,
        out: &mut dyn Write,
        report: &mut dyn FnMut(&str),
    ) -> Result<u64> {
        let store = SledKvStore::open(directory)?;
        let mut lost = 0;
        for pair in store.db.iter() {
            let pair = pair.map_err(engine_error("sled cannot read a key"));
            match pair.and_then(|(key, value)| Ok((text(&key)?.into(), text(&value)?.into()))) {
                Ok((key, value)) => {
                    let mut line = Vec::new();
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
}

impl Drop for SledKvStore {
    fn drop(&mut self) {
        // Dropping the last handle flushes, and after a failure that may never
        // return. One more handle prevents it until the process ends.
        if self.check().is_err() {
            std::mem::forget(self.db.clone());
        }
    }
}

impl KvsEngine for SledKvStore {
    fn set(&self, key: String, value: String) -> Result<()> {
        let insert = || self.db.insert(key.into_bytes(), value.into_bytes());
        self.write(|| insert().map(drop).map_err(engine_error("sled cannot set the key")))
    }

    fn get(&self, key: String) -> Result<Option<String>> {
        self.check()?;
        let value = self.db.get(key).map_err(engine_error("sled cannot get the key"))?;
        value.map(|bytes| text(&bytes)).transpose()
    }

    fn remove(&self, key: String) -> Result<()> {
        let remove = || self.db.remove(key).map_err(engine_error("sled cannot remove the key"));
        self.write(remove)?.map(drop).ok_or(KvsError::KeyNotFound)
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
            page.keys.push(key);
            if key_bytes > PAGE_KEY_BYTES {
                page.next = page.keys.last().map(|key| format!("{CURSOR_PREFIX}{key}"));
                break;
            }
        }
        Ok(page)
    }

    fn flush(&self) -> Result<()> {
        self.write(|| self.db.flush().map(drop).map_err(engine_error("sled cannot flush")))
    }

    fn sync(&self) -> Result<()> {
        let io_error = || KvsError::io("cannot fsync sled's files");
        let blobs = self.directory.path().join("blobs");
        // A blob's name is its position in the log, so later ones have larger numbers.
        let number = |name: &str| name.parse().unwrap_or(0);
        self.write(|| {
            // A thread of sled may be writing blobs. The flush waits for those listed here.
            let listed = OsFs::default().list(&blobs).map_err(io_error())?;
            self.flush()?;
            // Blobs before the log, which refers to them.
            let synced = self.synced_blob.get();
            sync_files(&blobs, |name| number(name) > synced).map_err(io_error())?;
            self.synced_blob.set(listed.iter().map(|name| number(name)).max().unwrap_or(0));
            self.log.sync_data().map_err(io_error())
        })
    }

    fn maintain(&self) -> Result<bool> {
        self.check().map(|()| false)
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        self.db.size_on_disk().map_or(Vec::new(), |bytes| vec![("disk_bytes", bytes)])
    }
}

/// The string in bytes of sled.
fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(engine_error("sled holds bytes that are not UTF-8"))
}

/// Opens sled. Waits while the threads of a handle of this process that was dropped
/// still hold sled's own lock. No other process can, because the directory is locked.
fn open_db(directory: &Path) -> sled::Result<sled::Db> {
    let deadline = Instant::now() + LOCK_RELEASE_MAX;
    loop {
        let opened = sled::Config::new().path(directory).open();
        // sled keeps only the text of this error.
        let is_locked = matches!(&opened, Err(sled::Error::Io(error))
            if error.to_string().starts_with("could not acquire lock"));
        if !is_locked || Instant::now() > deadline {
            return opened;
        }
        std::thread::sleep(LOCK_RELEASE_MAX / 1000);
    }
}

/// Adds a context to an error of sled, or of decoding what sled returned.
fn engine_error<E: Error + Send + Sync + 'static>(context: &str) -> impl FnOnce(E) -> KvsError {
    |error| KvsError::Engine { context: context.to_owned(), source: Box::new(error) }
}

/// Fsyncs the files whose names are wanted, and then their directory. Leaves access to
/// the owner only. Skips files that sled has removed meanwhile.
fn sync_files(directory: &Path, is_wanted: impl Fn(&str) -> bool) -> io::Result<()> {
    let mut names = OsFs::default().list(directory)?;
    names.retain(|name| is_wanted(name));
    for name in &names {
        let file = match File::open(directory.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened?,
        };
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        file.sync_all()?;
    }
    if names.is_empty() { Ok(()) } else { File::open(directory)?.sync_all() }
}

#[cfg(test)]
#[path = "sled_tests.rs"]
mod tests;
