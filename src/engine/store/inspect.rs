//! Inspect and export: what the segments in a directory hold, damaged or not.
//!
//! Both [`walk`] through all segments. Inspect prints what it finds. Export writes
//! the live pairs as `SET` lines, and reports what was lost. Neither changes
//! anything. They need only read permission.
//!
//! Export takes from the log what recovery would: a torn tail belongs to the last commit,
//! which was interrupted, so it is left out and is no loss. After corruption it takes every intact record. A key
//! whose newest record was lost has its previous value, or none.
//!
//! Not here: what to do about damage. The person who reads the output decides.
//!
//! Invariant: one damaged record costs one pair
//! (`export_saves_all_but_what_is_damaged`).

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::KvStore;
use super::directory::{EngineName, absolute, engine_in, segment_name, segments_in};
use super::fs::OsFs;
use super::index::{Index, Location};
use super::reader::{Finding, Found, find_segments, walk};
use super::record::{Kind, Position, Record, SegmentHeader};
use super::recovery::Replay;
use crate::error::{KvsError, Result};
use crate::protocol::{Request, encode_request, quoted};

/// Opens a file to read it.
fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(KvsError::cannot("open", path))
}

/// Locks a directory and finds the segments in it. The file holds the lock.
fn lock(path: &Path) -> Result<(File, Vec<Found>)> {
    let path = absolute(path)?;
    let lock = open(&path)?;
    match lock.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(KvsError::InUse { path }),
        Err(TryLockError::Error(error)) => {
            return Err(KvsError::cannot("lock the directory", &path)(error));
        }
    }
    let fs = OsFs::default();
    if engine_in(&fs, &path, None)? != Some(EngineName::Kvs) {
        return Err(KvsError::cannot("find a kvs store in", &path)(ErrorKind::NotFound.into()));
    }
    Ok((lock, find_segments(segments_in(&fs, &path)?, &open)?))
}

/// Prints what is in the segments of a directory. Returns the number of damaged
/// ranges, in which a run of missing segments counts as one.
pub(super) fn inspect(directory: &Path, out: &mut dyn Write) -> Result<u64> {
    let (_lock, found) = lock(directory)?;
    let mut damaged = 0;
    walk(&found, &open, |at, finding| {
        damaged += u64::from(matches!(finding, Finding::Damaged { .. } | Finding::Missing(_)));
        print(at, &finding, out).map_err(KvsError::io("cannot print"))
    })?;
    Ok(damaged)
}

/// Prints one finding.
fn print(at: Position, finding: &Finding<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    let (name, offset) = (segment_name(at.segment), at.offset);
    match finding {
        Finding::Segment(Found { file_len, .. }, header) => {
            writeln!(out, "{name}: {file_len} bytes")?;
            let Some(SegmentHeader { number, store, previous_len, salt }) = header else {
                return Ok(());
            };
            writeln!(
                out,
                "  0 segment {number} of store {store:016x}, salt {salt:08x}, \
                 previous segment has {previous_len} bytes"
            )
        }
        Finding::Record(record) => writeln!(out, "  {offset} {}", describe(record)),
        Finding::Unused => writeln!(out, "  {offset} unused space"),
        Finding::Damaged { end, reason, .. } => {
            writeln!(out, "  {offset} DAMAGED up to {end}: {reason}")
        }
        Finding::Missing(next) => {
            writeln!(out, "{name} to {}: DAMAGED: missing", segment_name(next - 1))
        }
    }
}

/// A record in words. Key and value are JSON strings.
fn describe(record: &Record<'_>) -> String {
    let synced = if record.synced { ", synced before" } else { "" };
    let text = |bytes| quoted(&String::from_utf8_lossy(bytes));
    let (key, value) = (text(record.key), text(record.value));
    match record.kind {
        Kind::Set => format!("set {key} {value}{synced}"),
        Kind::Remove => format!("remove {key}{synced}"),
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
        let (_lock, found) = lock(directory)?;
        let (index, lost) = replay(directory, &found, report)?;
        let mut line = Vec::new();
        walk(&found, &open, |at, finding| {
            let Finding::Record(record) = finding else { return Ok(()) };
            if record.kind == Kind::Set
                && index.get(index.fingerprint(record.key)) == Some(location(at, &record))
            {
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

/// The index of the records up to a torn tail, or of all intact ones, and the number of
/// damaged ranges that are no torn tail.
fn replay(directory: &Path, found: &[Found], report: &mut dyn FnMut(&str)) -> Result<(Index, u64)> {
    let mut replay: Replay<File> = Replay::new();
    let mut all = Index::new();
    let mut damages: Vec<(Position, String)> = Vec::new();
    walk(found, &open, |at, finding| {
        replay.see(at, &finding);
        match &finding {
            Finding::Record(record) if matches!(record.kind, Kind::Set | Kind::Remove) => {
                let new = (record.kind == Kind::Set).then(|| location(at, record));
                all.apply(&[(all.fingerprint(record.key), new)], |_, _| {});
            }
            Finding::Damaged { end, reason, .. } => {
                damages.push((at, format!("bytes {} to {end}: {reason}", at.offset)));
            }
            Finding::Missing(next) => {
                damages.push((at, format!("{} segments are missing", next - at.segment)));
            }
            _ => {}
        }
        Ok(())
    })?;
    replay.apply();
    let is_torn = replay.corruption(directory, found).is_none();
    for (at, reason) in &damages {
        let what = if is_torn { "never durable: " } else { "" };
        let path = directory.join(segment_name(at.segment));
        report(&format!("{}: {what}{reason}", path.display()));
    }
    Ok(if is_torn { (replay.index, 0) } else { (all, damages.len() as u64) })
}

/// Where a record is.
fn location(at: Position, record: &Record<'_>) -> Location {
    Location { segment: at.segment, offset: at.offset, len: record.len() }
}
