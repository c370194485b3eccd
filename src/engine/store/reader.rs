//! Reads the log: the records of one segment, or all that is in a directory.
//!
//! [`Reader`] reads records through a buffer. Cleaning uses it. [`walk`]
//! goes through all segments of a closed store, damaged or not, and accounts for
//! every byte. Recovery, inspect and export use it.
//!
//! Not here: what the records mean, and single records by their location
//! ([`cache`](super::cache)).
//!
//! Invariants:
//! * Every byte is part of a header, of a record, of unused space or of a damaged
//!   range (`every_byte_is_accounted_for`).
//! * The header of the next segment states where a segment ends. It counts only if the last
//!   record of the segment names its salt (`a_header_of_another_time_cuts_nothing_off`).
//! * The search for a record in damaged bytes takes constant time for each
//!   position, whatever values clients have stored
//!   (`crafted_values_do_not_slow_the_search`).

use std::path::{Path, PathBuf};
use std::result::Result as StdResult;
use std::sync::Arc;

use super::fs::{FsFile, read_full};
use super::record::{Damage, HeaderError, Position, RECORD_HEADER_BYTES, Record, RecordHeader};
use super::record::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::error::{KvsError, Result};

/// Bytes that a walk reads at a time.
const WALK_READ_BYTES: usize = 256 << 10;

/// A buffer that holds a part of a segment.
pub(super) struct Reader<F> {
    /// The open file, and its path for messages.
    file: Arc<F>,
    path: Arc<Path>,
    /// Seed of the checksums of its records.
    pub(super) salt: u32,
    /// Where to stop: nothing after this offset is read.
    pub(super) end: u64,
    /// Bytes to read at a time, unless a record is longer.
    chunk: usize,
    /// The bytes in memory, and their offset in the segment.
    buffer: Vec<u8>,
    start: u64,
}

impl<F: FsFile> Reader<F> {
    /// Reads a segment up to `end`, `chunk` bytes at a time.
    pub(super) fn new(file: Arc<F>, path: &Path, salt: u32, end: u64, chunk: usize) -> Reader<F> {
        let path = path.into();
        Reader { file, path, salt, end, chunk, buffer: Vec::new(), start: 0 }
    }

    /// The bytes from `offset` on: `len` of them, or fewer at the end.
    pub(super) fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let end = self.end.min(offset + len as u64).max(offset);
        if offset < self.start || end > self.start + self.buffer.len() as u64 {
            let rest = self.end.saturating_sub(offset);
            let count = rest.min(len.max(self.chunk) as u64) as usize;
            self.buffer.resize(count, 0);
            self.start = offset;
            let filled = read_full(&*self.file, &mut self.buffer, offset);
            self.buffer.truncate(*filled.as_ref().unwrap_or(&0));
            filled.map_err(KvsError::cannot_at("read", &self.path, offset))?;
        }
        let from = (offset - self.start) as usize;
        let to = ((end - self.start) as usize).min(self.buffer.len());
        Ok(&self.buffer[from.min(to)..to])
    }

    /// The record at `offset`, or what is wrong there.
    pub(super) fn record(&mut self, offset: u64) -> Result<StdResult<Record<'_>, Damage>> {
        let header = match self.header(offset)? {
            Ok(header) => header,
            Err(damage) => return Ok(Err(damage)),
        };
        let salt = self.salt;
        Ok(header.record(self.bytes(offset, header.len())?, salt))
    }

    /// The header of the record at `offset`, or what is wrong there.
    pub(super) fn header(&mut self, offset: u64) -> Result<StdResult<RecordHeader, Damage>> {
        let salt = self.salt;
        Ok(RecordHeader::decode(self.bytes(offset, RECORD_HEADER_BYTES)?, salt))
    }

    /// The record at `offset`. Damage is an error.
    pub(super) fn intact_record(&mut self, offset: u32) -> Result<Record<'_>> {
        let path = self.path.clone();
        let corrupt = |damage: Damage| KvsError::corrupt(&path, offset.into(), damage);
        self.record(offset.into())?.map_err(corrupt)
    }

    /// The key of the record with this header at `offset`.
    pub(super) fn key(&mut self, offset: u32, header: &RecordHeader) -> Result<&[u8]> {
        let bytes = self.bytes(offset.into(), RECORD_HEADER_BYTES + header.key_len)?;
        Ok(bytes.get(RECORD_HEADER_BYTES..).unwrap_or_default())
    }

    /// The header of the record at `offset`. Damage is an error.
    pub(super) fn intact_header(&mut self, offset: u32) -> Result<RecordHeader> {
        let header = self.header(offset.into())?;
        header.map_err(|damage| KvsError::corrupt(&self.path, offset.into(), damage))
    }

    /// The first offset from `offset` on at which an intact header of a record is.
    fn find_header(&mut self, mut offset: u64) -> Result<Option<u64>> {
        let (salt, chunk) = (self.salt, self.chunk.max(RECORD_HEADER_BYTES));
        while offset + RECORD_HEADER_BYTES as u64 <= self.end {
            let bytes = self.bytes(offset, chunk)?;
            let mut headers = bytes.windows(RECORD_HEADER_BYTES);
            if let Some(at) = headers.position(|it| RecordHeader::decode(it, salt).is_ok()) {
                return Ok(Some(offset + at as u64));
            }
            // The file was truncated meanwhile.
            let Some(count) = (bytes.len() + 1).checked_sub(RECORD_HEADER_BYTES) else { break };
            offset += count as u64;
        }
        Ok(None)
    }

    /// Returns true if only zeros follow from `offset` on.
    fn is_zeros(&mut self, mut offset: u64) -> Result<bool> {
        loop {
            let bytes = self.bytes(offset, self.chunk)?;
            if bytes.is_empty() || bytes.iter().any(|byte| *byte != 0) {
                return Ok(bytes.is_empty());
            }
            offset += bytes.len() as u64;
        }
    }
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
    pub(super) header: StdResult<SegmentHeader, String>,
    /// Whether it has the header of another store.
    pub(super) is_foreign: bool,
}

