//! The directory of a store: its lock, and the names in it.
//!
//! Both engines use it. The directory itself carries the lock (`flock`), so that
//! no lock file can be left behind, copied or deleted. The path is made absolute
//! at open, so a later `chdir` changes nothing.
//!
//! Invariants:
//! * One handle at a time has the directory open (`a_directory_is_open_once`).
//! * A segment is created or opened only while the path leads to the directory
//!   that is locked (`a_moved_directory_stops_the_store`).
//! * Names that are not a segment's are left alone (`other_files_are_left_alone`).

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::background::Job;
use super::fs::{Fs, FsDir};
use crate::error::{KvsError, Result};

/// The end of a segment's name. Its number comes before.
const SEGMENT_SUFFIX: &str = ".kvs";
/// The end of the names of segments that version 0.1 wrote.
const OLD_SEGMENT_SUFFIX: &str = ".seg";
/// The subdirectories in which the server of version 0.1 kept the engines' files.
const OLD_SUBDIRECTORIES: [&str; 2] = ["kvs", "sled"];
/// Names that every sled database has. A snapshot may be there, too. Two names are enough
/// to tell, in case others are lost. A single one may be somebody else's.
const SLED_NAMES: [&str; 3] = ["conf", "db", "blobs"];

/// The engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineName {
    /// [`KvStore`](crate::KvStore), the engine of this crate.
    Kvs,
    /// `SledKvStore`.
    Sled,
}

impl EngineName {
    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            EngineName::Kvs => "kvs",
            EngineName::Sled => "sled",
        }
    }
}

/// A directory that only this handle has open.
#[derive(Debug)]
pub(crate) struct Directory<D: Fs> {
    fs: D,
    /// Its absolute path.
    path: PathBuf,
    /// Carries the lock.
    handle: Arc<D::Dir>,
}

