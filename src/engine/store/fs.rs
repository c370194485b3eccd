//! The interface between the store and the file system.
//!
//! The store makes every call that reaches the disk through [`Fs`], [`FsDir`]
//! and [`FsFile`]. [`OsFs`] passes each call on to `std::fs`. Tests replace it
//! by a simulated disk that loses power and fails (`tests/power_loss.rs`).
//!
//! What the store assumes of a file system:
//! * After `sync` of a file returns, its bytes and length survive a power
//!   failure. After `sync` of a directory returns, its names do.
//! * Before that, any subset of the pages written and of the names created or
//!   removed may survive, in any combination.
//! * After a failed `sync`, a later one may succeed although pages are lost.
//! * Overwriting bytes that were written before needs no free space.
//!
//! Not here: which files there are (`directory.rs`).

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::background::HelperThread;
pub use super::background::{Job, OsTask};

/// Permissions of a file: its owner may read and write.
const FILE_MODE: u32 = 0o600;
/// Permissions of a directory: its owner may list, create and enter.
const DIRECTORY_MODE: u32 = 0o700;

/// Calls on paths.
pub trait Fs: Sized {
    /// An open file.
    type File: FsFile;
    /// An open directory.
    type Dir: FsDir;
    /// A job that runs in the background.
    type Task: Task;

    /// Creates a directory and its missing parents, for the owner only.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Opens a directory.
    fn open_dir(&self, path: &Path) -> io::Result<Self::Dir>;
    /// The names in a directory, without those that are not UTF-8.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Creates a file for the owner only. It must not exist.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file to read and write. It must exist.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Removes the name of a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Runs a job in the background, after those that were started before.
    fn start(&self, job: Job<Self::File, Self::Dir>) -> Self::Task;
}

/// Calls on an open directory.
pub trait FsDir {
    /// Takes the exclusive lock of the directory; false if another handle has it.
    fn try_lock(&self) -> io::Result<bool>;
    /// Gives the lock back, also for child processes that inherited the handle.
    fn unlock(&self);
    /// Returns true if `path` still leads to this directory.
    fn is_at(&self, path: &Path) -> io::Result<bool>;
    /// Makes the names in the directory survive a power failure.
    fn sync(&self) -> io::Result<()>;
}

/// Calls on an open file. No call uses a file position.
#[expect(clippy::len_without_is_empty, reason = "a length on disk, not a collection")]
pub trait FsFile {
    /// The length of the file in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads at most `buffer.len()` bytes; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at most `bytes.len()` bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes bytes and length survive a power failure: `fdatasync`.
    fn sync(&self) -> io::Result<()>;
    /// Cuts or extends the file to `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;
}

/// A job that was started.
pub trait Task {
    /// The result of the job, once it has ended; `None` before. Waits for the end if
    /// `wait`. Not called again after the result.
    fn result(&mut self, wait: bool) -> Option<io::Result<()>>;
}

/// The file system of the operating system, and the helper thread.
#[derive(Debug, Default)]
pub struct OsFs {
    /// Runs the jobs.
    helper: HelperThread,
}

impl Fs for OsFs {
    type File = File;
    type Dir = File;
    type Task = OsTask;

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<File> {
        File::open(path)
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

    fn start(&self, job: Job<File, File>) -> OsTask {
        self.helper.start(move || job.run(|path| fs::remove_file(path)))
    }
}

impl FsDir for File {
    fn try_lock(&self) -> io::Result<bool> {
        match File::try_lock(self) {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn unlock(&self) {
        // If this fails, closing the descriptor gives the lock back.
        let _ = File::unlock(self);
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let there = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            there => there?,
        };
        let here = self.metadata()?;
        Ok((here.dev(), here.ino()) == (there.dev(), there.ino()))
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

impl FsFile for File {
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

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

/// Fills `buffer` from `offset` on, as far as the file reaches. Returns the bytes read.
pub(crate) fn read_full(file: &impl FsFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
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

/// Writes all of `bytes` at `offset`. Returns the bytes written, which are fewer
/// only with an error.
pub(crate) fn write_full(file: &impl FsFile, bytes: &[u8], offset: u64) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write_at(&bytes[written..], offset + written as u64) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
#[path = "fs_tests.rs"]
mod tests;
