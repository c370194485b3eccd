//! What is read of a segment whose records are looked at one after another: more
//! at a time than is looked at, as a read for each step would take longer than the step.
//!
//! Not here: what is looked for ([`compact`](super::compact),
//! [`replay`](super::replay)).

use super::disk::DiskFile;
use super::record;
use super::segment::Segment;
use crate::error::Result;

/// Bytes of a segment that are read at a time, or more where more are asked for.
const READ_BYTES: usize = 16 << 10;

/// Bytes of a segment that were read at once.
#[derive(Default)]
pub(super) struct Ahead {
    /// The segment's number.
    segment: u32,
    /// Where in it the bytes begin.
    start: u64,
    /// The bytes.
    bytes: Vec<u8>,
}

impl Ahead {
    /// `len` bytes of a segment from `offset` on, or as many as there are.
    fn bytes<F: DiskFile>(
        &mut self,
        segment: &Segment<F>,
        offset: u64,
        len: usize,
    ) -> Result<&[u8]> {
        let end = segment.len.min(offset + len as u64);
        let is_here = self.segment == segment.header.number
            && self.start <= offset
            && end <= self.start + self.bytes.len() as u64;
        if !is_here {
            let room = (segment.len - offset).min(len.max(READ_BYTES) as u64);
            self.bytes.resize(room as usize, 0);
            self.bytes.shrink_to(READ_BYTES);
            let filled = segment.read(&mut self.bytes, offset)?;
            self.bytes.truncate(filled);
            (self.segment, self.start) = (segment.header.number, offset);
        }
        let from = (offset - self.start) as usize;
        Ok(&self.bytes[from..self.bytes.len().min(from + len)])
    }

    /// [`bytes`](Self::bytes), but at least the whole record that begins there, by the
    /// lengths that it claims.
    pub(super) fn whole_record<F: DiskFile>(
        &mut self,
        segment: &Segment<F>,
        offset: u64,
        len: usize,
    ) -> Result<&[u8]> {
        let claimed = record::claimed_len(self.bytes(segment, offset, len)?);
        self.bytes(segment, offset, len.max(claimed))
    }
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod tests;