impl<D: Fs> Directory<D> {
    /// Opens and locks a directory for an engine. Creates it if it is missing. Fails as
    /// [`engine_in`] does, and with [`KvsError::InUse`] if another handle has it open.
    pub(crate) fn open(fs: D, path: &Path, engine: EngineName) -> Result<Directory<D>> {
        let path = absolute(path)?;
        fs.create_dir(&path).map_err(KvsError::cannot("create the directory", &path))?;
        let handle = fs.open_dir(&path).map_err(KvsError::cannot("open the directory", &path))?;
        if !handle.try_lock().map_err(KvsError::cannot("lock the directory", &path))? {
            return Err(KvsError::InUse { path });
        }
        let directory = Directory { fs, path, handle: Arc::new(handle) };
        directory.check_in_place()?;
        engine_in(&directory.fs, &directory.path, Some(engine))?;
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fs(&self) -> &D {
        &self.fs
    }

    /// Fsyncs the directories above this one, which a start that crashed may have created.
    /// Directories that this process may not open, or whose file system has no such call,
    /// were not created by it and are skipped.
    pub(crate) fn sync_ancestors(&self) -> Result<()> {
        use ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
        for above in self.path.ancestors().skip(1) {
            match self.fs.open_dir(above).and_then(|directory| directory.sync()) {
                Err(error)
                    if !matches!(error.kind(), PermissionDenied | InvalidInput | Unsupported) =>
                {
                    return Err(KvsError::cannot("fsync the directory", above)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Fsyncs the directory: the names in it survive a power failure.
    pub(crate) fn sync(&self) -> Result<()> {
        self.handle.sync().map_err(KvsError::cannot("fsync the directory", &self.path))
    }

    /// Fails if the path leads to another directory now.
    pub(crate) fn check_in_place(&self) -> Result<()> {
        let is_at = self.handle.is_at(&self.path);
        if is_at.map_err(KvsError::cannot("look at the directory", &self.path))? {
            return Ok(());
        }
        let moved = io::Error::other("the directory was moved or replaced while it was open");
        Err(KvsError::cannot("go on in", &self.path)(moved))
    }

    pub(super) fn segment_path(&self, number: u32) -> PathBuf {
        self.path.join(segment_name(number))
    }

    /// Creates a file. Its name survives a power failure after a [`sync`](Self::sync).
    pub(super) fn create(&self, path: &Path) -> Result<D::File> {
        self.check_in_place()?;
        self.fs.create(path).map_err(KvsError::cannot("create", path))
    }

    pub(super) fn open_file(&self, path: &Path) -> Result<D::File> {
        self.check_in_place()?;
        self.fs.open(path).map_err(KvsError::cannot("open", path))
    }

    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        self.check_in_place()?;
        self.fs.remove(path).map_err(KvsError::cannot("remove", path))
    }

    /// A job in this directory that does nothing yet.
    pub(super) fn job(&self) -> Job<D::File, D::Dir> {
        let directory = (self.handle.clone(), self.path.clone());
        Job { directory, sync_files: vec![], sync_directory: false, remove: vec![], close: vec![] }
    }
}

impl<D: Fs> Drop for Directory<D> {
    fn drop(&mut self) {
        // A child process that was forked meanwhile has the handle too. Closing
        // ours would leave the lock with it.
        self.handle.unlock();
    }
}

pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(KvsError::cannot("make an absolute path of", path))
}

/// The engine whose files a directory holds; `None` if it has no such files. Fails if
/// another engine was `asked` for, if the files are those of both engines, or if version
/// 0.1 wrote them.
pub(crate) fn engine_in(
    fs: &impl Fs,
    path: &Path,
    asked: Option<EngineName>,
) -> Result<Option<EngineName>> {
    let names = match fs.list(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        listed => listed.map_err(KvsError::cannot("list the directory", path))?,
    };
    if is_old(fs, path, &names) {
        let version = "kvs 0.1".to_owned();
        return Err(KvsError::OtherVersion { path: path.to_owned(), version });
    }
    let found = match (!segment_numbers(&names).is_empty(), has_sled(&names)) {
        (true, true) => {
            let reason = format!("{} holds the files of both engines", path.display());
            return Err(KvsError::EngineUnusable { reason });
        }
        (true, false) => EngineName::Kvs,
        (false, true) => EngineName::Sled,
        (false, false) => return Ok(None),
    };
    let asked = asked.unwrap_or(found);
    if asked != found {
        let (asked, found) = (asked.as_str(), found.as_str());
        return Err(KvsError::WrongEngine { path: path.to_owned(), asked, found });
    }
    Ok(Some(found))
}

/// Returns true if version 0.1 wrote what is in a directory with these names.
fn is_old(fs: &impl Fs, path: &Path, names: &[String]) -> bool {
    let subdirectories = names.iter().filter(|name| OLD_SUBDIRECTORIES.contains(&name.as_str()));
    // Listing fails if the name is that of a file. Version 0.1 did not create such a file.
    let within = subdirectories.flat_map(|name| fs.list(&path.join(name)).unwrap_or_default());
    let within: Vec<String> = within.collect();
    let is_segment = |name: &String| segment_number(name, OLD_SEGMENT_SUFFIX).is_some();
    names.iter().chain(&within).any(is_segment) || has_sled(&within)
}

/// Returns true if these are the names of a sled database.
fn has_sled(names: &[String]) -> bool {
    let has_snapshot = names.iter().any(|name| name.starts_with("snap."));
    let found = names.iter().filter(|name| SLED_NAMES.contains(&name.as_str())).count();
    found + usize::from(has_snapshot) > 1
}

/// The name of the segment with this number. Names sort as numbers do, up to 8 digits.
pub(super) fn segment_name(number: u32) -> String {
    format!("{number:08}{SEGMENT_SUFFIX}")
}

/// The numbers and paths of the segments in a directory, in rising order.
pub(super) fn segments_in(fs: &impl Fs, path: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let names = fs.list(path).map_err(KvsError::cannot("list the directory", path))?;
    let numbers = segment_numbers(&names).into_iter();
    Ok(numbers.map(|number| (number, path.join(segment_name(number)))).collect())
}

/// The numbers of the segments among these names, in rising order.
fn segment_numbers(names: &[String]) -> Vec<u32> {
    let number = |name: &String| segment_number(name, SEGMENT_SUFFIX);
    let mut numbers: Vec<u32> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// The number in the name of a segment with this suffix; `None` for any other name.
fn segment_number(name: &str, suffix: &str) -> Option<u32> {
    let digits = name.strip_suffix(suffix)?;
    let number: u32 = digits.parse().ok()?;
    (digits == format!("{number:08}") && number > 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments_are_told_from_others() {
        for number in [1, 99_999_999, 100_000_000, u32::MAX] {
            assert_eq!(segment_number(&segment_name(number), ".kvs"), Some(number));
        }
        for name in ["1.kvs", "00000000.kvs", "+0000001.kvs", "00000001.seg", "reserve.kvs"] {
            assert_eq!(segment_number(name, ".kvs"), None, "{name}");
        }
        let names = ["00000010.kvs", "other", "00000002.kvs"].map(str::to_owned);
        assert_eq!(segment_numbers(&names), [2, 10]);
    }
}
