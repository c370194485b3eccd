//! A segment: one file, a header and then records, that only grows.
//!
//! Not here: the bytes of header and record ([`header`](super::header),
//! [`record`](super::record)), which segments there are
//! ([`segments`](super::segments)), and when to sync.
//!
//! Invariants:
//! * The header is on the disk before [`Segment::create`] returns, so that no
//!   record is ever without one (`every_loss_of_power_leaves_what_was_synced`).
//! * `len` is the one owner of the write offset. A failed append is cut off
//!   before it returns, so that the file ends where `len` says
//!   (`a_full_disk_fails_what_does_not_fit_and_nothing_else`).
//! * What is cut off is off the disk before anything is written in its place
//!   (`what_was_cut_off_does_not_come_back_behind_newer_writes`).
//! * Bytes below `len` never change. Those from there on are zeros, and are no
//!   part of the segment: a read never returns them. An older segment has none
//!   (`zeros_at_the_end_of_an_older_segment_are_damage`).

use std::path::{Path, PathBuf};

use super::dead::Dead;
use super::directory::Directory;
use super::disk::{Disk, DiskFile, Syncing, read_full, write_full};
use super::header::{HEADER_BYTES, Header};
use crate::error::{KvsError, Result};

/// Zeros that are written ahead at a time: enough for many small syncs, and not
/// much to put on the disk in the one that comes first.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
/// Bytes to sync up to which zeros are written ahead. Larger syncs would spend
/// more on them than they gain.
const SMALL_SYNC_BYTES_MAX: u64 = 16 << 10;

/// A segment of an open store.
pub(crate) struct Segment<F: DiskFile> {
    /// Where its file is.
    pub(crate) path: PathBuf,
    /// What its header says.
    pub(crate) header: Header,
    /// Bytes in it, header included: where the next record goes.
    pub(crate) len: u64,
    /// Bytes of it that are known to be on the disk.
    pub(crate) synced: u64,
    /// A sync that has begun, and how many bytes will be on the disk after it.
    pub(crate) syncing: Option<(u64, F::Syncing)>,
    /// Bytes in the file: those from `len` on are zeros, to be written over.
    pub(crate) room: u64,
    /// Which of its records are dead.
    pub(crate) dead: Dead,
    /// Its open file; `None` while it is closed to save a descriptor.
    pub(crate) file: Option<F>,
}

impl<F: DiskFile> Segment<F> {
    /// Creates a segment: its header and its name are on the disk after this.
    pub(crate) fn create<D: Disk<File = F>>(
        directory: &Directory<D>,
        header: Header,
    ) -> Result<Segment<F>> {
        let file = directory.create_segment(header.number)?;
        let path = directory.segment_path(header.number);
        write_full(&file, &header.encode(), 0)
            .and_then(|()| file.sync())
            .map_err(KvsError::io(format!("cannot write the header of {}", path.display())))?;
        directory.sync()?;
        let mut segment = Segment::found(path, header, HEADER_BYTES as u64, file);
        segment.synced = segment.len;
        Ok(segment)
    }

    /// One whose file has `len` bytes, none of which is known to be on the disk. What of
    /// them are records is still to be found out, and `len` to be set.
    pub(crate) fn found(path: PathBuf, header: Header, len: u64, file: F) -> Segment<F> {
        let (dead, file) = (Dead::default(), Some(file));
        Segment { path, header, len, synced: 0, syncing: None, room: len, dead, file }
    }

    /// The open file.
    fn file(&self) -> Result<&F> {
        let closed = || KvsError::corrupt(&self.path, 0, "its file is not open");
        self.file.as_ref().ok_or_else(closed)
    }

