//! The store's directory: its lock, and the names of its segments.
//!
//! Not here: what is in a segment, or which segments there should be.
//!
//! Invariants:
//! * One handle at a time has the directory open: its lock file is locked by
//!   the operating system, which lets go when the process ends, however it does.
//!   A lock file that is left behind is therefore no hindrance (`a_directory_is_open_once`).
//! * A name that was created or removed is on the disk before the call returns
//!   (`every_loss_of_power_leaves_what_was_synced`).
//! * The lock file is empty until a segment is on the disk. One with text in it
//!   and no segment beside it tells of segments that were lost
//!   (`a_store_that_lost_all_its_segments_is_refused`).

use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, DiskFile, read_full, write_full};
use crate::engine::private::sync_ancestors;
use crate::error::{KvsError, Result};

/// The name of the lock file; it holds the process id of its newest holder.
const LOCK: &str = "lock";
/// How a segment's name ends; before it stands its number.
const SEGMENT_SUFFIX: &str = ".seg";
/// Digits of a number in a name, at the least, so that names sort as numbers do.
const NUMBER_DIGITS: usize = 8;
/// Bytes of the lock file that are read: more than any process id has.
const LOCK_BYTES_MAX: usize = 32;

/// A directory that this handle alone has open.
pub(crate) struct Directory<D: Disk> {
    /// The file system it is on.
    disk: D,
    /// Where it is.
    path: PathBuf,
    /// Locked for as long as this lives.
    lock: D::File,
}

impl<D: Disk> Directory<D> {
    /// Opens the directory, which is created if it is missing, and locks it.
    ///
    /// # Errors
    ///
    /// [`KvsError::InUse`] when another handle has it open.
    pub(crate) fn open(disk: D, path: PathBuf) -> Result<Directory<D>> {
        create_dir_all(&disk, &path)?;
        let lock_path = path.join(LOCK);
        let lock = open_or_create(&disk, &lock_path)
            .map_err(KvsError::io(format!("cannot open the lock file {}", lock_path.display())))?;
        let context = || format!("cannot lock {}", lock_path.display());
        match lock.try_lock() {
            Ok(true) => {
                let directory = Directory { disk, path, lock };
                match directory.is_initialised()? {
                    true => directory.name_holder()?,
                    false => {
                        sync_ancestors(&directory.path, |above| sync_dir(&directory.disk, above))?
                    }
                }
                Ok(directory)
            }
            Ok(false) => Err(KvsError::InUse { path, pid: read_pid(&lock) }),
            Err(error) => Err(KvsError::io(context())(error)),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a segment has ever been on the disk here, as the lock file tells.
    pub(crate) fn is_initialised(&self) -> Result<bool> {
        let len = self.lock.len().map_err(KvsError::io("cannot read the lock file"))?;
        Ok(len > 0)
    }

    /// Writes this process's id into the lock file, once a segment is on the disk.
    pub(crate) fn name_holder(&self) -> Result<()> {
        let text = format!("{}\n", std::process::id());
        write_full(&self.lock, text.as_bytes(), 0)
            .and_then(|()| self.lock.truncate(text.len() as u64))
            .map_err(KvsError::io(format!("cannot write {}", self.path.join(LOCK).display())))
    }

    /// The numbers of the segments, in rising order; other files are left alone.
    pub(crate) fn segment_numbers(&self) -> Result<Vec<u32>> {
        segment_numbers(&self.disk, &self.path)
    }

    /// Where the segment with this number is.
    pub(crate) fn segment_path(&self, number: u32) -> PathBuf {
        self.path.join(segment_name(number))
    }

    /// Creates the file of a segment. Its name is on the disk only after [`sync`](Self::sync).
    pub(crate) fn create_segment(&self, number: u32) -> Result<D::File> {
        let path = self.segment_path(number);
        self.disk
            .create(&path)
            .map_err(KvsError::io(format!("cannot create the segment {}", path.display())))
    }

    /// Opens the file of a segment.
    pub(crate) fn open_segment(&self, number: u32) -> Result<D::File> {
        let path = self.segment_path(number);
        self.disk
            .open(&path)
            .map_err(KvsError::io(format!("cannot open the segment {}", path.display())))
    }

    /// Removes the file of a segment, and its name from the disk.
    pub(crate) fn remove_segment(&self, number: u32) -> Result<()> {
        let path = self.segment_path(number);
        self.disk
            .remove(&path)
            .map_err(KvsError::io(format!("cannot remove the segment {}", path.display())))?;
        self.sync()
    }

    /// Puts the names that are here now on the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        sync_dir(&self.disk, &self.path)
    }
}

/// Opens a file, which is created if it is missing; another process may do so just now.
fn open_or_create<D: Disk>(disk: &D, path: &Path) -> io::Result<D::File> {
    match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match disk.create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(path),
            created => created,
        },
        opened => opened,
    }
}

/// Whether `path` holds a store's segments, or a lock file that tells of some.
pub(crate) fn is_store(path: &Path) -> Result<bool> {
    if !path.is_dir() {
        return Ok(false);
    }
    let told = std::fs::metadata(path.join(LOCK)).is_ok_and(|lock| lock.len() > 0);
    Ok(told || !segment_numbers(&super::disk::OsDisk, path)?.is_empty())
}

/// The numbers of the segments in `path`, in rising order.
pub(crate) fn segment_numbers(disk: &impl Disk, path: &Path) -> Result<Vec<u32>> {
    let names = disk
        .list(path)
        .map_err(KvsError::io(format!("cannot list the directory {}", path.display())))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The name of the segment with this number.
pub(crate) fn segment_name(number: u32) -> String {
    format!("{number:0NUMBER_DIGITS$}{SEGMENT_SUFFIX}")
}

/// The number in a segment's name; `None` for any other name.
fn segment_number(name: &str) -> Option<u32> {
    let number: u32 = name.strip_suffix(SEGMENT_SUFFIX)?.parse().ok()?;
    (name == segment_name(number)).then_some(number)
}

/// Creates a directory and what is missing above it.
fn create_dir_all(disk: &impl Disk, path: &Path) -> Result<()> {
    match (disk.create_dir(path), path.parent()) {
        (Ok(()), _) => Ok(()),
        (Err(error), _) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        (Err(error), Some(parent))
            if error.kind() == io::ErrorKind::NotFound && !parent.as_os_str().is_empty() =>
        {
            create_dir_all(disk, parent)?;
            create_dir_all(disk, path)
        }
        (Err(error), _) => {
            let context = format!("cannot create the directory {}", path.display());
            Err(KvsError::io(context)(error))
        }
    }
}

/// Puts the names in a directory on the disk.
fn sync_dir(disk: &impl Disk, path: &Path) -> Result<()> {
    disk.sync_dir(path)
        .map_err(KvsError::io(format!("cannot sync the directory {}", path.display())))
}

/// The process id in a lock file; `None` when there is none to be read.
fn read_pid(lock: &impl DiskFile) -> Option<u32> {
    let mut bytes = [0; LOCK_BYTES_MAX];
    let len = read_full(lock, &mut bytes, 0).ok()?;
    std::str::from_utf8(&bytes[..len]).ok()?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_are_segments() {
        assert_eq!(segment_number("00000001.seg"), Some(1));
        assert_eq!(segment_number("4294967295.seg"), Some(u32::MAX));
        for name in ["1.seg", "000000001.seg", "00000001.seg.old", "+0000001.seg", ".seg", "lock"] {
            assert_eq!(segment_number(name), None, "{name}");
        }
    }
}
