//! What is in a store's files, said in text, for whoever has to look at them.
//!
//! Reads only, and takes damage as it comes: every byte of every segment is
//! accounted for, as a record or as a damaged range. It is safe to run on
//! anything; a directory in use is refused, as its files change meanwhile.
//!
//! Not here: printing (the caller has the writer) and mending
//! ([`repair`](super::repair), which reads through the same [`Scan`]).

use std::io::Write;
use std::path::Path;

use super::checksums::Checksums;
use super::directory::Directory;
use super::disk::OsDisk;
use super::record::{self, Kind, Record};
use super::replay::is_room;
use super::segment::{HEADER_BYTES, Header, read_whole};
use crate::error::{KvsError, Result};

/// A run of a segment's bytes.
pub(super) enum Piece<'a> {
    /// An intact record, and where it is.
    Record(usize, Record<'a>),
    /// Bytes that are none: where they begin, where they end, and why.
    Damage(usize, usize, String),
    /// Zeros up to the end of the file, written ahead of records: where they begin.
    Room(usize),
}

/// The pieces of a segment's bytes, header left out, one after another.
pub(super) struct Scan<'a> {
    /// The whole segment, made ready to be searched behind damage.
    checksums: Checksums<'a>,
    /// The seed of its checksums.
    salt: u32,
    /// Whether it may end with zeros, which only the newest does.
    is_newest: bool,
    /// Where the next piece begins.
    at: usize,
}

impl<'a> Scan<'a> {
    /// The pieces of the segment that has these bytes and this header.
    pub(super) fn new(bytes: &'a [u8], header: Header, is_newest: bool) -> Scan<'a> {
        Scan { checksums: Checksums::new(bytes), salt: header.salt, is_newest, at: HEADER_BYTES }
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let (start, bytes) = (self.at, self.checksums.bytes());
        if start >= bytes.len() {
            return None;
        }
        match record::decode_at(&self.checksums, start, self.salt) {
            Ok(record) => {
                self.at += record.len();
                Some(Piece::Record(start, record))
            }
            Err(_) if self.is_newest && is_room(&bytes[start..]) => {
                self.at = bytes.len();
                Some(Piece::Room(start))
            }
            Err(damage) => {
                let is_record =
                    |at: &usize| record::decode_at(&self.checksums, *at, self.salt).is_ok();
                self.at = (start + 1..bytes.len()).find(is_record).unwrap_or(bytes.len());
                Some(Piece::Damage(start, self.at, damage.to_string()))
            }
        }
    }
}

/// Locks a directory that exists, to look at it; creates none.
pub(super) fn lock(directory: &Path) -> Result<Directory<OsDisk>> {
    if !super::directory::is_store(directory)? {
        let context = format!("there is no store in {}", directory.display());
        return Err(KvsError::io(context)(std::io::ErrorKind::NotFound.into()));
    }
    Directory::open(OsDisk, directory.to_owned())
}

/// Writes a line for each segment, record and damaged range; how many of these
/// last there were.
pub(super) fn inspect(directory: &Path, out: &mut dyn Write) -> Result<u64> {
    let directory = lock(directory)?;
    let mut damaged = 0;
    let mut bytes = Vec::new();
    let numbers = directory.segment_numbers()?;
    for &number in &numbers {
        let path = directory.segment_path(number);
        read_whole(&directory.open_segment(number)?, &path, &mut bytes)?;
        let is_newest = numbers.last() == Some(&number);
        damaged +=
            inspect_segment(&path, &bytes, is_newest, out).map_err(KvsError::io("cannot print"))?;
    }
    Ok(damaged)
}

/// Writes the lines of one segment; how many damaged ranges it has.
fn inspect_segment(
    path: &Path,
    bytes: &[u8],
    is_newest: bool,
    out: &mut dyn Write,
) -> std::io::Result<u64> {
    writeln!(out, "{}: {} bytes", path.display(), bytes.len())?;
    let header = match Header::decode(bytes) {
        Ok(header) => header,
        Err(reason) => {
            writeln!(out, "  0 DAMAGED: {reason}; without its salt no record can be checked")?;
            return Ok(1);
        }
    };
    let Header { number, store, salt } = header;
    writeln!(out, "  0 segment {number} of store {store:016x}, salt {salt:08x}")?;
    let mut damaged = 0;
    for piece in Scan::new(bytes, header, is_newest) {
        match piece {
            Piece::Record(at, record) => writeln!(out, "  {at} {}", describe(&record))?,
            Piece::Damage(at, end, reason) => {
                damaged += 1;
                writeln!(out, "  {at} DAMAGED up to {end}: {reason}")?;
            }
            Piece::Room(at) => writeln!(out, "  {at} zeros, written ahead of records")?,
        }
    }
    Ok(damaged)
}

/// A record in words; control characters are escaped.
fn describe(record: &Record<'_>) -> String {
    let synced = if record.synced { ", synced before" } else { "" };
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (key, value) = (text(record.key), text(record.value));
    match record.kind {
        Kind::Set => format!("set {key:?} {value:?}{synced}"),
        Kind::Remove => format!("remove {key:?}{synced}"),
        Kind::Mark => format!("mark{synced}"),
        Kind::Continued => format!("continued{synced}"),
        Kind::Retired => format!("retired {key}{synced}"),
    }
}
