//! Compaction: gives back the space of records that were overwritten or removed.
//!
//! The oldest segment is *cleaned*: its live records are copied to the end of the
//! log, and then its file is removed. Oldest first makes two things simple. A copy
//! is the newest record of its key, so replay order stays right. And tombstones
//! can be dropped, because no older record is left that they must hide.
//!
//! Compaction is *due* while dead bytes are at least the threshold and half of all bytes,
//! and a full segment is left to clean or the store is idle. While the disk is full,
//! fewer dead bytes are enough. Each byte that is written, and each that becomes dead,
//! allows for [`CLEAN_FACTOR`] bytes of cleaning. A call does at most [`CALL_BYTES_MAX`]
//! of it; the rest stays owed. There are two exceptions, which clean a whole segment:
//! opening a store, so that a program that opens, writes a little and exits reclaims
//! space too, and each write while the disk is full.
//!
//! The bound on disk use: cleaning a log of `2 * live` bytes copies `live` bytes, and
//! `live` more are written meanwhile. So the segments never have more than `3 * live`
//! bytes, two thresholds and six segments, plus the largest batch
//! (`disk_use_stays_within_the_bound`). The reserve is not included: at most twice the
//! longest segment and a little more (`a_reserve_shrinks_with_the_longest_segment`). If the
//! disk is slower than the writers, up to eight segments that wait for an fsync, and eight
//! that wait for their removal, are not included either.
//!
//! Not here: how records reach the disk ([`log`](super::log)).
//!
//! Invariants:
//! * A segment is removed only when the copies of its live records, and the
//!   `Cleaned` record, are on disk (`every_power_loss_leaves_what_was_synced`).
//! * A segment is removed only when the index has no location in it. If damage
//!   prevents this, compaction ends
//!   (`damage_ends_compaction_and_keeps_the_segment`).
//! * Any other error that is not fatal ends a step, which is tried again after a second
//!   (`a_passing_error_does_not_end_compaction`).

use super::Inner;
use super::fs::Fs;
use super::index::Location;
use super::log::Space;
use super::reader::Reader;
use super::record::{CHECKPOINT_BYTES_MAX, CLEANED_BYTES, Kind, SEGMENT_HEADER_BYTES};
use crate::error::{KvsError, Result};

/// Bytes that are cleaned for each byte that was written or became dead.
pub(super) const CLEAN_FACTOR: u64 = 2;
/// Bytes that are cleaned at a time: few enough for a short pause, enough to
/// share the cost of an update of the index.
const STEP_BYTES: u32 = 2 << 10;
/// Maximum number of bytes that one call cleans. The last step may exceed it.
const CALL_BYTES_MAX: u64 = 1 << 20;
/// Bytes that one call of `maintain` cleans: about a tenth of a millisecond.
pub(super) const MAINTAIN_BYTES: u64 = 64 << 10;
/// Bytes that are read at a time, for a few steps.
const READ_BYTES: usize = 64 << 10;
/// While the disk is full, compaction is due if the dead bytes reach the size of a segment,
/// or of a smaller log, divided by this. The overhead of the segments does not count.
const FULL_DISK_DIVISOR: u64 = 16;
/// Overhead of a segment, which cleaning does not give back: its header, the last
/// checkpoint, and a `Cleaned` record.
const SEGMENT_OVERHEAD_BYTES: u64 =
    (SEGMENT_HEADER_BYTES + CHECKPOINT_BYTES_MAX + CLEANED_BYTES) as u64;

/// How far compaction is.
pub(super) struct Compaction<F> {
    /// Reads the segment that is being cleaned, and the offset of its next record.
    cleaning: Option<(Reader<F>, u32)>,
    /// Bytes of cleaning that are owed.
    owed: u64,
    /// Whether damage has ended compaction.
    ended: bool,
}

impl<F> Compaction<F> {
    /// Compaction that has done nothing.
    pub(super) fn new() -> Compaction<F> {
        Compaction { cleaning: None, owed: 0, ended: false }
    }

    /// Owes cleaning for bytes that were written or became dead.
    pub(super) fn owe(&mut self, bytes: u64) {
        self.owed = self.owed.saturating_add(bytes * CLEAN_FACTOR);
    }

    /// Returns true if one call's share of cleaning is owed. Then a write commits, even if
    /// writes are buffered.
    pub(super) fn is_far_behind(&self) -> bool {
        self.owed >= CALL_BYTES_MAX
    }
}

impl<D: Fs> Inner<D> {
    /// Bytes in the log that are not live.
    pub(super) fn dead_bytes(&self) -> u64 {
        self.log.bytes.saturating_sub(self.log.live_bytes)
    }

    /// Returns true if enough bytes are dead to clean segments. The active segment, which has
    /// to be rotated first, is cleaned only if `is_idle`, because more segments need more
    /// fsyncs. Requires that all updates are applied.
    pub(super) fn is_compaction_due(&self, is_idle: bool) -> bool {
        if self.compaction.ended {
            return false;
        }
        let dead = self.dead_bytes();
        if self.log.must_free_space() {
            return self.is_cleaning_possible(dead);
        }
        (is_idle || self.log.segments.len() > self.log.cleaned_count() + 1)
            && dead >= self.options.compact_threshold_bytes.max(self.log.bytes / 2)
    }

