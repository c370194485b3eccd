//! Inspect and export: what the segments in a directory hold, damaged or not.
//!
//! Both walk through all segments and account for every byte. Inspect prints what
//! it finds. Export writes the live pairs as `SET` lines, and reports what was
//! lost. Neither changes anything. They need only read permission.
//!
//! Export takes from the log what recovery would: a torn tail was never durable, so
//! it is left out and is no loss. After corruption it takes every intact record. A
//! key whose newest record was lost has its value from before, or none.
//!
//! Not here: what to do about damage. That is for the person who reads this.
//!
//! Invariants:
//! * Every byte is part of a header, of a record, of unused space or of a damaged
//!   range (`every_byte_is_accounted_for`).
//! * One damaged record costs one pair (`export_saves_all_but_what_is_damaged`).

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::KvStore;
use super::directory::{EngineName, absolute, engine_in, segment_name, segment_numbers};
use super::fs::{Fs, OsFs};
use super::index::{Index, Location};
use super::reader::Reader;
use super::record::{Damage, Kind, Position, Record, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::recovery::{Found, READ_BYTES, find_evidence, find_segments, record_len, stated_len};
use crate::error::{KvsError, Result};
use crate::protocol::{Request, encode_request};

/// What a walk finds, in the order of the log.
enum Finding<'a> {
    /// A segment, and the length of its file.
    Segment(u64),
    /// An intact header of a segment.
    Header(&'a SegmentHeader),
    /// An intact record, and its offset.
    Record(u32, Record<'a>),
    /// Space behind the last record, from this offset on.
    Unused(u32),
    /// Damaged bytes: their first offset, the one behind the last, and the reason.
    Damaged(u32, u64, String),
    /// Segments that should be there, up to the number before this one.
    Missing(u32),
}

/// The segments of a directory that is locked.
struct Segments {
    /// The directory.
    path: std::path::PathBuf,
    /// The segments.
    found: Vec<Found>,
    /// Holds the lock.
    _lock: File,
}

/// Opens a segment to read it.
fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(KvsError::io(format!("cannot open {}", path.display())))
}

impl Segments {
    /// Locks a directory and finds the segments in it.
    fn open(path: &Path) -> Result<Segments> {
        let path = absolute(path)?;
        let lock = File::open(&path)
            .map_err(KvsError::io(format!("cannot open the directory {}", path.display())))?;
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(KvsError::InUse { path }),
            Err(TryLockError::Error(error)) => {
                let context = format!("cannot lock the directory {}", path.display());
                return Err(KvsError::io(context)(error));
            }
        }
        let fs = OsFs::default();
        if engine_in(&path, |path| fs.list(path))? != Some(EngineName::Kvs) {
            let context = format!("there is no kvs store in {}", path.display());
            return Err(KvsError::io(context)(ErrorKind::NotFound.into()));
        }
        let context = format!("cannot list the directory {}", path.display());
        let names = fs.list(&path).map_err(KvsError::io(context))?;
        let numbers = segment_numbers(&names).into_iter();
        let numbered = numbers.map(|number| (number, path.join(segment_name(number)))).collect();
        let found = find_segments(numbered, &open)?;
        Ok(Segments { path, found, _lock: lock })
    }

    /// Walks through all segments. Passes to `see` the number of each segment and what
    /// is in it.
    fn walk(&self, mut see: impl FnMut(u32, Finding<'_>) -> Result<()>) -> Result<()> {
        let mut reader = Reader::new(READ_BYTES);
        let (mut cleaned, mut next_salt, mut expected) = (0, None, None);
        for (at, segment) in self.found.iter().enumerate() {
            if let Some(expected) = expected.filter(|it| *it != segment.number) {
                see(expected, Finding::Missing(segment.number))?;
                next_salt = None;
            }
            expected = segment.number.checked_add(1);
            see(segment.number, Finding::Segment(segment.file_len))?;
            let salt = self.walk_header(segment, next_salt.take(), &mut see)?;
            let Some(salt) = salt else { continue };
            self.walk_records(&mut reader, at, salt, |finding| {
                if let Finding::Record(_, record) = &finding {
                    cleaned = cleaned.max(record.cleaned().unwrap_or_default());
                    next_salt = record.next_salt();
                }
                see(segment.number, finding)
            })?;
        }
        let oldest = self.found.first().map_or(0, |it| it.number);
        if oldest > cleaned.saturating_add(1) {
            see(cleaned + 1, Finding::Missing(oldest))?;
        }
        Ok(())
    }

    /// Walks through the header of a segment. Returns the salt of its records, if it
    /// is known.
    fn walk_header(
        &self,
        segment: &Found,
        next_salt: Option<u32>,
        see: &mut impl FnMut(u32, Finding<'_>) -> Result<()>,
    ) -> Result<Option<u32>> {
        let store = self.found.iter().find_map(|it| it.header.as_ref().ok()).map(|it| it.store);
        let (end, reason) = match &segment.header {
            Ok(header) if Some(header.store) == store => {
                see(segment.number, Finding::Header(header))?;
                return Ok(Some(header.salt));
            }
            Ok(_) => (segment.file_len, "it belongs to another store".to_owned()),
            Err(reason) if next_salt.is_none() => (segment.file_len, reason.clone()),
            Err(reason) => (segment.file_len.min(SEGMENT_HEADER_BYTES as u64), reason.clone()),
        };
        see(segment.number, Finding::Damaged(0, end, reason))?;
        Ok(next_salt.filter(|_| segment.header.is_err()))
    }

    /// Walks through the records of a segment.
    fn walk_records(
        &self,
        reader: &mut Reader,
        at: usize,
        salt: u32,
        mut see: impl FnMut(Finding<'_>) -> Result<()>,
    ) -> Result<()> {
        let segment = &self.found[at];
        let file = open(&segment.path)?;
        let mut source = segment.source(&file, salt);
        let stated = stated_len(&self.found, at).map(u64::from);
        source.end = stated.unwrap_or(source.end).min(source.end);
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        while offset < source.end {
            let damage = match reader.record(&source, offset)? {
                Ok(record) => {
                    let len = record_len(&record);
                    see(Finding::Record(offset as u32, record))?;
                    offset += u64::from(len);
                    continue;
                }
                Err(damage) => damage,
            };
            if stated.is_none() && reader.is_zeros(&source, offset)? {
                break;
            }
            let end = match (damage, reader.header(&source, offset)?) {
                (Damage::Body, Ok(header)) => offset + header.len() as u64,
                _ => reader.find_header(&source, offset + 1)?.map_or(source.end, |(at, _)| at),
            };
            see(Finding::Damaged(offset as u32, end, damage.to_string()))?;
            offset = end;
        }
        if let Some(stated) = stated.filter(|stated| *stated > offset) {
            let reason = "the next segment says that this one is longer".to_owned();
            return see(Finding::Damaged(offset as u32, stated, reason));
        }
        if offset < segment.file_len { see(Finding::Unused(offset as u32)) } else { Ok(()) }
    }

    /// The path of a segment.
    fn path_of(&self, number: u32) -> std::path::PathBuf {
        self.path.join(segment_name(number))
    }
}

/// Prints what is in the segments of a directory. Returns the number of damaged
/// ranges, in which a run of missing segments counts as one.
pub(super) fn inspect(directory: &Path, out: &mut dyn Write) -> Result<u64> {
    let segments = Segments::open(directory)?;
    let mut damaged = 0;
    segments.walk(|number, finding| {
        damaged += u64::from(matches!(finding, Finding::Damaged(..) | Finding::Missing(_)));
        print(number, &finding, out).map_err(KvsError::io("cannot print"))
    })?;
    Ok(damaged)
}

/// Prints one finding.
fn print(number: u32, finding: &Finding<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    match finding {
        Finding::Segment(len) => writeln!(out, "{}: {len} bytes", segment_name(number)),
        Finding::Header(SegmentHeader { number, store, previous_len, salt }) => writeln!(
            out,
            "  0 segment {number} of store {store:016x}, salt {salt:08x}, \
             previous segment has {previous_len} bytes"
        ),
        Finding::Record(offset, record) => writeln!(out, "  {offset} {}", describe(record)),
        Finding::Unused(offset) => writeln!(out, "  {offset} unused space"),
        Finding::Damaged(offset, end, reason) => {
            writeln!(out, "  {offset} DAMAGED up to {end}: {reason}")
        }
        Finding::Missing(end) => {
            let last = segment_name(end - 1);
            writeln!(out, "{} to {last}: DAMAGED: missing", segment_name(number))
        }
    }
}

/// A record in words. Control characters are escaped.
fn describe(record: &Record<'_>) -> String {
    let synced = if record.synced { ", synced before" } else { "" };
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (key, value) = (text(record.key), text(record.value));
    match record.kind {
        Kind::Set => format!("set {key:?} {value:?}{synced}"),
        Kind::Remove => format!("remove {key:?}{synced}"),
        Kind::Checkpoint => {
            let Position { segment, offset } = record.checkpoint().unwrap_or_default();
            let salt = record.next_salt();
            let next = salt.map(|salt| format!(", next salt {salt:08x}")).unwrap_or_default();
            format!("checkpoint {segment}-{offset}{next}{synced}")
        }
        Kind::Cleaned => format!("cleaned {}{synced}", record.cleaned().unwrap_or_default()),
    }
}

impl KvStore {
    /// Writes a `SET` line for each key that has a value, damaged store or not.
    pub(crate) fn export(
        directory: &Path,
        out: &mut dyn Write,
        report: &mut dyn FnMut(&str),
    ) -> Result<u64> {
        let segments = Segments::open(directory)?;
        let (index, end, lost) = replay(&segments, report)?;
        let mut line = Vec::new();
        segments.walk(|number, finding| {
            let Finding::Record(offset, record) = finding else { return Ok(()) };
            let position = Position { segment: number, offset };
            let is_live = record.kind == Kind::Set
                && end.is_none_or(|end| position < end)
                && index.get(index.fingerprint(record.key)) == Some(location(position, &record));
            if is_live {
                line.clear();
                let text = |bytes| String::from_utf8_lossy(bytes);
                let (key, value) = (text(record.key), text(record.value));
                encode_request(&Request::Set { key, value }, &mut line);
                out.write_all(&line).map_err(KvsError::io("cannot write the export"))?;
            }
            Ok(())
        })?;
        Ok(lost)
    }
}

/// The index of all intact records up to the end of the log, where a torn tail starts
/// if there is one, and the number of damaged ranges.
fn replay(
    segments: &Segments,
    report: &mut dyn FnMut(&str),
) -> Result<(Index, Option<Position>, u64)> {
    let mut damages: Vec<(Position, String)> = Vec::new();
    let mut next_salt = None;
    segments.walk(|number, finding| {
        let (offset, reason) = match finding {
            Finding::Damaged(offset, end, reason) => {
                (offset, format!("bytes {offset} to {end}: {reason}"))
            }
            Finding::Missing(end) => (0, format!("{} segments are missing", end - number)),
            Finding::Record(_, record) => {
                next_salt = if damages.is_empty() { record.next_salt() } else { next_salt };
                return Ok(());
            }
            _ => return Ok(()),
        };
        damages.push((Position { segment: number, offset }, reason));
        Ok(())
    })?;
    let first = damages.iter().map(|(position, _)| *position).min();
    let evidence = match first {
        Some(first) => find_evidence(&segments.found, &open, first, next_salt)?,
        None => None,
    };
    let is_torn = first.is_some() && evidence.is_none();
    let end = first.filter(|_| is_torn);
    for (position, reason) in &damages {
        let what = if is_torn { "never durable: " } else { "" };
        report(&format!("{}: {what}{reason}", segments.path_of(position.segment).display()));
    }
    let mut index = Index::new();
    segments.walk(|number, finding| {
        let Finding::Record(offset, record) = finding else { return Ok(()) };
        let position = Position { segment: number, offset };
        if matches!(record.kind, Kind::Set | Kind::Remove) && end.is_none_or(|end| position < end) {
            let new = (record.kind == Kind::Set).then(|| location(position, &record));
            index.apply(&[(index.fingerprint(record.key), new)], |_, _| {});
        }
        Ok(())
    })?;
    Ok((index, end, if is_torn { 0 } else { damages.len() as u64 }))
}

/// Where a record is.
fn location(position: Position, record: &Record<'_>) -> Location {
    let Position { segment, offset } = position;
    Location { segment, offset, len: record_len(record) }
}
