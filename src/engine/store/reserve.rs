//! The reserve: disk space that is kept for removals and for cleaning.
//!
//! A removal writes a tombstone, and cleaning a segment writes copies, before
//! either frees space. On a full disk both would fail, and the disk would stay
//! full. So clients' sets have to leave some space: a file of zeros,
//! `reserve.kvs`. If a removal or cleaning finds the disk full, the file is
//! emptied, and that space is theirs. Sets fail until the reserve is whole again.
//!
//! The reserve has the size of the longest segment, as cleaning one can need that, and some
//! space for tombstones. A small log needs less: the reserve is at most as long as the log
//! and one preallocation, and 4 KiB for tombstones. It is removed when the store is closed.
//!
//! Not here: when space is short ([`log`](super::log)).
//!
//! Invariant: after sets have filled a disk, all keys can be removed, and the
//! space comes back (`a_full_disk_can_be_emptied`).

use std::io::ErrorKind;
use std::path::PathBuf;

use super::directory::Directory;
use super::fs::{Fs, FsFile};
use super::segment::write_zeros;
use crate::error::{KvsError, Result};

/// The name of the file.
const NAME: &str = "reserve.kvs";

/// The reserve of an open store.
pub(super) struct Reserve<F> {
    path: PathBuf,
    /// The open file, once there is one.
    file: Option<F>,
    /// Bytes of the file.
    len: u64,
    /// Set while the space belongs to removals and cleaning: its size, and the bytes of
    /// the log when it was released.
    released: Option<(u64, u64)>,
}

impl<F: FsFile> Reserve<F> {
    /// The reserve that a crash left behind, or an empty one.
    pub(super) fn open<D: Fs<File = F>>(directory: &Directory<D>) -> Result<Reserve<F>> {
        let path = directory.path().join(NAME);
        let file = match directory.fs().open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            opened => Some(opened.map_err(KvsError::cannot("open", &path))?),
        };
        let len = file.as_ref().map_or(Ok(0), FsFile::len);
        let len = len.map_err(KvsError::cannot("read the length of", &path))?;
        Ok(Reserve { path, file, len, released: None })
    }

    /// Returns true if the space was released and is not back yet.
    pub(super) fn is_released(&self) -> bool {
        self.released.is_some()
    }

    /// Bytes of the reserve that are left when the log has `log_bytes` bytes.
    pub(super) fn left(&self, log_bytes: u64) -> u64 {
        self.released.map_or(self.len, |(size, before)| (size + before).saturating_sub(log_bytes))
    }

    /// Makes the reserve `target` bytes long, if it is shorter, or more than twice as long.
    pub(super) fn fill<D: Fs<File = F>>(
        &mut self,
        directory: &Directory<D>,
        target: u64,
    ) -> Result<()> {
        if self.len < target {
            let file = match self.file.take() {
                Some(file) => file,
                None => directory.create(&self.path)?,
            };
            match write_zeros(self.file.insert(file), &mut self.len, target) {
                // A limit on the size of files; segments meet it too.
                Err(error) if error.kind() == ErrorKind::FileTooLarge => {}
                filled => filled.map_err(KvsError::cannot("reserve space in", &self.path))?,
            }
        }
        if let (Some(file), true) = (&self.file, self.len > 2 * target) {
            file.truncate(target).map_err(KvsError::cannot("truncate", &self.path))?;
            self.len = target;
        }
        self.released = None;
        Ok(())
    }

    /// Frees the space for a removal or for cleaning. Returns false if there is none.
    pub(super) fn release(&mut self, log_bytes: u64) -> bool {
        let size = std::mem::take(&mut self.len);
        self.released.get_or_insert((size, log_bytes));
        size > 0 && self.file.as_ref().is_some_and(|file| file.truncate(0).is_ok())
    }

    /// Removes the file.
    pub(super) fn remove<D: Fs<File = F>>(&mut self, directory: &Directory<D>) -> Result<()> {
        self.file.take().map_or(Ok(()), |_| directory.remove(&self.path))
    }
}