    /// Returns true if cleaning gives space back while the disk is full: if enough is
    /// dead, and the copies of the oldest segment fit into what the reserve has left.
    fn is_cleaning_possible(&self, dead: u64) -> bool {
        let log = &self.log;
        let overhead = SEGMENT_OVERHEAD_BYTES * log.segments.len() as u64;
        let live = log.segments.get(log.cleaned_count()).map_or(0, |oldest| oldest.live);
        dead >= self.options.segment_bytes.min(log.bytes) / FULL_DISK_DIVISOR + overhead
            && (live == 0 || live + 2 * SEGMENT_OVERHEAD_BYTES <= log.reserve.left(log.bytes))
    }

    /// Cleans what is owed, at most one call's share. Requires that the batch is written.
    ///
    /// # Errors
    ///
    /// Only fatal ones. Others end the step and are tried again.
    pub(super) fn clean_owed(&mut self) -> Result<()> {
        if self.log.must_free_space() {
            self.apply_updates();
            // The whole segment at once: no tombstone takes the space that its copies need.
            return self.clean_segment();
        }
        if self.compaction.owed < STEP_BYTES.into() {
            return Ok(());
        }
        self.apply_updates();
        self.clean_up_to(self.compaction.owed.min(CALL_BYTES_MAX), false)
    }

    /// Cleans this number of bytes, or until compaction is not due. Requires that all updates
    /// are applied.
    pub(super) fn clean_up_to(&mut self, bytes: u64, is_idle: bool) -> Result<()> {
        if self.log.is_retry_pending() {
            return Ok(());
        }
        self.log.retry = None;
        let mut cleaned = 0;
        while cleaned < bytes {
            if !self.is_compaction_due(is_idle) {
                self.compaction.owed = 0;
                break;
            }
            match self.clean_step() {
                Ok(count) => cleaned += count,
                Err(error) => {
                    self.log.check()?;
                    self.compaction.ended = matches!(error, KvsError::Corrupt { .. });
                    self.log.note_error(&error);
                    break;
                }
            }
        }
        self.compaction.owed = self.compaction.owed.saturating_sub(cleaned);
        self.log.write()
    }

    /// Cleans the next records of the oldest segment. Returns their bytes.
    fn clean_step(&mut self) -> Result<u64> {
        let oldest = self.log.cleaned_count();
        if oldest + 1 == self.log.segments.len() {
            // The active segment cannot be cleaned.
            return self.log.rotate(0, Space::Reserved).map(|()| 0);
        }
        let segment = &self.log.segments[oldest];
        let (number, len, live) = (segment.number, segment.len, segment.live);
        let cleaning = self.compaction.cleaning.take();
        if live == 0 {
            self.log.stage(Kind::Cleaned, &number.to_le_bytes(), b"", Space::Reserved)?;
            let (oldest, end) = (self.log.cleaned_count(), self.log.staged_end());
            self.log.segments[oldest].cleaned = Some(end);
            self.log.bytes -= u64::from(len);
            return Ok(0);
        }
        let (mut reader, start) = match cleaning {
            Some(cleaning) => cleaning,
            None => (self.log.reader(number, READ_BYTES)?, SEGMENT_HEADER_BYTES as u32),
        };
        if start == len {
            let end = Location { segment: number, offset: start, len: 0 };
            let reason = format!("{live} live bytes of the segment were not found");
            return Err(self.log.corrupt(end, reason));
        }
        let mut offset = start;
        let copied = self.copy_live(&mut reader, number, &mut offset);
        self.compaction.cleaning = Some((reader, offset));
        // Copies do not add to the cleaning that is owed.
        let owed = self.compaction.owed;
        self.apply_updates();
        self.compaction.owed = owed;
        copied.map(|()| (offset - start).into())
    }

    /// Copies the live records among the next [`STEP_BYTES`] of a segment, and advances
    /// `offset`.
    fn copy_live(
        &mut self,
        reader: &mut Reader<D::File>,
        number: u32,
        offset: &mut u32,
    ) -> Result<()> {
        let end = reader.end.min((*offset + STEP_BYTES).into()) as u32;
        let (mut fingerprints, mut locations) = (Vec::new(), Vec::new());
        let mut next = *offset;
        while next < end {
            let header = reader.intact_header(next)?;
            let len = header.len() as u32;
            if header.kind == Kind::Set {
                fingerprints.push(self.index.fingerprint(reader.key(next, &header)?));
                locations.push(Location { segment: number, offset: next, len });
            }
            next += len;
        }
        // Looked up together, so that the cache misses overlap: SET is 1.1 times as fast.
        let newest = self.index.get_all(&fingerprints);
        for ((fingerprint, location), newest) in fingerprints.into_iter().zip(locations).zip(newest)
        {
            if newest == Some(location) {
                *offset = location.offset;
                let record = reader.intact_record(location.offset)?;
                let copy = self.log.stage(Kind::Set, record.key, record.value, Space::Reserved)?;
                self.updates.push((fingerprint, Some(copy)));
            }
        }
        *offset = next;
        Ok(())
    }

    /// Cleans at least one segment, if compaction is due.
    pub(super) fn clean_segment(&mut self) -> Result<()> {
        let count = self.log.cleaned_count();
        while self.log.cleaned_count() == count && self.is_compaction_due(true) {
            self.clean_up_to(CALL_BYTES_MAX, true)?;
            if self.log.retry.is_some() {
                break;
            }
        }
        Ok(())
    }
}