/// Reads the header and the length of each segment. The oldest intact header says
/// which store it is.
///
/// # Errors
///
/// [`KvsError::OtherVersion`] if another version of kvs wrote one.
pub(super) fn find_segments<F: FsFile>(
    paths: Vec<(u32, PathBuf)>,
    open: &impl Fn(&Path) -> Result<F>,
) -> Result<Vec<Found>> {
    let mut found = Vec::with_capacity(paths.len());
    let mut store = None;
    for (number, path) in paths {
        let file = open(&path)?;
        let context = || KvsError::cannot("read the header of", &path);
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let filled = read_full(&file, &mut bytes, 0).map_err(context())?;
        let file_len = file.len().map_err(context())?;
        let mut header = match SegmentHeader::decode(&bytes[..filled]) {
            Ok(header) if header.number == number => Ok(header),
            Ok(header) => Err(format!("it is segment {} under another name", header.number)),
            Err(HeaderError::Damaged(reason)) => Err(reason.to_owned()),
            Err(HeaderError::Version(version)) => {
                let version = format!("a version of kvs with format {version}");
                return Err(KvsError::OtherVersion { path, version });
            }
        };
        let is_foreign = header.as_ref().is_ok_and(|it| *store.get_or_insert(it.store) != it.store);
        if is_foreign {
            header = Err("it belongs to another store than the oldest segment".to_owned());
        }
        found.push(Found { path, number, file_len, header, is_foreign });
    }
    Ok(found)
}

/// What a walk finds, in the order of the log.
pub(super) enum Finding<'a> {
    /// A segment and its header. `None` if the header is damaged: then `Damaged` follows.
    Segment(&'a Found, Option<&'a SegmentHeader>),
    /// An intact record.
    Record(Record<'a>),
    /// Space after the last record.
    Unused,
    /// Damaged bytes.
    Damaged {
        /// The offset after the last of them.
        end: u64,
        /// What is wrong.
        reason: String,
        /// Whether they are a record whose intact header has the flag *synced*.
        synced: bool,
    },
    /// Segments are missing: all before the one with this number.
    Missing(u32),
}

