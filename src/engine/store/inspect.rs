//! What is in a store's files, said in text, for whoever has to look at them.
//!
//! Changes no segment, and takes damage as it comes: it is safe to run on
//! anything. A directory in use is refused, as its files change meanwhile. The
//! lock file is made to name this process, as whoever opens the directory, so
//! that who is refused meanwhile is told of the right one.
//!
//! Not here: what is found ([`survey`](mod@super::survey)), printing (the caller
//! has the writer) and mending ([`repair`](super::repair)).

use std::io::Write;
use std::path::Path;

use super::directory::Directory;
use super::disk::OsDisk;
use super::header::Header;
use super::record::{Kind, Record};
use super::scan::Piece;
use super::survey::survey;
use crate::error::{KvsError, Result};

/// Locks a directory that exists, to look at it; creates none.
pub(super) fn lock(directory: &Path) -> Result<Directory<OsDisk>> {
    if !super::directory::is_store(directory)? {
        let context = format!("there is no store in {}", directory.display());
        return Err(KvsError::io(context)(std::io::ErrorKind::NotFound.into()));
    }
    Directory::open(OsDisk, directory.to_owned())
}

/// Writes a line for each segment, record and damaged range; how many of these
/// last there were, with each run of missing segments as one.
pub(super) fn inspect(directory: &Path, out: &mut dyn Write) -> Result<u64> {
    let mut damaged = 0;
    survey(&lock(directory)?, |path, piece| {
        damaged +=
            u64::from(matches!(piece, Piece::Damage(..) | Piece::Lost(_) | Piece::Missing(_)));
        print(path, &piece, out).map_err(KvsError::io("cannot print"))
    })?;
    Ok(damaged)
}

/// Writes the line of a piece of the segment at `path`.
fn print(path: &Path, piece: &Piece<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    match piece {
        Piece::File(len) => writeln!(out, "{}: {len} bytes", path.display()),
        Piece::Header(Header { number, store, salt }) => {
            writeln!(out, "  0 segment {number} of store {store:016x}, salt {salt:08x}")
        }
        Piece::Record(at, record) | Piece::Foreign(at, record) => {
            writeln!(out, "  {at} {}", describe(record))
        }
        Piece::Damage(at, end, reason) => writeln!(out, "  {at} DAMAGED up to {end}: {reason}"),
        Piece::Lost(reason) => writeln!(out, "  0 DAMAGED: {reason}"),
        Piece::Missing(reason) => writeln!(out, "{}: DAMAGED: {reason}", path.display()),
        Piece::Room(at) => writeln!(out, "  {at} zeros, written ahead of records"),
    }
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
