//! Compaction: gives back the space of records that were overwritten or removed.
//!
//! The oldest segment is *cleaned*: its live records are copied to the end of the
//! log, and then its file is removed. Oldest first makes two things simple. A copy
//! is the newest record of its key, so replay order stays right. And tombstones
//! can be dropped, because no older record is left that they must hide.
//!
//! Compaction is *due* while dead bytes are at least the threshold and half of
//! all bytes, and a segment is full or the store is idle. Then each byte that is
//! written, and each that becomes dead, pays for [`CLEAN_FACTOR`] bytes of cleaning.
//! A call does at most [`CALL_BYTES_MAX`] of it; the rest stays owed. Two calls clean
//! a whole segment. Opening a store does, so that a program that opens, writes a
//! little and exits reclaims space too. So does each write while the disk is full.
//!
//! The bound on disk use: cleaning a log of `2 * live` bytes copies `live` bytes,
//! and `live` more are written meanwhile. So the segments never have more than
//! `3 * live` bytes, two thresholds and six segments, plus the largest batch
//! (`disk_use_stays_within_the_bound`). The reserve comes on top: a little
//! more than the longest segment.
//!
//! Not here: how records reach the disk ([`log`](super::log)).
//!
//! Invariants:
//! * A segment is removed only when the copies of its live records, and the
//!   `Cleaned` record, are on disk (`every_power_loss_leaves_what_was_synced`).
//! * A segment is removed only when the index has no location in it. If damage
//!   keeps it from getting there, compaction ends
//!   (`damage_ends_compaction_and_keeps_the_segment`).
//! * Any other error ends a step. It is tried again after a second
//!   (`a_passing_error_does_not_end_compaction`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Inner;
use super::fs::{Fs, Task};
use super::index::{Fingerprint, Location};
use super::log::Space;
use super::reader::Reader;
use super::record::{
    CHECKPOINT_BYTES_MAX, CLEANED_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES,
};
use super::record::{Kind, Position};
use crate::error::{KvsError, Result};
use crate::logger;

/// Bytes that are cleaned for each byte that was written or became dead.
pub(super) const CLEAN_FACTOR: u64 = 2;
/// Bytes that are cleaned at a time: few enough for a short pause, enough to
/// share the cost of a read.
const STEP_BYTES: usize = 4 << 10;
/// Bytes that one call cleans at the most, but for the rest of a record.
const CALL_BYTES_MAX: u64 = 1 << 20;
/// Bytes that one call of `maintain` cleans: about a tenth of a millisecond.
const MAINTAIN_BYTES: u64 = 64 << 10;
/// Time until a step that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes that are read at a time, for a few steps.
const READ_BYTES: usize = 16 * STEP_BYTES;
/// Bytes behind a step that it may look at: the header and key of its last record.
const LAST_RECORD_BYTES: usize = 512;
/// When space is short, compaction is due from this part of a segment on ..
const SHORT_OF_SPACE_PART: u64 = 16;
/// .. and what each segment has beside sets and removes: its header, the last
/// checkpoint, and a `Cleaned` record. Cleaning does not give that back.
const SEGMENT_OVERHEAD_BYTES: u64 =
    (SEGMENT_HEADER_BYTES + CHECKPOINT_BYTES_MAX + CLEANED_BYTES) as u64;

/// Cleaned segments that may wait for their removal before the caller waits too.
const CLEANED_MAX: usize = 8;

/// How far compaction is.
pub(super) struct Compaction<D: Fs> {
    /// Reads the segment that is being cleaned, and the offset of its next record.
    cleaning: Option<(Reader<D::File>, u32)>,
    /// The oldest segments of the log, if they are cleaned and wait for their removal:
    /// where their `Cleaned` record ends, and their length.
    cleaned: VecDeque<(Position, u64)>,
    /// The removal in the background, and how many of those it removes.
    removal: Option<(D::Task, usize)>,
    /// Bytes of cleaning that are owed.
    owed: u64,
    /// When a step that failed is tried again.
    retry: Option<Instant>,
    /// Whether damage has ended compaction.
    ended: bool,
}

impl<D: Fs> Compaction<D> {
    /// Compaction that has done nothing.
    pub(super) fn new() -> Compaction<D> {
        Compaction {
            cleaning: None,
            cleaned: VecDeque::new(),
            removal: None,
            owed: 0,
            retry: None,
            ended: false,
        }
    }

    /// Owes cleaning for bytes that were written or became dead.
    pub(super) fn owe(&mut self, bytes: u64) {
        self.owed = self.owed.saturating_add(bytes * CLEAN_FACTOR);
    }

    /// Notes that so many bytes of the oldest segment are cleaned.
    fn pay(&mut self, bytes: u32) {
        self.owed = self.owed.saturating_sub(bytes.into());
    }

    /// Returns true if so much is owed that a large batch has to pay before it ends.
    pub(super) fn is_far_behind(&self) -> bool {
        self.owed >= CALL_BYTES_MAX
    }

