//! The seam between the store and the file system.
//!
//! The store makes every call that reaches the disk through [`Disk`] and
//! [`DiskFile`]. [`OsDisk`] passes each on to `std::fs`; the generic parameter
//! is resolved when the crate is built, so the seam costs nothing. Tests stand
//! in a disk that loses power and fails (`tests/power_loss.rs`).
//!
//! What the store takes for granted of a file system, as POSIX and Linux have it:
//! * After `sync` of a file has returned, its bytes and length survive a loss
//!   of power; after `sync_dir` has, the names in that directory do.
//! * Before that, any part of what was written may be there, in pages, in any
//!   order, and the length may be there without them.
//! * Bytes written and synced do not change by themselves; where they do, the
//!   checksums tell.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread::{Builder, JoinHandle};

/// Who may read and write a file: its owner.
const FILE_MODE: u32 = 0o600;
/// Who may enter a directory: its owner.
const DIRECTORY_MODE: u32 = 0o700;

/// Calls on names.
pub trait Disk {
    /// An open file.
    type File: DiskFile;

    /// Creates one directory, for its owner only; its parent exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, those that are not UTF-8 left out.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Creates a file, for its owner only, which must not exist.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file, which must exist, to read and write.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Removes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Puts the names in a directory on the disk.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;
}

/// Calls on an open file. None uses a file position, so none can disturb it.
#[expect(clippy::len_without_is_empty, reason = "a length on disk, not a collection")]
pub trait DiskFile: Sized {
    /// A sync that goes on beside the caller.
    type Syncing: Syncing;

    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;
    /// Reads at most `buffer.len()` bytes; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at most `bytes.len()` bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Puts bytes and length on the disk.
    fn sync(&self) -> io::Result<()>;
    /// Begins a [`sync`](Self::sync) of what has been written so far. The file may be
    /// read and written meanwhile, but what fails is told to one sync only: so
    /// it is to be awaited before the outcome of another counts.
    fn sync_beside(&self) -> io::Result<Self::Syncing>;
    /// Closes a file that has no name any more, and does not wait for its
    /// blocks to be given back.
    fn close_beside(self) {}
    /// Cuts or extends the file to `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Takes the file's lock until it is closed; `false` when another has it.
    fn try_lock(&self) -> io::Result<bool>;
}

/// A sync that has begun.
pub trait Syncing {
    /// Whether it has ended.
    fn is_done(&self) -> bool;
    /// Waits for its end; what came of it.
    fn wait(self) -> io::Result<()>;
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    type File = File;

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(FILE_MODE).open(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

/// A sync on a thread of its own, which has no part in anything else.
impl Syncing for JoinHandle<io::Result<()>> {
    fn is_done(&self) -> bool {
        self.is_finished()
    }

    fn wait(self) -> io::Result<()> {
        self.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl DiskFile for File {
    type Syncing = JoinHandle<io::Result<()>>;

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn sync_beside(&self) -> io::Result<Self::Syncing> {
        let file = self.try_clone()?;
        Builder::new().name("kvs sync".to_owned()).spawn(move || file.sync_data())
    }

    fn close_beside(self) {
        // Where no thread can be had, this closes the file here.
        let _ = Builder::new().name("kvs close".to_owned()).spawn(move || drop(self));
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn try_lock(&self) -> io::Result<bool> {
        match File::try_lock(self) {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Fills `buffer` from `offset` on as far as the file reaches; the bytes read.
pub(crate) fn read_full(file: &impl DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes all of `bytes` at `offset`. After an error any part may be written.
pub(crate) fn write_full(file: &impl DiskFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write_at(&bytes[written..], offset + written as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
