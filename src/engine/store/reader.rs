//! Reads the records of a segment one after another, through a buffer.
//!
//! Recovery, cleaning, scans, inspect and export all read the log with it.
//!
//! Not here: what the records mean, and single records by their location
//! ([`cache`](super::cache)).
//!
//! Invariant: the search for a record in damaged bytes takes constant time for
//! each position, whatever values clients have stored
//! (`crafted_values_do_not_slow_the_search`).

use std::path::Path;

use super::fs::{FsFile, read_full};
use super::record::{Damage, RECORD_HEADER_BYTES, Record, RecordHeader};
use crate::error::{KvsError, Result};

/// A segment to read.
#[derive(Clone, Copy)]
pub(super) struct Source<'a, F> {
    /// Its file.
    pub(super) file: &'a F,
    /// The path of the file, for messages.
    pub(super) path: &'a Path,
    /// Its number.
    pub(super) number: u32,
    /// Seed of the checksums of its records.
    pub(super) salt: u32,
    /// Where to stop: nothing behind this offset is read.
    pub(super) end: u64,
}

/// A buffer that holds a part of a segment.
pub(super) struct Reader {
    /// The buffer. Its first `filled` bytes were read.
    buffer: Vec<u8>,
    /// Bytes in the buffer.
    filled: usize,
    /// The segment that they are of; 0 for none.
    segment: u32,
    /// Their offset in the segment.
    start: u64,
    /// Bytes to read at a time, unless a record is longer.
    chunk: usize,
}

impl Reader {
    /// A reader that reads `chunk` bytes at a time.
    pub(super) fn new(chunk: usize) -> Reader {
        Reader { buffer: Vec::new(), filled: 0, segment: 0, start: 0, chunk }
    }

    /// The bytes from `offset` on: `len` of them, or fewer at the end.
    pub(super) fn bytes<F: FsFile>(
        &mut self,
        source: &Source<'_, F>,
        offset: u64,
        len: usize,
    ) -> Result<&[u8]> {
        let end = source.end.min(offset + len as u64).max(offset);
        let is_buffered = self.segment == source.number
            && self.start <= offset
            && end <= self.start + self.filled as u64;
        if !is_buffered {
            self.fill(source, offset, len)?;
        }
        let from = (offset - self.start) as usize;
        let to = ((end - self.start) as usize).min(self.filled);
        Ok(&self.buffer[from..to])
    }

    /// Reads a chunk from `offset` on, or `len` bytes if that is more.
    fn fill<F: FsFile>(&mut self, source: &Source<'_, F>, offset: u64, len: usize) -> Result<()> {
        let rest = source.end.saturating_sub(offset);
        let count = rest.min(len.max(self.chunk) as u64) as usize;
        if self.buffer.len() > self.chunk && count <= self.chunk {
            // It was grown for a long record.
            self.buffer = Vec::new();
        }
        if self.buffer.len() < count {
            self.buffer.resize(count, 0);
        }
        self.segment = 0;
        let context =
            || format!("cannot read {count} bytes of {} at byte {offset}", source.path.display());
        self.filled = read_full(source.file, &mut self.buffer[..count], offset)
            .map_err(|error| KvsError::io(context())(error))?;
        (self.segment, self.start) = (source.number, offset);
        Ok(())
    }

    /// The record at `offset`, or what is wrong there.
    pub(super) fn record<F: FsFile>(
        &mut self,
        source: &Source<'_, F>,
        offset: u64,
    ) -> Result<std::result::Result<Record<'_>, Damage>> {
        let header = match self.header(source, offset)? {
            Ok(header) => header,
            Err(damage) => return Ok(Err(damage)),
        };
        let bytes = self.bytes(source, offset, header.len())?;
        Ok(header.record(bytes, source.salt))
    }

    /// The header of the record at `offset`, or what is wrong there.
    pub(super) fn header<F: FsFile>(
        &mut self,
        source: &Source<'_, F>,
        offset: u64,
    ) -> Result<std::result::Result<RecordHeader, Damage>> {
        let bytes = self.bytes(source, offset, RECORD_HEADER_BYTES)?;
        Ok(RecordHeader::decode(bytes, source.salt))
    }

    /// The first offset from `offset` on at which an intact header of a record is.
    pub(super) fn find_header<F: FsFile>(
        &mut self,
        source: &Source<'_, F>,
        mut offset: u64,
    ) -> Result<Option<(u64, RecordHeader)>> {
        let chunk = self.chunk.max(RECORD_HEADER_BYTES);
        while offset + RECORD_HEADER_BYTES as u64 <= source.end {
            let bytes = self.bytes(source, offset, chunk)?;
            let headers = bytes.windows(RECORD_HEADER_BYTES);
            let mut found = headers.map(|window| RecordHeader::decode(window, source.salt));
            match found.position(|header| header.is_ok()) {
                Some(at) => {
                    let header = RecordHeader::decode(&bytes[at..], source.salt);
                    return Ok(header.ok().map(|header| (offset + at as u64, header)));
                }
                // The file is shorter than it was.
                None if bytes.len() < RECORD_HEADER_BYTES => return Ok(None),
                None => offset += (bytes.len() - RECORD_HEADER_BYTES + 1) as u64,
            }
        }
        Ok(None)
    }

    /// Returns true if only zeros follow from `offset` on.
    pub(super) fn is_zeros<F: FsFile>(
        &mut self,
        source: &Source<'_, F>,
        mut offset: u64,
    ) -> Result<bool> {
        while offset < source.end {
            let bytes = self.bytes(source, offset, self.chunk)?;
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            if bytes.is_empty() {
                break;
            }
            offset += bytes.len() as u64;
        }
        Ok(true)
    }
}