    /// Appends bytes, all or none of them.
    ///
    /// # Errors
    ///
    /// Of the write, when what there is of it was cut off again;
    /// [`KvsError::WritesRefused`] when even that failed.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(error) = write_full(self.file()?, bytes, self.len) {
            self.cut_back(self.len)?;
            let context = format!("cannot append to {} at byte {}", self.path.display(), self.len);
            return Err(KvsError::io(context)(error));
        }
        self.len += bytes.len() as u64;
        self.room = self.room.max(self.len);
        Ok(())
    }

    /// Writes zeros ahead of small syncs, which are faster where the file need
    /// not grow: nothing but the bytes is to be put on the disk then. At most up
    /// to `end`, and only as long as there is space to waste.
    ///
    /// # Errors
    ///
    /// [`KvsError::WritesRefused`], as for [`cut_back`](Self::cut_back).
    pub(crate) fn write_ahead(&mut self, end: u64) -> Result<()> {
        let is_small = self.len - self.synced <= SMALL_SYNC_BYTES_MAX;
        if !is_small || self.has_room() {
            return Ok(());
        }
        let count = end.saturating_sub(self.len).min(ZEROS.len() as u64);
        match write_full(self.file()?, &ZEROS[..count as usize], self.len) {
            Ok(()) => self.room = self.len + count,
            Err(_) => self.cut_back(self.len)?,
        }
        Ok(())
    }

    /// Whether there are zeros after its records.
    pub(crate) fn has_room(&self) -> bool {
        self.room > self.len
    }

    /// Cuts the file to `len` bytes, on the disk too: else bytes that were cut
    /// off could come to stand there again behind newer ones.
    ///
    /// # Errors
    ///
    /// [`KvsError::WritesRefused`], as nobody knows then how the file ends.
    pub(crate) fn cut_back(&mut self, len: u64) -> Result<()> {
        let begun = self.syncing.take().map_or(Ok(()), |(_, syncing)| syncing.wait());
        let file = self.file()?;
        let cut = begun.and_then(|()| file.truncate(len)).and_then(|()| file.sync());
        cut.map_err(|error| KvsError::WritesRefused {
            cause: format!("cannot cut {} back to {len} bytes: {error}", self.path.display()),
        })?;
        self.len = len;
        self.room = len;
        // Not `len`: after one that failed, a sync says nothing of what was there before.
        self.synced = self.synced.min(len);
        Ok(())
    }

    /// Begins to put all of it on the disk, beside what else is done, unless that
    /// goes on already. Where it cannot begin, a later [`sync`](Self::sync) has more to do.
    pub(crate) fn begin_sync(&mut self) -> Result<()> {
        if self.syncing.is_none() {
            self.syncing = self.file()?.sync_beside().ok().map(|syncing| (self.len, syncing));
        }
        Ok(())
    }

    /// Takes note of a sync that has begun, if it has ended.
    pub(crate) fn note_sync(&mut self) -> Result<()> {
        let is_done = self.syncing.as_ref().is_some_and(|(_, syncing)| syncing.is_done());
        if is_done { self.await_sync() } else { Ok(()) }
    }

    /// Waits for a sync that has begun, if there is one.
    fn await_sync(&mut self) -> Result<()> {
        let Some((len, syncing)) = self.syncing.take() else { return Ok(()) };
        syncing.wait().map_err(KvsError::io(format!("cannot sync {}", self.path.display())))?;
        self.synced = self.synced.max(len);
        Ok(())
    }

    /// Puts all of it on the disk.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.await_sync()?;
        self.file()?
            .sync()
            .map_err(KvsError::io(format!("cannot sync {}", self.path.display())))?;
        self.synced = self.len;
        Ok(())
    }

    /// Writes again what may not be on the disk, and syncs it. After a sync that
    /// failed, the system may hold pages for written that are not, and another
    /// sync alone would leave them out.
    pub(crate) fn write_again(&mut self) -> Result<()> {
        let bytes = self.bytes_from(self.synced)?;
        write_full(self.file()?, &bytes, self.synced)
            .map_err(KvsError::io(format!("cannot write {} again", self.path.display())))?;
        self.sync()
    }

    /// All bytes from `offset` on.
    pub(crate) fn bytes_from(&self, offset: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; (self.len - offset) as usize];
        let filled = self.read(&mut bytes, offset)?;
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Fills `buffer` from `offset` on as far as the segment reaches; the bytes read.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        // Not the zeros behind it: they are going to change.
        let end = (self.len.saturating_sub(offset) as usize).min(buffer.len());
        let buffer = &mut buffer[..end];
        read_full(self.file()?, buffer, offset).map_err(KvsError::io(format!(
            "cannot read {} bytes of {} at byte {offset}",
            buffer.len(),
            self.path.display()
        )))
    }
}

/// Reads what a file begins with as a header; why it is none, where it is not. Also
/// how long the file is.
pub(crate) fn read_header(
    file: &impl DiskFile,
    path: &Path,
) -> Result<(std::result::Result<Header, String>, u64)> {
    let context = || format!("cannot read the header of {}", path.display());
    let mut bytes = [0; HEADER_BYTES];
    let filled = read_full(file, &mut bytes, 0).map_err(KvsError::io(context()))?;
    let len = file.len().map_err(KvsError::io(context()))?;
    Ok((Header::decode(&bytes[..filled]), len))
}

/// Reads a whole file into `bytes`, whose room is used again.
pub(crate) fn read_whole(file: &impl DiskFile, path: &Path, bytes: &mut Vec<u8>) -> Result<()> {
    let context = || format!("cannot read {}", path.display());
    let len = file.len().map_err(KvsError::io(context()))?;
    bytes.resize(len as usize, 0);
    let filled = read_full(file, bytes, 0).map_err(KvsError::io(context()))?;
    bytes.truncate(filled);
    Ok(())
}
