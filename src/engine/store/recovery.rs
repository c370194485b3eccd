//! Recovery: from the segments in a directory to an open store.
//!
//! Recovery replays the log from the first record to its end: each `Set` and
//! `Remove` goes into the index. The log ends at the end of the newest segment,
//! or where only preallocated zeros follow. Each other segment has to reach
//! exactly the length that the header of the next one names.
//!
//! Anything else is an error in the log. A power failure may have left it: what
//! was not fsynced may be missing in any combination. That is a *torn tail*. Or
//! the disk, or a person, has changed what was on disk. That is *corruption*. A
//! record behind the error decides. If it says that this part of the log had been
//! on disk, by the flag *synced* or as a `Checkpoint`, it is corruption: the
//! store does not open, and nothing is changed. Otherwise it is a torn tail: it
//! is truncated, and later segments are removed.
//!
//! Then everything after the last position known to be on disk is written again
//! and fsynced. After a failed fsync the page cache may show data that the disk
//! does not have, and another fsync alone would not write it.
//!
//! Not here: single records ([`reader`](super::reader)).
//!
//! Invariants:
//! * Corruption is an error that names file and offset. It is never skipped
//!   (`every_flipped_bit_is_refused_or_unsynced`).
//! * Recovery may be interrupted at any call, and starts again
//!   (`every_power_loss_leaves_what_was_synced`).
//! * Nothing is changed before all segments are understood
//!   (`a_refused_store_is_unchanged`).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::Directory;
use super::fs::{Fs, FsFile, read_full, write_full};
use super::index::{Index, Location, Update};
use super::log::{Parts, random_u64};
use super::reader::{Reader, Source};
use super::record::{HeaderError, Kind, Position, Record, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::segment::Segment;
use crate::error::{KvsError, Result};
use crate::logger;

/// Bytes that replay reads at a time.
pub(super) const READ_BYTES: usize = 256 << 10;
/// Updates that are applied to the index together.
const UPDATES: usize = 1024;

/// What recovery makes of a directory.
pub(super) struct Recovered<D: Fs> {
    /// The segments, all on disk.
    pub(super) parts: Parts<D>,
    /// The index.
    pub(super) index: Index,
    /// Bytes of the records that it points to.
    pub(super) live_bytes: u64,
}

/// A segment as it was found, before its records are read. Its file is closed, as
/// there may be more segments than descriptors.
pub(super) struct Found {
    /// Its path.
    pub(super) path: PathBuf,
    /// The number in its name.
    pub(super) number: u32,
    /// Length of the file in bytes.
    pub(super) file_len: u64,
    /// Its header, or why it has none.
    pub(super) header: std::result::Result<SegmentHeader, String>,
}

impl Found {
    /// The segment, to be read from `file` with this salt.
    pub(super) fn source<'a, F>(&'a self, file: &'a F, salt: u32) -> Source<'a, F> {
        Source { file, path: &self.path, number: self.number, salt, end: self.file_len }
    }
}

/// An error in the log: where, and what.
#[derive(Clone, Debug)]
pub(super) struct LogError {
    /// The first byte that is not right.
    pub(super) position: Position,
    /// What is wrong.
    pub(super) reason: String,
}

/// What replay has learned.
#[derive(Default)]
struct Replay {
    /// Updates of the index that are not applied yet.
    updates: Vec<Update>,
    /// Live bytes of each segment, by its index in the list of segments.
    live: Vec<u64>,
    /// Where the records of each segment end.
    lens: Vec<u32>,
    /// Everything before this position is known to be on disk.
    synced: Position,
    /// The newest segment that a `Cleaned` record names.
    cleaned: u32,
    /// Whether the last record is a `Checkpoint`.
    ends_with_checkpoint: bool,
    /// The salt that the last record names for the next segment.
    next_salt: Option<u32>,
}

/// Opens the segments of a directory. Creates the first one if there is none.
pub(super) fn recover<D: Fs>(directory: Directory<D>) -> Result<Recovered<D>> {
    let numbers = directory.segment_numbers()?.into_iter();
    let numbered = numbers.map(|number| (number, directory.segment_path(number))).collect();
    let open = |path: &Path| directory.open_file(path);
    let found = find_segments(numbered, &open)?;
    let Some(oldest) = found.first() else { return create_store(directory) };
    let store = match &oldest.header {
        Ok(header) => header.store,
        Err(_) if found.len() == 1 && is_unfinished(oldest) => {
            directory.remove(&oldest.path)?;
            return create_store(directory);
        }
        Err(reason) => return Err(KvsError::corrupt(&oldest.path, 0, reason.clone())),
    };
    check_owner(&found, store)?;
    let mut index = Index::new();
    let mut replay = Replay::default();
    let error = replay.all(&found, &open, &mut index)?;
    if let Some(error) = &error {
        let evidence = find_evidence(&found, &open, error.position, replay.next_salt)?;
        evidence.map_or(Ok(()), |evidence| Err(corrupt(&directory, error, evidence)))?;
    }
    replay.check_oldest(oldest.number, &directory)?;
    finish(directory, found, store, index, replay, error)
}

/// Reads the header and the length of each segment.
///
/// # Errors
///
/// [`KvsError::OtherVersion`] if another version of kvs wrote one.
pub(super) fn find_segments<F: FsFile>(
    numbered: Vec<(u32, PathBuf)>,
    open: &impl Fn(&Path) -> Result<F>,
) -> Result<Vec<Found>> {
    let mut found = Vec::with_capacity(numbered.len());
    for (number, path) in numbered {
        let context = || format!("cannot read the header of {}", path.display());
        let file = open(&path)?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let filled = read_full(&file, &mut bytes, 0).map_err(KvsError::io(context()))?;
        let file_len = file.len().map_err(KvsError::io(context()))?;
        let header = match SegmentHeader::decode(&bytes[..filled]) {
            Ok(header) if header.number == number => Ok(header),
            Ok(header) => Err(format!("it is segment {} under another name", header.number)),
            Err(HeaderError::Damaged(reason)) => Err(reason.to_owned()),
            Err(HeaderError::Version(version)) => {
                let version = format!("a version of kvs with format {version}");
                return Err(KvsError::OtherVersion { path, version });
            }
        };
        found.push(Found { path, number, file_len, header });
    }
    Ok(found)
}

/// Fails if a segment belongs to another store.
pub(super) fn check_owner(found: &[Found], store: u64) -> Result<()> {
    let is_foreign = |it: &&Found| it.header.as_ref().is_ok_and(|it| it.store != store);
    match found.iter().find(is_foreign) {
        None => Ok(()),
        Some(it) => {
            let reason = "it belongs to another store than the oldest segment";
            Err(KvsError::corrupt(&it.path, 0, reason))
        }
    }
}

/// Returns true if a segment may be the first one of a store whose creation was
/// interrupted. No record can have been acknowledged then.
fn is_unfinished(found: &Found) -> bool {
    found.number == 1 && found.file_len <= SEGMENT_HEADER_BYTES as u64
}

/// Creates the first segment of a store, on disk.
fn create_store<D: Fs>(directory: Directory<D>) -> Result<Recovered<D>> {
    directory.sync_ancestors()?;
    let header = SegmentHeader {
        number: 1,
        store: random_u64(),
        previous_len: 0,
        salt: random_u64() as u32,
    };
    let path = directory.segment_path(1);
    let file = directory.create(&path)?;
    let mut active = Segment::new(path, file, &header);
    active.write_header(&header)?;
    active.sync()?;
    directory.sync()?;
    logger::info!("created a store in {}", directory.path().display());
    let older = VecDeque::new();
    let store = header.store;
    let parts = Parts { directory, store, older, active, ends_with_checkpoint: false };
    Ok(Recovered { parts, index: Index::new(), live_bytes: 0 })
}

impl Replay {
    /// Replays all segments up to the first error.
    fn all<F: FsFile>(
        &mut self,
        found: &[Found],
        open: &impl Fn(&Path) -> Result<F>,
        index: &mut Index,
    ) -> Result<Option<LogError>> {
        let mut reader = Reader::new(READ_BYTES);
        let mut error = None;
        for (at, segment) in found.iter().enumerate() {
            error = check_header(found, at);
            if error.is_none() {
                let file = open(&segment.path)?;
                error = self.segment(&mut reader, found, at, &file, index)?;
            }
            if error.is_some() {
                break;
            }
        }
        self.apply(index, found);
        Ok(error)
    }

    /// Replays a segment up to its end or the first error.
    fn segment<F: FsFile>(
        &mut self,
        reader: &mut Reader,
        found: &[Found],
        at: usize,
        file: &F,
        index: &mut Index,
    ) -> Result<Option<LogError>> {
        let segment = &found[at];
        let Ok(SegmentHeader { salt, number, .. }) = segment.header else { return Ok(None) };
        let source = segment.source(file, salt);
        let stated_len = stated_len(found, at);
        self.live.push(0);
        self.next_salt = None;
        let mut offset = SEGMENT_HEADER_BYTES as u32;
        let reason = loop {
            if stated_len.is_some_and(|end| offset >= end) || u64::from(offset) >= source.end {
                break None;
            }
            match reader.record(&source, offset.into())? {
                Ok(record) => {
                    self.record(&record, Position { segment: number, offset }, index);
                    offset += record_len(&record);
                }
                Err(damage) => break Some(damage.to_string()),
            }
            if self.updates.len() >= UPDATES {
                self.apply(index, found);
            }
        };
        self.lens.push(offset);
        let error = |reason| LogError { position: Position { segment: number, offset }, reason };
        if let Some(stated) = stated_len
            && stated != offset
        {
            let ends = || format!("the next segment says that this one has {stated} bytes");
            return Ok(Some(error(reason.unwrap_or_else(ends))));
        }
        match reason {
            Some(_) if reader.is_zeros(&source, offset.into())? => Ok(None),
            reason => Ok(reason.map(error)),
        }
    }

    /// Replays one record.
    fn record(&mut self, record: &Record<'_>, at: Position, index: &Index) {
        if record.synced {
            self.synced = at;
        }
        self.ends_with_checkpoint = record.kind == Kind::Checkpoint;
        self.next_salt = record.next_salt();
        let len = record_len(record);
        let location = Location { segment: at.segment, offset: at.offset, len };
        match record.kind {
            Kind::Set => self.updates.push((index.fingerprint(record.key), Some(location))),
            Kind::Remove => self.updates.push((index.fingerprint(record.key), None)),
            Kind::Checkpoint => {
                self.synced = self.synced.max(record.checkpoint().unwrap_or_default());
            }
            Kind::Cleaned => {
                self.cleaned = self.cleaned.max(record.cleaned().unwrap_or_default());
            }
        }
    }

    /// Applies the updates to the index, and counts live bytes.
    fn apply(&mut self, index: &mut Index, found: &[Found]) {
        let (first, live) = (found.first().map_or(0, |it| it.number), &mut self.live);
        index.apply(&self.updates, |new, old| {
            if let Some(new) = new {
                live[(new.segment - first) as usize] += u64::from(new.len);
            }
            if let Some(old) = old {
                live[(old.segment - first) as usize] -= u64::from(old.len);
            }
        });
        self.updates.clear();
    }

    /// Fails if segments are missing before the oldest one.
    fn check_oldest<D: Fs>(&self, oldest: u32, directory: &Directory<D>) -> Result<()> {
        if oldest <= self.cleaned.saturating_add(1) {
            return Ok(());
        }
        let path = directory.segment_path(oldest - 1);
        let reason =
            format!("the segment is missing; --export saves what segments from {oldest} hold");
        Err(KvsError::corrupt(&path, 0, reason))
    }
}

/// What is wrong with a segment before its records are read.
pub(super) fn check_header(found: &[Found], at: usize) -> Option<LogError> {
    let number = found[at].number;
    let missing = found[..at].last().map_or(number, |previous| previous.number + 1);
    if missing != number {
        let position = Position { segment: missing, offset: 0 };
        return Some(LogError { position, reason: "the segment is missing".to_owned() });
    }
    let position = Position { segment: number, offset: 0 };
    found[at].header.as_ref().err().map(|reason| LogError { position, reason: reason.clone() })
}

/// The error for a part of the log that had been on disk.
fn corrupt<D: Fs>(directory: &Directory<D>, error: &LogError, evidence: Position) -> KvsError {
    let LogError { position, reason } = error;
    let Position { segment, offset } = evidence;
    let reason = format!(
        "{reason}, and segment {segment} says at byte {offset} that this part of the log had been \
         on disk; --inspect shows what is intact, and --export saves it"
    );
    let path = directory.segment_path(position.segment);
    KvsError::corrupt(&path, position.offset.into(), reason)
}

/// The length that the header of the next segment names for a segment.
pub(super) fn stated_len(found: &[Found], at: usize) -> Option<u32> {
    let next = found.get(at + 1).filter(|next| next.number == found[at].number + 1)?;
    next.header.as_ref().ok().map(|header| header.previous_len)
}

/// Bytes of a record.
pub(super) fn record_len(record: &Record<'_>) -> u32 {
    (super::record::RECORD_HEADER_BYTES + record.key.len() + record.value.len()) as u32
}

/// Searches the log behind an error for a record that says that this part had been
/// on disk. `next_salt` is for a segment whose header is damaged.
pub(super) fn find_evidence<F: FsFile>(
    found: &[Found],
    open: &impl Fn(&Path) -> Result<F>,
    error: Position,
    next_salt: Option<u32>,
) -> Result<Option<Position>> {
    let mut reader = Reader::new(READ_BYTES);
    for segment in found.iter().filter(|segment| segment.number >= error.segment) {
        let is_at_error = segment.number == error.segment;
        let own_salt = segment.header.as_ref().ok().map(|header| header.salt);
        let Some(salt) = own_salt.or(next_salt.filter(|_| is_at_error)) else { continue };
        let start = if is_at_error { error.offset + 1 } else { SEGMENT_HEADER_BYTES as u32 };
        let file = open(&segment.path)?;
        let source = segment.source(&file, salt);
        let mut offset = u64::from(start);
        while let Some((at, header)) = reader.find_header(&source, offset)? {
            let record = reader.record(&source, at)?.ok();
            let named = record.and_then(|record| record.checkpoint());
            if header.synced || named.is_some_and(|named| named > error) {
                return Ok(Some(Position { segment: segment.number, offset: at as u32 }));
            }
            // A damaged body may hide the start of the next record.
            offset = at + if record.is_some() { header.len() as u64 } else { 1 };
        }
    }
    Ok(None)
}

/// Truncates a torn tail, removes what follows, and puts everything on disk.
fn finish<D: Fs>(
    directory: Directory<D>,
    mut found: Vec<Found>,
    store: u64,
    index: Index,
    replay: Replay,
    error: Option<LogError>,
) -> Result<Recovered<D>> {
    if let Some(LogError { position, reason }) = &error {
        logger::warn!(
            "truncated the torn tail of the log at byte {} of {}: {reason}",
            position.offset,
            directory.segment_path(position.segment).display()
        );
    }
    let kept = replay.lens.len();
    // Newest first, so that an interruption leaves no gap.
    for segment in found.drain(kept..).rev() {
        directory.remove(&segment.path)?;
    }
    let mut older = VecDeque::with_capacity(kept);
    for (at, segment) in found.into_iter().enumerate() {
        older.push_back(put_on_disk(&directory, segment, &replay, at)?);
    }
    directory.sync()?;
    let Some(mut active) = older.pop_back() else {
        return Err(KvsError::corrupt(directory.path(), 0, "no segment is left"));
    };
    active.file = Some(Arc::new(directory.open_file(&active.path)?));
    let ends_with_checkpoint = replay.ends_with_checkpoint && replay.next_salt.is_none();
    let parts = Parts { directory, store, older, active, ends_with_checkpoint };
    Ok(Recovered { parts, index, live_bytes: replay.live.iter().sum() })
}

/// A segment of the open store, its file closed. Truncates what the file has behind
/// the records, and writes again what is not known to be on disk.
fn put_on_disk<D: Fs>(
    directory: &Directory<D>,
    found: Found,
    replay: &Replay,
    at: usize,
) -> Result<Segment<D::File>> {
    let Found { path, number, file_len, header } = found;
    let salt = header.map(|header| header.salt).unwrap_or_default();
    let (len, live) = (replay.lens[at], replay.live[at]);
    let mut segment = Segment { path, number, salt, len, allocated: file_len, live, file: None };
    let is_unsynced = number >= replay.synced.segment;
    if is_unsynced || file_len > len.into() {
        segment.file = Some(Arc::new(directory.open_file(&segment.path)?));
        segment.trim()?;
        let is_first = number == replay.synced.segment;
        let synced = if is_first { replay.synced.offset } else { 0 };
        write_again(&segment, if is_unsynced { synced } else { len })?;
        segment.file = None;
    }
    Ok(segment)
}

/// Writes the bytes of a segment from `offset` on again, and fsyncs it.
fn write_again<F: FsFile>(segment: &Segment<F>, offset: u32) -> Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = u64::from(offset);
    loop {
        let count = segment.read(&mut buffer, offset)?;
        if count == 0 {
            return segment.sync();
        }
        let (_, written) = write_full(segment.file()?, &buffer[..count], offset);
        written.map_err(|error| write_error(&segment.path, error))?;
        offset += count as u64;
    }
}

/// The error for a segment that cannot be written again.
fn write_error(path: &Path, error: std::io::Error) -> KvsError {
    KvsError::io(format!("cannot write {} again", path.display()))(error)
}
