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
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

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
pub trait DiskFile {
    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;
    /// Reads at most `buffer.len()` bytes; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at most `bytes.len()` bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Puts bytes and length on the disk.
    fn sync(&self) -> io::Result<()>;
    /// Has the system begin to put these bytes on the disk, and does not wait:
    /// a later [`sync`](Self::sync) has less to do, and tells what went wrong.
    /// Promises nothing.
    fn begin_sync(&self, _offset: u64, _len: u64) {}
    /// Cuts or extends the file to `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Takes the file's lock until it is closed; `false` when another has it.
    fn try_lock(&self) -> io::Result<bool>;
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

impl DiskFile for File {
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

    #[cfg(target_os = "linux")]
    fn begin_sync(&self, offset: u64, len: u64) {
        linux::begin_sync(self.as_raw_fd(), offset, len);
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

/// What Linux has and std has not.
#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::{c_int, c_uint};

    /// Begin to write the dirty pages of the range; wait for nothing.
    const SYNC_FILE_RANGE_WRITE: c_uint = 2;

    #[expect(unsafe_code, reason = "std has no sync_file_range(2)")]
    unsafe extern "C" {
        // SAFETY: it takes numbers only; a wrong one is an error that it returns.
        safe fn sync_file_range(fd: c_int, offset: i64, len: i64, flags: c_uint) -> c_int;
    }

    /// [`DiskFile::begin_sync`](super::DiskFile::begin_sync) of a descriptor.
    pub(super) fn begin_sync(fd: c_int, offset: u64, len: u64) {
        // What fails here is told by the sync that follows.
        let _ = sync_file_range(fd, offset as i64, len as i64, SYNC_FILE_RANGE_WRITE);
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
