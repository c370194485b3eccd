//! The write path: a batch of records in memory, and its one way to the disk.
//!
//! Not here: which records are written, byte layouts, what compaction copies, and
//! the step from one segment to the next ([`successor`](super::successor)).
//!
//! Invariants:
//! * A batch goes to one segment: the next one is begun only while the batch is
//!   empty. So where a record will be is known when it is staged
//!   (`an_engine_does_what_a_map_does`).
//! * A batch is written whole or not at all. When writing or syncing it fails,
//!   the file is cut back and the index taken back, so that neither a read nor
//!   a restart shows anything of it. Where even the cut fails, as it may after a
//!   failed sync, that is warned of: a restart may show it then
//!   (`whatever_fails_exactly_that_is_told_and_undone`).
//! * After a failed sync no write is accepted: the system may have dropped the
//!   pages, and another sync would succeed without them
//!   (`after_a_failed_sync_reads_go_on_and_writes_are_refused_until_the_store_is_opened_anew`).

use super::Inner;
use super::disk::Disk;
use super::header::Header;
use super::index::{Changes, Location};
use super::record::{self, Kind};
use crate::error::{KvsError, Result};

/// Bytes a batch may have before another record is added: else it is committed
/// first. That is more than the server executes in a turn, but for lines of many
/// megabytes, so that a failure undoes a turn as a whole.
pub(super) const BATCH_BYTES_MAX: usize = 32 << 20;
/// Bytes of room that an empty batch keeps for the next one.
const BATCH_ROOM_BYTES_MAX: usize = 4 << 20;

/// Records that are not written yet, in the form in which they will be.
#[derive(Default)]
pub(super) struct Batch {
    /// The records, to be appended to the active segment.
    pub(super) bytes: Vec<u8>,
    /// What the last of them do to the index, which is still to be told.
    unsettled: Changes,
    /// Where the key of each set or remove before those was, in order.
    replaced: Vec<Option<Location>>,
}

impl Batch {
    /// Empties it, and gives back the room that a common batch does not need.
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(BATCH_ROOM_BYTES_MAX);
        self.replaced.clear();
        self.replaced.shrink_to(BATCH_ROOM_BYTES_MAX / size_of::<Option<Location>>());
    }
}

impl<D: Disk> Inner<D> {
    /// Writes a user's record, and does the cleaning that it pays for.
    pub(super) fn write(&mut self, kind: Kind, key: &[u8], value: &[u8]) -> Result<()> {
        check_len("a key", key.len(), record::KEY_BYTES_MAX)?;
        check_len("a value", value.len(), record::VALUE_BYTES_MAX)?;
        // Overwriting is refused too: to look first would cost every write.
        if kind == Kind::Set && self.index.is_full() {
            let full = std::io::ErrorKind::OutOfMemory.into();
            return Err(KvsError::io("the index has as many keys as it can")(full));
        }
        self.prepare()?;
        let written = self.stage(kind, key, value);
        self.cleaner.pay(written.into());
        if self.options.buffered { Ok(()) } else { self.commit(false) }
    }