    /// Returns true until a step that failed is tried again.
    fn is_waiting(&self) -> bool {
        self.retry.is_some_and(|at| Instant::now() < at)
    }

    /// Ends compaction after damage, and has it tried again later after other errors.
    fn note_error(&mut self, error: &KvsError) {
        let cause = error.chain().join(": ");
        self.ended = matches!(error, KvsError::Corrupt { .. });
        self.retry = Some(Instant::now() + RETRY);
        match self.ended {
            true => logger::error!("compaction ends until the store is opened again: {cause}"),
            false => logger::warn!("compaction is tried again in a second: {cause}"),
        }
    }
}

impl<D: Fs> Inner<D> {
    /// Bytes in the log, without segments that wait for their removal.
    fn kept_bytes(&self) -> u64 {
        let cleaned: u64 = self.compaction.cleaned.iter().map(|(_, len)| len).sum();
        self.log.total_bytes() - cleaned
    }

    /// Bytes in the log that are not live.
    pub(super) fn dead_bytes(&self) -> u64 {
        self.kept_bytes().saturating_sub(self.log.live_bytes)
    }

    /// Returns true if there are so many dead bytes that segments are cleaned. The
    /// active one ends before it is full only if the store is idle, as more segments
    /// need more fsyncs. All updates are applied.
    pub(super) fn is_compaction_due(&self, is_idle: bool) -> bool {
        if self.compaction.ended {
            return false;
        }
        let dead = self.dead_bytes();
        if self.log.is_space_short() {
            return self.is_cleaning_possible(dead);
        }
        (is_idle || self.log.older.len() > self.compaction.cleaned.len())
            && dead >= self.options.compact_threshold_bytes.max(self.kept_bytes() / 2)
    }

    /// Returns true if cleaning gives space back while space is short: if enough is
    /// dead, and the copies of the oldest segment fit into what the reserve has left.
    fn is_cleaning_possible(&self, dead: u64) -> bool {
        let overhead = SEGMENT_OVERHEAD_BYTES * self.log.segment_count() as u64;
        let oldest = self.log.older.get(self.compaction.cleaned.len()).unwrap_or(&self.log.active);
        dead >= self.options.segment_bytes / SHORT_OF_SPACE_PART + overhead
            && (oldest.live == 0
                || oldest.live + 2 * SEGMENT_OVERHEAD_BYTES
                    <= self.log.reserve.left(self.log.total_bytes()))
    }

    /// Cleans what is owed, at most one call's share. Everything staged is written.
    ///
    /// # Errors
    ///
    /// Only fatal ones. Others end the step and are tried again.
    pub(super) fn clean_owed(&mut self) -> Result<()> {
        if self.log.is_space_short() {
            self.apply_updates();
            // The whole segment at once: no tombstone takes the space that its copies need.
            return self.clean_segment();
        }
        if self.compaction.owed < STEP_BYTES as u64 {
            return Ok(());
        }
        self.apply_updates();
        if !self.is_compaction_due(false) {
            self.compaction.owed = 0;
            return Ok(());
        }
        self.clean_up_to(self.compaction.owed.min(CALL_BYTES_MAX), false)
    }

    /// Cleans until `budget` bytes are read or copied, or compaction is not due. All
    /// updates are applied.
    fn clean_up_to(&mut self, budget: u64, is_idle: bool) -> Result<()> {
        if self.compaction.is_waiting() {
            return Ok(());
        }
        self.compaction.retry = None;
        let mut work = 0;
        while work < budget && self.is_compaction_due(is_idle) {
            match self.clean_step() {
                Ok(count) => work += count,
                Err(error) => {
                    self.log.check()?;
                    self.compaction.note_error(&error);
                    break;
                }
            }
        }
        self.log.write()
    }

    /// Cleans the next records of the oldest segment. Returns the bytes that were
    /// read or copied, at least 1.
    fn clean_step(&mut self) -> Result<u64> {
        let Some(segment) = self.log.older.get(self.compaction.cleaned.len()) else {
            // The oldest segment is the active one. It cannot be cleaned.
            return self.log.rotate(0, Space::Reserved).map(|()| 1);
        };
        let (number, len, live) = (segment.number, segment.len, segment.live);
        if live == 0 {
            return self.finish_segment(number, len).map(|()| 1);
        }
        let (mut reader, mut offset) = match self.compaction.cleaning.take() {
            Some(cleaning) => cleaning,
            None => (self.log.reader(number, READ_BYTES)?, SEGMENT_HEADER_BYTES as u32),
        };
        if offset == len {
            let reason = format!("{live} live bytes of the segment were not found");
            return Err(self.log.corrupt(Location { segment: number, offset, len: 0 }, reason));
        }
        let cleaned = self.clean_records(&mut reader, number, &mut offset);
        self.compaction.cleaning = Some((reader, offset));
        cleaned
    }

