//! Repair: a new store from what is intact of a damaged one.
//!
//! The intact records are written to a new directory beside the damaged one;
//! then the two trade places, and the damaged one is kept under another name.
//! Nothing of it is changed, so nothing that a better tool might save is lost.
//!
//! For a store in `kvs`, the steps, each on the disk before the next:
//!
//! 1. `kvs.repairing` is filled, and closed as any store is.
//! 2. It is renamed to `kvs.repaired`: from here on it is whole.
//! 3. `kvs` is renamed to `kvs.damaged-1`, or the next number that is free.
//! 4. `kvs.repaired` is renamed to `kvs`.
//!
//! Between 3 and 4 there is no `kvs`, and `kvs.repaired` is all there is of the
//! store. None opens while it is there, nor one of another engine, so that none
//! is begun in its place; repair goes on from where it was cut off.
//!
//! What is lost is said: each damaged range, each segment that is missing, and
//! each that is another store's, of which nothing is taken. A key whose newest record was in
//! one has its value from before, or none.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::directory::{Directory, is_store};
use super::disk::OsDisk;
use super::inspect::lock;
use super::record::{Kind, Record};
use super::scan::Piece;
use super::survey::survey;
use super::{KvStore, Options};
use crate::engine::KvsEngine;
use crate::engine::private::parent;
use crate::error::{KvsError, Result};

/// What a repair did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Repair {
    /// Keys that have a value now.
    pub keys: u64,
    /// Where the damaged store was set aside; `None` when nothing was damaged,
    /// or when a repair that was cut off had set it aside and it is gone.
    pub set_aside: Option<PathBuf>,
    /// A line for each range, and each run of segments, that is lost.
    pub lost: Vec<String>,
}

/// Repairs the store in `directory`, if it needs to be.
pub(super) fn repair(directory: &Path) -> Result<Repair> {
    let repaired = beside(directory, ".repaired");
    if repaired.exists() && !is_store(directory)? {
        remove_empty_dir(directory)?;
        return trade_places(directory, &repaired, Vec::new());
    }
    // It holds nothing that the store in `directory` does not, unless another repair
    // is at work, which has the lock.
    let locked = lock(directory)?;
    remove_dir(&repaired)?;
    drop(locked);
    let cause = match KvStore::open(directory) {
        Ok(store) => {
            return Ok(Repair { keys: store.key_count(), set_aside: None, lost: Vec::new() });
        }
        Err(error @ KvsError::Corrupt { .. }) => error,
        Err(error) => return Err(error),
    };
    let damaged = lock(directory)?;
    let repairing = beside(directory, ".repairing");
    remove_dir(&repairing)?;
    let mut lost = salvage(&damaged, &repairing)?;
    if lost.is_empty() {
        lost.push(cause.to_string());
    }
    rename(&repairing, &repaired)?;
    trade_places(directory, &repaired, lost)
}

/// Fails when a repair of the store in `directory` was cut off.
pub(crate) fn check_not_cut_off(directory: &Path) -> Result<()> {
    let repaired = beside(directory, ".repaired");
    if !repaired.exists() {
        return Ok(());
    }
    let reason = format!("its repair was cut off, see {}; repair it again", repaired.display());
    Err(KvsError::corrupt(directory, 0, reason))
}

/// Writes what is intact in `damaged` to a new store in `target`; what is not.
fn salvage(damaged: &Directory<OsDisk>, target: &Path) -> Result<Vec<String>> {
    let store = KvStore::open_with(target, Options { buffered: true, ..Options::default() })?;
    let mut lost = Vec::new();
    survey(damaged, |path, piece| {
        let mut lose = |what: String| lost.push(format!("{}: {what}", path.display()));
        match piece {
            Piece::Record(_, record) => play(&store, &record)?,
            Piece::Damage(at, end, reason) => lose(format!("bytes {at} to {end}: {reason}")),
            Piece::Missing(reason) => lose(reason),
            Piece::Lost(reason) => lose(format!("all of it: {reason}")),
            Piece::File(_) | Piece::Header(_) | Piece::Foreign(..) | Piece::Room(_) => {}
        }
        Ok(())
    })?;
    store.sync()?;
    Ok(lost)
}

/// Plays one record into `store`.
fn play(store: &KvStore, record: &Record<'_>) -> Result<()> {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    match record.kind {
        Kind::Set => store.set(text(record.key), text(record.value)),
        Kind::Remove => match store.remove(text(record.key)) {
            Err(KvsError::KeyNotFound) => Ok(()),
            removed => removed,
        },
        Kind::Mark | Kind::Continued | Kind::Retired => Ok(()),
    }
}

/// Sets `directory` aside, if it is there still, and puts `repaired` in its place.
fn trade_places(directory: &Path, repaired: &Path, lost: Vec<String>) -> Result<Repair> {
    let set_aside = set_aside(directory)?;
    rename(repaired, directory)?;
    let keys = KvStore::open(directory)?.key_count();
    Ok(Repair { keys, set_aside, lost })
}

/// Sets `directory` aside, unless a repair that was cut off has; where it is then.
fn set_aside(directory: &Path) -> Result<Option<PathBuf>> {
    let aside = |nth: u32| beside(directory, &format!(".damaged-{nth}"));
    let mut free = 1;
    while aside(free).exists() {
        free += 1;
    }
    if directory.exists() {
        rename(directory, &aside(free))?;
        return Ok(Some(aside(free)));
    }
    // It was the last to be set aside, and so has the last name that is taken.
    let taken = free - 1;
    Ok((taken > 0).then(|| aside(taken)))
}

/// The path beside `directory` with this added to its name, which `data/` and `.`
/// have too.
fn beside(directory: &Path, suffix: &str) -> PathBuf {
    let named = directory.file_name().map(|_| directory.to_owned());
    let named = named.or_else(|| std::path::absolute(directory).ok());
    let named = named.unwrap_or_else(|| directory.to_owned());
    let mut name = OsString::from(named.components().collect::<PathBuf>());
    name.push(suffix);
    PathBuf::from(name)
}

/// Renames a directory, and puts that on the disk.
fn rename(from: &Path, to: &Path) -> Result<()> {
    let context = || format!("cannot rename {} to {}", from.display(), to.display());
    fs::rename(from, to)
        .and_then(|()| File::open(parent(to))?.sync_all())
        .map_err(KvsError::io(context()))
}

/// Removes an empty directory, if it is there.
fn remove_empty_dir(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(KvsError::io(format!("cannot remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Removes a directory with all that is in it, if it is there.
fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(KvsError::io(format!("cannot remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}