    /// Fails when an earlier sync did.
    pub(super) fn check_writable(&self) -> Result<()> {
        match &self.refused {
            Some(cause) => Err(KvsError::WritesRefused { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Makes room for a record: in the batch, and in a segment.
    pub(super) fn prepare(&mut self) -> Result<()> {
        self.check_writable()?;
        if self.batch.bytes.len() >= BATCH_BYTES_MAX {
            self.commit(false)?;
        }
        if self.batch.bytes.is_empty() && self.is_successor_due() && self.is_end_near_synced() {
            self.begin_segment()?;
        }
        Ok(())
    }

    /// Sets a key, or removes it, in the batch; in the index when it is settled.
    /// How many bytes that takes.
    pub(super) fn stage(&mut self, kind: Kind, key: &[u8], value: &[u8]) -> u32 {
        let location = self.stage_record(kind, key, value);
        self.batch.unsettled.push(key, (kind == Kind::Set).then_some(location));
        location.len
    }

    /// Has the index know of all that is in the batch. It is told of many
    /// records at once, as that is faster, and before anybody asks it.
    pub(super) fn settle(&mut self) {
        let Batch { unsettled, replaced, .. } = &mut self.batch;
        let settled = replaced.len();
        self.index.play(unsettled, |location| replaced.push(location));
        unsettled.clear();
        for location in replaced[settled..].iter().flatten() {
            if let Some(dead) = self.segments.dead_mut(location.segment) {
                dead.insert(location.offset.into());
            }
        }
    }

    /// Adds a record to the batch; where it will be.
    pub(super) fn stage_record(&mut self, kind: Kind, key: &[u8], value: &[u8]) -> Location {
        let active = self.segments.active();
        let start = self.batch.bytes.len();
        let synced = start == 0 && active.synced == active.len;
        record::encode(&mut self.batch.bytes, active.header.salt, kind, synced, key, value);
        self.marked = kind == Kind::Mark;
        Location {
            segment: active.header.number,
            offset: (active.len + start as u64) as u32,
            len: (self.batch.bytes.len() - start) as u32,
        }
    }

    /// Hands the batch to the system and, where `durable`, to the disk.
    ///
    /// # Errors
    ///
    /// After one, nothing of the batch is left in the index, nor in the file if
    /// that could be cut.
    pub(super) fn commit(&mut self, durable: bool) -> Result<()> {
        self.check_writable()?;
        self.settle();
        self.clean_paid();
        // The copies are in the batch too; nothing has been appended yet.
        let start = self.segments.active().len;
        let written = self.write_batch(durable);
        match &written {
            Ok(()) => {
                self.batch.clear();
                self.remove_retired();
            }
            Err(error) => {
                self.latch(error);
                self.undo_batch(start);
            }
        }
        written
    }

    /// Appends the batch to the active segment, and syncs it where `durable`.
    fn write_batch(&mut self, durable: bool) -> Result<()> {
        self.note_sync()?;
        let active = self.segments.active_mut();
        if !self.batch.bytes.is_empty() {
            active.append(&self.batch.bytes)?;
        }
        if durable && active.synced < active.len {
            active.write_ahead(self.options.segment_bytes)?;
            self.sync_active()?;
        }
        self.begin_sync()
    }

    /// Accepts no write any more, for this reason.
    pub(super) fn refuse_writes(&mut self, error: &KvsError) {
        crate::logger::error!("no more writes are accepted: {}", error.chain().join(": "));
        self.refused.get_or_insert_with(|| error.chain().join(": "));
    }

    /// Accepts no write any more if nobody knows how the segment ends.
    pub(super) fn latch(&mut self, error: &KvsError) {
        if let KvsError::WritesRefused { cause } = error {
            self.refused.get_or_insert_with(|| cause.clone());
        }
    }

    /// Takes the batch back, which was to be written from `start` on.
    fn undo_batch(&mut self, start: u64) {
        let active = self.segments.active_mut();
        if active.len != start && active.cut_back(start).is_err() {
            // No write is accepted any more by then.
            crate::logger::warn!("{} keeps records that failed to sync", active.path.display());
        }
        let Header { number: segment, salt, .. } = active.header;
        // All are settled, so there is a place in `replaced` for each set and remove.
        let mut keys = Vec::with_capacity(self.batch.replaced.len());
        let mut rest = &self.batch.bytes[..];
        while let Ok(record) = record::decode(rest, salt) {
            if matches!(record.kind, Kind::Set | Kind::Remove) {
                keys.push(record.key);
            }
            rest = &rest[record.len()..];
        }
        for (key, replaced) in keys.into_iter().zip(&self.batch.replaced).rev() {
            self.index.restore(key, *replaced);
        }
        for location in self.batch.replaced.iter().flatten() {
            if let Some(dead) = self.segments.dead_mut(location.segment) {
                dead.remove(location.offset.into());
            }
        }
        self.batch.clear();
        self.cleaner.undo_batch(segment, start);
    }

    /// Appends the mark that all before it is on the disk, when it is and
    /// nothing says so yet: damage to any of it is then told from a torn tail.
    pub(super) fn mark(&mut self) -> Result<()> {
        let active = self.segments.active();
        if self.marked || active.synced != active.len || !self.batch.bytes.is_empty() {
            return Ok(());
        }
        self.prepare()?;
        self.stage_record(Kind::Mark, b"", b"");
        self.commit(false)
    }
}

/// Fails when a length is over its limit.
fn check_len(what: &'static str, len: usize, max: usize) -> Result<()> {
    if len <= max {
        return Ok(());
    }
    Err(KvsError::TooLarge { what, len: len as u64, max: max as u64 })
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
