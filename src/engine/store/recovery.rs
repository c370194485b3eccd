//! Recovery: from the segments in a directory to an open store.
//!
//! Recovery replays the log from the first record to its end: each `Set` and
//! `Remove` goes into the index. The log ends at the end of the newest segment,
//! or where only preallocated zeros follow. Each other segment has to reach
//! exactly the length that the header of the next one names.
//!
//! Anything else is an error in the log. A power failure may have left it: what was not
//! fsynced may be missing in any combination. That is a *torn tail*. Or the disk, or a
//! person, has changed what was on disk. That is *corruption*. A record after the error
//! decides. If it says that this part of the log had been on disk, by the flag *synced*
//! or as a `Checkpoint`, the error is corruption: the store does not open, and nothing
//! is changed. Four more cases are corruption: the header of the oldest segment is
//! damaged, a segment before it is missing, a segment belongs to another store, or more
//! segments are missing than can wait for an fsync. Otherwise it is a torn tail: it is
//! truncated, and later segments are removed. Export uses the same rule.
//!
//! Then everything after the last position known to be on disk is written again
//! and fsynced. After a failed fsync the page cache may show data that the disk
//! does not have, and another fsync alone would not write it.
//!
//! Not here: how the log is read ([`reader`](super::reader)).
//!
//! Invariants:
//! * Corruption is an error that names file and offset. It is never skipped
//!   (`every_flipped_bit_is_refused_or_unsynced`).
//! * Recovery may be interrupted at any call, and starts again
//!   (`every_power_loss_leaves_what_was_synced`).
//! * Nothing is changed before all segments are understood
//!   (`every_flipped_bit_is_refused_or_unsynced`).

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::directory::{Directory, segment_name, segments_in};
use super::fs::{Fs, FsFile, write_full};
use super::index::{Index, Location, Update};
use super::log::{Log, UNSYNCED_SEGMENTS_MAX, random_u64};
use super::reader::{Finding, Found, find_segments, walk};
use super::record::{Kind, Position, Record, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::segment::{Segment, count_live};
use crate::error::{KvsError, Result};
use crate::logger;

/// Bytes that are written again at a time.
const WRITE_AGAIN_BYTES: usize = 256 << 10;
/// Updates that are applied to the index together.
const UPDATES: usize = 1024;

/// What replay learns from the log, up to the first error.
pub(super) struct Replay<F> {
    /// The segments, with their files closed.
    segments: VecDeque<Segment<F>>,
    /// Where the newest record of each key is.
    pub(super) index: Index,
    /// Updates of the index that are not applied yet.
    updates: Vec<Update>,
    /// Everything before this position is known to be on disk.
    synced: Position,
    /// The newest segment that a `Cleaned` record names.
    cleaned: u32,
    /// Whether the last record is a `Checkpoint` of all that is before it.
    is_checkpointed: bool,
    /// The offset of the last record, if it is the `Checkpoint` that ends a full segment.
    end_of_segment: Option<u32>,
    /// The first error in the log: where it is, and what is wrong.
    error: Option<(Position, String)>,
    /// What shows that the error is no torn tail.
    evidence: Option<String>,
}

/// Opens the log in a directory. Creates the first segment if there is none. Everything but
/// a new `Checkpoint` is on disk afterwards.
pub(super) fn recover<D: Fs>(
    directory: Directory<D>,
    segment_bytes: u64,
) -> Result<(Log<D>, Index)> {
    let open = |path: &Path| directory.open_file(path);
    let found = find_segments(segments_in(directory.fs(), directory.path())?, &open)?;
    let mut replay = Replay::new();
    walk(&found, &open, |at, finding| {
        replay.see(at, &finding);
        Ok(())
    })?;
    replay.apply();
    if let Some(corruption) = replay.corruption(directory.path(), &found) {
        return Err(corruption);
    }
    let store = match found.first() {
        Some(Found { header: Ok(header), .. }) => {
            finish(&directory, &found, &mut replay)?;
            header.store
        }
        first => {
            first.map_or(Ok(()), |unfinished| directory.remove(&unfinished.path))?;
            let store = random_u64();
            replay.segments.push_back(create_first(&directory, store)?);
            replay.is_checkpointed = true;
            store
        }
    };
    let mut log = Log::new(directory, segment_bytes, store, replay.segments)?;
    match replay.is_checkpointed {
        true => log.checkpointed = log.end(),
        false => log.write_checkpoint()?,
    }
    Ok((log, replay.index))
}

/// Returns true if a segment may be the first one of a store whose creation was
/// interrupted. No record can have been acknowledged then.
fn is_unfinished(found: &Found) -> bool {
    found.number == 1 && found.file_len <= SEGMENT_HEADER_BYTES as u64
}

/// Creates the first segment of a store, on disk.
fn create_first<D: Fs>(directory: &Directory<D>, store: u64) -> Result<Segment<D::File>> {
    directory.sync_ancestors()?;
    let header = SegmentHeader { number: 1, store, previous_len: 0, salt: random_u64() as u32 };
    let path = directory.segment_path(1);
    let file = directory.create(&path)?;
    let mut first = Segment::new(path, Some(Arc::new(file)), &header);
    first.write_header(&header)?;
    first.sync()?;
    directory.sync()?;
    logger::info!("created a store in {}", directory.path().display());
    Ok(first)
}

impl<F: FsFile> Replay<F> {
    pub(super) fn new() -> Replay<F> {
        Replay {
            segments: VecDeque::new(),
            index: Index::new(),
            updates: Vec::new(),
            synced: Position::default(),
            cleaned: 0,
            is_checkpointed: false,
            end_of_segment: None,
            error: None,
            evidence: None,
        }
    }

    /// Takes note of the next finding of a walk.
    pub(super) fn see(&mut self, at: Position, finding: &Finding<'_>) {
        match finding {
            Finding::Missing(next) => self.missing(at, *next),
            _ if self.error.is_some() => self.look_for_evidence(at, finding),
            Finding::Segment(Found { path, file_len, .. }, Some(header)) => {
                self.end_of_segment = None;
                let mut segment = Segment::new(path.clone(), None, header);
                segment.allocated = *file_len;
                self.segments.push_back(segment);
            }
            Finding::Record(record) => self.record(record, at),
            Finding::Damaged { reason, .. } => self.error = Some((at, reason.clone())),
            Finding::Segment(..) | Finding::Unused => {}
        }
    }

    /// Takes note that the segments from `at` up to `next` are missing.
    fn missing(&mut self, at: Position, next: u32) {
        let missing = (at, "the segment is missing".to_owned());
        let is_oldest = self.segments.front().is_some_and(|oldest| oldest.number == next);
        if !is_oldest {
            self.error.get_or_insert(missing);
            if next - at.segment > UNSYNCED_SEGMENTS_MAX + 1 {
                let evidence = || format!("segment {next} is too far after it to be a torn tail");
                self.evidence.get_or_insert_with(evidence);
            }
        } else if self.evidence.is_none() {
            // Otherwise the damaged bytes may have held the `Cleaned` record.
            self.error = Some(missing);
            self.evidence = Some("no record says that it was cleaned".to_owned());
        }
    }

    /// Checks whether what follows the first error shows that the error is corruption.
    fn look_for_evidence(&mut self, at: Position, finding: &Finding<'_>) {
        // A segment is removed only after the `Cleaned` record that names it is on disk. So
        // a record that is the first to name the missing segments was on disk.
        let oldest = self.segments.front().map_or(0, |oldest| oldest.number);
        let is_before = |number: u32| number.saturating_add(1) < oldest;
        let removed = |number: u32| is_before(self.cleaned) && !is_before(number);
        let is_evidence = match (finding, &self.error) {
            (Finding::Record(record), Some((error, _))) => {
                record.synced
                    || record.checkpoint().is_some_and(|named| named > *error)
                    || record.cleaned().is_some_and(removed)
            }
            (Finding::Damaged { synced, .. }, _) => *synced,
            _ => false,
        };
        if is_evidence && self.evidence.is_none() {
            let Position { segment, offset } = at;
            let place = format!("segment {segment} says at byte {offset}");
            self.evidence = Some(format!("{place} that this part of the log had been on disk"));
        }
    }

    /// Replays one record.
    fn record(&mut self, record: &Record<'_>, at: Position) {
        if record.synced {
            self.synced = at;
        }
        let Position { segment, offset } = at;
        let len = record.len();
        if let Some(segment) = self.segments.back_mut() {
            segment.len = offset + len;
        }
        self.is_checkpointed = record.checkpoint() == Some(at);
        self.end_of_segment = record.next_salt().map(|_| offset);
        match record.kind {
            Kind::Set => {
                let location = Location { segment, offset, len };
                self.updates.push((self.index.fingerprint(record.key), Some(location)));
            }
            Kind::Remove => self.updates.push((self.index.fingerprint(record.key), None)),
            Kind::Checkpoint => {
                self.synced = self.synced.max(record.checkpoint().unwrap_or_default());
            }
            Kind::Cleaned => {
                self.cleaned = self.cleaned.max(record.cleaned().unwrap_or_default());
            }
        }
        if self.updates.len() >= UPDATES {
            self.apply();
        }
    }

    /// Applies the updates to the index, and counts live bytes.
    pub(super) fn apply(&mut self) {
        let Replay { index, updates, segments, .. } = self;
        index.apply(updates, |new, old| count_live(segments, new, old));
        updates.clear();
    }

    /// The error that keeps the store closed, if the log is corrupt.
    pub(super) fn corruption(&self, directory: &Path, found: &[Found]) -> Option<KvsError> {
        let oldest = found.first()?;
        let is_unfinished = found.len() == 1 && is_unfinished(oldest);
        for it in found.iter().filter(|it| it.is_foreign || it.number == oldest.number) {
            if let (Err(reason), false) = (&it.header, is_unfinished) {
                return Some(KvsError::corrupt(&it.path, 0, reason.clone()));
            }
        }
        let ((error, reason), evidence) = (self.error.as_ref()?, self.evidence.as_ref()?);
        let path = directory.join(segment_name(error.segment));
        let hint = "--inspect shows what is intact, and --export saves it";
        let reason = format!("{reason}, and {evidence}; {hint}");
        Some(KvsError::corrupt(&path, error.offset.into(), reason))
    }
}

/// Truncates a torn tail, removes what follows, and puts everything on disk.
fn finish<D: Fs>(
    directory: &Directory<D>,
    found: &[Found],
    replay: &mut Replay<D::File>,
) -> Result<()> {
    let Replay { segments, synced, cleaned, is_checkpointed, .. } = replay;
    if let Some((Position { segment, offset }, reason)) = &replay.error {
        let path = directory.segment_path(*segment);
        let path = path.display();
        logger::warn!("truncated the torn tail of the log at byte {offset} of {path}: {reason}");
    }
    // Newest first, so that an interruption leaves no gap.
    for segment in found[segments.len()..].iter().rev() {
        directory.remove(&segment.path)?;
    }
    // No segment follows, so the `Checkpoint` that names the next one is dropped. First
    // the removal of later segments is fsynced: one that came back after a power failure
    // would not match the truncated segment.
    if let (Some(offset), Some(newest)) = (replay.end_of_segment, segments.back_mut()) {
        directory.sync()?;
        (newest.len, *is_checkpointed) = (offset, false);
    }
    for segment in &mut *segments {
        put_on_disk(directory, segment, *synced)?;
    }
    directory.sync()?;
    // Segments that were cleaned before a crash, but not removed.
    while segments.len() > 1 && segments[0].number <= *cleaned && segments[0].live == 0 {
        directory.remove(&segments[0].path)?;
        directory.sync()?;
        segments.pop_front();
    }
    if let Some(active) = segments.back_mut() {
        active.file = Some(Arc::new(directory.open_file(&active.path)?));
    }
    Ok(())
}

/// Truncates a file after its last record. Writes again what is not known to be on disk,
/// and fsyncs it.
fn put_on_disk<D: Fs>(
    directory: &Directory<D>,
    segment: &mut Segment<D::File>,
    synced: Position,
) -> Result<()> {
    let mut offset = match segment.number.cmp(&synced.segment) {
        Ordering::Less if segment.allocated <= segment.len.into() => return Ok(()),
        Ordering::Less => segment.len.into(),
        Ordering::Equal => synced.offset.into(),
        Ordering::Greater => 0,
    };
    segment.file = Some(Arc::new(directory.open_file(&segment.path)?));
    segment.trim(segment.len)?;
    let mut buffer = vec![0; WRITE_AGAIN_BYTES];
    loop {
        let count = segment.read(&mut buffer, offset)?;
        if count == 0 {
            break;
        }
        let (_, written) = write_full(&**segment.file()?, &buffer[..count], offset);
        written.map_err(KvsError::cannot_at("write again", &segment.path, offset))?;
        offset += count as u64;
    }
    segment.sync()?;
    segment.file = None;
    Ok(())
}