    /// Copies the live ones of the next records of a segment, and advances `offset`.
    fn clean_records(
        &mut self,
        reader: &mut Reader<D::File>,
        number: u32,
        offset: &mut u32,
    ) -> Result<u64> {
        let (live, next) = self.live_records(reader, number, *offset)?;
        let mut work = u64::from(next - *offset).min(STEP_BYTES as u64);
        for (fingerprint, location) in live {
            self.compaction.pay(location.offset - *offset);
            *offset = location.offset;
            let record = reader.intact_record(location.offset)?;
            let copy = self.log.stage(Kind::Set, record.key, record.value, Space::Reserved)?;
            self.updates.push((fingerprint, Some(copy)));
            work += u64::from(location.len);
        }
        self.compaction.pay(next - *offset);
        *offset = next;
        // Copies owe nothing: their bytes are paid for already.
        self.update_index();
        Ok(work.max(1))
    }

    /// The live records among the next ones of a segment, at least one record further
    /// on, and the offset behind the last one. All updates are applied.
    fn live_records(
        &self,
        reader: &mut Reader<D::File>,
        number: u32,
        offset: u32,
    ) -> Result<(Vec<(Fingerprint, Location)>, u32)> {
        // One read for the whole step, unless its last record is long.
        reader.bytes(offset.into(), STEP_BYTES + LAST_RECORD_BYTES)?;
        let (mut fingerprints, mut locations) = (Vec::new(), Vec::new());
        let mut next = offset;
        while u64::from(next) < reader.end && (next - offset) < STEP_BYTES as u32 {
            let header = reader.intact_header(next)?;
            let len = header.len() as u32;
            if header.kind == Kind::Set {
                let bytes = reader.bytes(next.into(), RECORD_HEADER_BYTES + header.key_len)?;
                let key = bytes.get(RECORD_HEADER_BYTES..).unwrap_or_default();
                fingerprints.push(self.index.fingerprint(key));
                locations.push(Location { segment: number, offset: next, len });
            }
            next += len;
        }
        let newest = self.index.get_all(&fingerprints);
        let records = fingerprints.into_iter().zip(locations).zip(newest);
        let live = records.filter(|((_, location), newest)| *newest == Some(*location));
        Ok((live.map(|(record, _)| record).collect(), next))
    }

    /// Notes that a segment holds nothing live.
    fn finish_segment(&mut self, number: u32, len: u32) -> Result<()> {
        self.log.stage(Kind::Cleaned, &number.to_le_bytes(), b"", Space::Reserved)?;
        let cleaned = self.compaction.cleaning.take().map_or(0, |(_, offset)| offset);
        self.compaction.pay(len - cleaned);
        self.compaction.cleaned.push_back((self.log.staged_end(), len.into()));
        Ok(())
    }

    /// Removes segments whose copies are on disk, and has the others fsynced. Waits
    /// for that while space is short.
    pub(super) fn remove_cleaned(&mut self) -> Result<()> {
        let is_short = self.log.is_space_short() && !self.compaction.cleaned.is_empty();
        if is_short {
            self.log.sync()?;
        }
        self.end_removal(is_short || self.compaction.cleaned.len() > CLEANED_MAX)?;
        if self.compaction.removal.is_some() || self.compaction.is_waiting() && !is_short {
            return Ok(());
        }
        let (synced, cleaned) = (self.log.synced, &self.compaction.cleaned);
        let count = cleaned.iter().take_while(|(position, _)| *position <= synced).count();
        if count < cleaned.len() {
            self.log.start_sync(true);
        }
        if count > 0 {
            self.compaction.removal = Some((self.log.start_removal(count), count));
        }
        self.end_removal(is_short)
    }

    /// Takes note of the removal, if it has ended. Waits for it if `wait`.
    pub(super) fn end_removal(&mut self, wait: bool) -> Result<()> {
        let Some((task, count)) = &mut self.compaction.removal else { return Ok(()) };
        let (Some(result), count) = (task.result(wait), *count) else { return Ok(()) };
        self.compaction.removal = None;
        let removed = result
            .map_err(KvsError::cannot("remove cleaned segments in", self.log.directory.path()));
        if let Err(error) = self.log.fail_if_moved(removed) {
            self.log.check()?;
            self.compaction.note_error(&error);
            return Ok(());
        }
        self.log.forget_oldest(count);
        self.compaction.cleaned.drain(..count);
        Ok(())
    }

    /// Cleans at least one segment, if compaction is due.
    pub(super) fn clean_segment(&mut self) -> Result<()> {
        let count = self.compaction.cleaned.len();
        while self.compaction.cleaned.len() == count && self.is_compaction_due(true) {
            self.clean_up_to(CALL_BYTES_MAX, true)?;
            if self.compaction.retry.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Does one step of `maintain`. Returns true if there is more to do.
    pub(super) fn maintain_compaction(&mut self) -> Result<bool> {
        if self.compaction.is_waiting() {
            return Ok(false);
        }
        self.apply_updates();
        if self.is_compaction_due(!self.is_active) {
            self.clean_up_to(MAINTAIN_BYTES, !self.is_active)?;
            self.remove_cleaned()?;
            return Ok(true);
        }
        Ok(!self.compaction.cleaned.is_empty())
    }
}
