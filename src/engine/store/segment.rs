//! One segment: a file of the log.
//!
//! ```text
//! 0        36                            len              allocated
//! | header | record | record | .. | record | zeros            |
//! ```
//!
//! The active segment, to which records are appended, has preallocated space
//! after its last record: zeros, written before records are staged. So a full disk
//! is detected before a record is staged, and most fsyncs need not write a new file
//! length.
//!
//! Not here: which segment is written to ([`log`](super::log)), and the bytes
//! of a record ([`record`](super::record)).
//!
//! Invariants:
//! * Bytes below `len` never change, and a read returns no bytes after them
//!   (`a_get_is_one_read_or_none`).
//! * A record is written only into preallocated space
//!   (`a_full_disk_fails_before_anything_is_staged`).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use super::fs::{FsFile, read_full, write_full};
use super::index::Location;
use super::record::{Position, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::error::{KvsError, Result};

/// Bytes that one call preallocates. More bytes make one call slower. Fewer bytes make
/// more calls, and more fsyncs that have to write a new file length.
pub(super) const PREALLOCATE_BYTES: u64 = 1 << 20;
/// Zeros that are written at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A segment of an open store.
pub(super) struct Segment<F> {
    /// Its file.
    pub(super) path: PathBuf,
    /// Its number.
    pub(super) number: u32,
    /// Seed of the checksums of its records.
    pub(super) salt: u32,
    /// Bytes of header and records: where the next record goes.
    pub(super) len: u32,
    /// Bytes of the file. Those from `len` on are zeros.
    pub(super) allocated: u64,
    /// Bytes of its records that the index points to.
    pub(super) live: u64,
    /// The end of the `Cleaned` record that names this segment, if there is one.
    pub(super) cleaned: Option<Position>,
    /// The open file; `None` while it is closed to save a descriptor.
    pub(super) file: Option<Arc<F>>,
}

impl<F: FsFile> Segment<F> {
    /// A segment without records.
    pub(super) fn new(path: PathBuf, file: Option<Arc<F>>, header: &SegmentHeader) -> Segment<F> {
        Segment {
            path,
            number: header.number,
            salt: header.salt,
            len: SEGMENT_HEADER_BYTES as u32,
            allocated: 0,
            live: 0,
            cleaned: None,
            file,
        }
    }

    /// Writes the header.
    pub(super) fn write_header(&mut self, header: &SegmentHeader) -> Result<()> {
        let (_, written) = write_full(&**self.file()?, &header.encode(), 0);
        written.map_err(KvsError::cannot("write the header of", &self.path))?;
        self.allocated = self.allocated.max(self.len.into());
        Ok(())
    }

    /// Where its records end.
    pub(super) fn end(&self) -> Position {
        Position { segment: self.number, offset: self.len }
    }

    /// The open file.
    pub(super) fn file(&self) -> Result<&Arc<F>> {
        self.file.as_ref().ok_or_else(|| KvsError::corrupt(&self.path, 0, "the file is closed"))
    }

    /// Preallocates space up to `end`, and up to `wanted` if it can. If it fails, the
    /// space that there is stays allocated.
    pub(super) fn preallocate(&mut self, end: u64, wanted: u64) -> Result<()> {
        let file = self.file()?.clone();
        match write_zeros(&*file, &mut self.allocated, end.max(wanted)) {
            Err(_) if self.allocated >= end => Ok(()),
            allocated => allocated.map_err(KvsError::cannot("preallocate space for", &self.path)),
        }
    }

    /// Writes bytes after the last record. After an error, any part of them may
    /// be in the file.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let (_, written) = write_full(&**self.file()?, bytes, self.len.into());
        written.map_err(KvsError::cannot_at("write", &self.path, self.len.into()))?;
        self.len += bytes.len() as u32;
        self.allocated = self.allocated.max(self.len.into());
        Ok(())
    }

    /// Truncates preallocated space from `end` on.
    pub(super) fn trim(&mut self, end: u32) -> Result<()> {
        let end = u64::from(end);
        if self.allocated > end {
            let trimmed = self.file()?.truncate(end);
            trimmed.map_err(KvsError::cannot_at("truncate", &self.path, end))?;
            self.allocated = end;
        }
        Ok(())
    }

    /// Fsyncs the file.
    pub(super) fn sync(&self) -> Result<()> {
        self.file()?.sync().map_err(KvsError::cannot("fsync", &self.path))
    }

    /// Fills `buffer` from `offset` on, as far as the records reach. Returns the
    /// bytes read.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let end = u64::from(self.len).saturating_sub(offset).min(buffer.len() as u64);
        let read = read_full(&**self.file()?, &mut buffer[..end as usize], offset);
        read.map_err(KvsError::cannot_at("read", &self.path, offset))
    }
}

/// Counts the record at `new` as live, and the one at `old` as dead. The numbers of
/// `segments` have no gaps.
pub(super) fn count_live<F>(
    segments: &mut VecDeque<Segment<F>>,
    new: Option<Location>,
    old: Option<Location>,
) {
    let oldest = segments.front().map_or(0, |oldest| oldest.number);
    if let Some(new) = new {
        segments[(new.segment - oldest) as usize].live += u64::from(new.len);
    }
    if let Some(old) = old {
        segments[(old.segment - oldest) as usize].live -= u64::from(old.len);
    }
}

/// Writes zeros from `*allocated` up to `end`, and advances `*allocated` by what
/// was written.
pub(super) fn write_zeros(
    file: &impl FsFile,
    allocated: &mut u64,
    end: u64,
) -> std::io::Result<()> {
    while *allocated < end {
        let count = (end - *allocated).min(ZEROS.len() as u64) as usize;
        let (written, outcome) = write_full(file, &ZEROS[..count], *allocated);
        *allocated += written as u64;
        outcome?;
    }
    Ok(())
}