/// Walks through all segments. Passes to `see` what it finds, and where. Segments that are
/// missing before the oldest one come last.
pub(super) fn walk<F: FsFile>(
    found: &[Found],
    open: &impl Fn(&Path) -> Result<F>,
    mut see: impl FnMut(Position, Finding<'_>) -> Result<()>,
) -> Result<()> {
    let oldest = found.first().map_or(1, |oldest| oldest.number);
    let (mut expected, mut cleaned) = (oldest, 0);
    let mut end = SegmentEnd::Unknown;
    for (at, segment) in found.iter().enumerate() {
        let number = segment.number;
        if number != expected {
            see(Position { segment: expected, offset: 0 }, Finding::Missing(number))?;
            end = SegmentEnd::Unknown;
        }
        expected = number.saturating_add(1);
        let start = Position { segment: number, offset: 0 };
        let header = match (&segment.header, &end) {
            (Ok(_), SegmentEnd::OtherNext(_)) => Err("it does not match the previous segment"),
            (header, _) => header.as_ref().map_err(String::as_str),
        };
        see(start, Finding::Segment(segment, header.ok()))?;
        let salt = match header {
            Ok(header) => Some(header.salt),
            Err(reason) => {
                let salt = end.next_salt().filter(|_| !segment.is_foreign);
                let readable = salt.map_or(u64::MAX, |_| SEGMENT_HEADER_BYTES as u64);
                let (end, reason) = (segment.file_len.min(readable), reason.to_owned());
                see(start, Finding::Damaged { end, reason, synced: false })?;
                salt
            }
        };
        end = SegmentEnd::Unknown;
        if let Some(salt) = salt {
            let (file, file_len) = (Arc::new(open(&segment.path)?), segment.file_len);
            let mut reader = Reader::new(file, &segment.path, salt, file_len, WALK_READ_BYTES);
            let next = found.get(at + 1).filter(|next| next.number == expected);
            let next = next.and_then(|next| next.header.as_ref().ok());
            end = walk_records(&mut reader, next, |offset, finding| {
                if let Finding::Record(record) = &finding {
                    cleaned = record.cleaned().unwrap_or(0).max(cleaned);
                }
                see(Position { segment: number, offset }, finding)
            })?;
        }
    }
    if oldest > cleaned.saturating_add(1) {
        see(Position { segment: cleaned + 1, offset: 0 }, Finding::Missing(oldest))?;
    }
    Ok(())
}

/// What the records of a segment tell of the next one.
enum SegmentEnd {
    /// Nothing: there is damage, or the next one is missing.
    Unknown,
    /// The last record names this salt. The next header has it, is damaged or is missing.
    Next(u32),
    /// The next segment has a stale header: a power failure can leave blocks of a removed
    /// file. Holds the salt that the last record names, if it names one.
    OtherNext(Option<u32>),
}

impl SegmentEnd {
    /// The salt of the next segment.
    fn next_salt(&self) -> Option<u32> {
        match self {
            SegmentEnd::Unknown => None,
            SegmentEnd::Next(salt) => Some(*salt),
            SegmentEnd::OtherNext(salt) => *salt,
        }
    }
}

/// Walks through the records of a segment. `next` is the header of the next segment. It
/// states the length of this segment. It is stale if its salt is not the one that the last
/// record names.
fn walk_records<F: FsFile>(
    reader: &mut Reader<F>,
    next: Option<&SegmentHeader>,
    mut see: impl FnMut(u32, Finding<'_>) -> Result<()>,
) -> Result<SegmentEnd> {
    let (mut next_salt, mut is_intact) = (None, true);
    let mut offset = SEGMENT_HEADER_BYTES as u64;
    while offset < reader.end && next_salt.is_none() {
        let reason = match reader.record(offset)? {
            Ok(record) => {
                let len = record.len();
                next_salt = record.next_salt();
                see(offset as u32, Finding::Record(record))?;
                offset += u64::from(len);
                continue;
            }
            Err(damage) => damage.to_owned(),
        };
        if reader.is_zeros(offset)? {
            break;
        }
        is_intact = false;
        let (end, synced) = match reader.header(offset)? {
            Ok(header) => (offset + header.len() as u64, header.synced),
            Err(_) => (reader.find_header(offset + 1)?.unwrap_or(reader.end), false),
        };
        let end = end.min(reader.end);
        see(offset as u32, Finding::Damaged { end, reason, synced })?;
        offset = end;
    }
    let stated = next.map_or(0, |next| u64::from(next.previous_len));
    if stated > offset && next_salt.is_none() {
        let reason = format!("the next segment says that this one has {stated} bytes");
        see(offset as u32, Finding::Damaged { end: stated, reason, synced: false })?;
        return Ok(SegmentEnd::Unknown);
    }
    if offset < reader.end {
        see(offset as u32, Finding::Unused)?;
    }
    let follows = stated == offset && next_salt == next.map(|next| next.salt);
    if next.is_some() && !follows && (is_intact || next_salt.is_some()) {
        return Ok(SegmentEnd::OtherNext(next_salt));
    }
    Ok(next_salt.map_or(SegmentEnd::Unknown, SegmentEnd::Next))
}
