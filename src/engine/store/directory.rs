//! The directory of a store: its lock, and the names in it.
//!
//! Both engines use it. The directory itself carries the lock (`flock`), so that
//! no lock file can be left behind, copied or deleted. The path is made absolute
//! at open, so a later `chdir` changes nothing.
//!
//! Not here: what is in a segment, and which segments there should be.
//!
//! Invariants:
//! * One handle at a time has the directory open (`a_directory_is_open_once`).
//! * A segment is created or opened only while the path leads to the directory
//!   that is locked (`a_moved_directory_stops_the_store`).
//! * Names that are not a segment's are left alone (`other_files_are_left_alone`).

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::background::Job;
use super::fs::{Fs, FsDir};
use crate::error::{KvsError, Result};

/// The end of a segment's name. Its number comes before.
const SEGMENT_SUFFIX: &str = ".kvs";
/// Digits of the number in a name, at least. Names sort as numbers do.
const NUMBER_DIGITS: usize = 8;
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
    /// Both engines.
    pub(crate) const ALL: [EngineName; 2] = [EngineName::Kvs, EngineName::Sled];

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            EngineName::Kvs => "kvs",
            EngineName::Sled => "sled",
        }
    }
}

/// A directory that only this handle has open.
pub(crate) struct Directory<D: Fs> {
    fs: D,
    /// Its absolute path.
    path: PathBuf,
    /// Carries the lock.
    handle: Arc<D::Dir>,
}

impl<D: Fs> Directory<D> {
    /// Opens and locks a directory for an engine. Creates it if it is missing.
    ///
    /// # Errors
    ///
    /// [`KvsError::InUse`] if another handle has it open, and as for [`engine_in`].
    pub(crate) fn open(fs: D, path: &Path, engine: EngineName) -> Result<Directory<D>> {
        let path = absolute(path)?;
        fs.create_dir(&path).map_err(KvsError::cannot("create the directory", &path))?;
        let handle = fs.open_dir(&path).map_err(KvsError::cannot("open the directory", &path))?;
        if !handle.try_lock().map_err(KvsError::cannot("lock the directory", &path))? {
            return Err(KvsError::InUse { path });
        }
        let directory = Directory { fs, path, handle: Arc::new(handle) };
        directory.check_in_place()?;
        let found = engine_in(&directory.path, |path| directory.fs.list(path))?;
        check_engine(&directory.path, engine, found)?;
        Ok(directory)
    }

    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file system that it is on.
    pub(super) fn fs(&self) -> &D {
        &self.fs
    }

    /// Fsyncs the directories above this one. A start that crashed may have
    /// created them without. Directories that this process may not open, or whose
    /// file system has no such call, were not created by it and are skipped.
    pub(crate) fn sync_ancestors(&self) -> Result<()> {
        use ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
        for above in self.path.ancestors().skip(1) {
            let synced = self.fs.open_dir(above).and_then(|directory| directory.sync());
            match synced.map_err(|error| (error.kind(), error)) {
                Ok(()) | Err((PermissionDenied | InvalidInput | Unsupported, _)) => {}
                Err((_, error)) => {
                    return Err(KvsError::cannot("fsync the directory", above)(error));
                }
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
        match self.handle.is_at(&self.path) {
            Ok(true) => Ok(()),
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(KvsError::cannot("look at the directory", &self.path)(error))
            }
            Ok(false) | Err(_) => {
                let moved = "the directory was moved or replaced while it was open";
                Err(KvsError::cannot("go on in", &self.path)(io::Error::other(moved)))
            }
        }
    }

    /// The numbers of the segments, in rising order.
    pub(super) fn segment_numbers(&self) -> Result<Vec<u32>> {
        let names = self.fs.list(&self.path);
        let names = names.map_err(KvsError::cannot("list the directory", &self.path))?;
        Ok(segment_numbers(&names))
    }

    /// The path of a segment.
    pub(super) fn segment_path(&self, number: u32) -> PathBuf {
        self.path.join(segment_name(number))
    }

    /// Creates a file. Its name survives a power failure after the next
    /// [`sync`](Self::sync).
    pub(super) fn create(&self, path: &Path) -> Result<D::File> {
        self.check_in_place()?;
        self.fs.create(path).map_err(KvsError::cannot("create", path))
    }

    /// Opens a file.
    pub(super) fn open_file(&self, path: &Path) -> Result<D::File> {
        self.check_in_place()?;
        self.fs.open(path).map_err(KvsError::cannot("open", path))
    }

    /// Removes a file.
    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        self.check_in_place()?;
        self.fs.remove(path).map_err(KvsError::cannot("remove", path))
    }

    /// A job in this directory that does nothing yet.
    pub(super) fn job(&self) -> Job<D::File, D::Dir> {
        let (sync_files, remove, close) = Default::default();
        let directory = (self.handle.clone(), self.path.clone());
        Job { directory, sync_files, sync_directory: false, remove, close }
    }
}

impl<D: Fs> fmt::Debug for Directory<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<D: Fs> Drop for Directory<D> {
    fn drop(&mut self) {
        // A child process that was forked meanwhile has the handle too. Closing
        // ours would leave the lock with it.
        self.handle.unlock();
    }
}

/// A path made absolute.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(KvsError::cannot("make an absolute path of", path))
}

/// Fails if another engine was found in a directory than is asked for.
pub(crate) fn check_engine(
    path: &Path,
    asked: EngineName,
    found: Option<EngineName>,
) -> Result<()> {
    match found {
        Some(found) if found != asked => Err(KvsError::WrongEngine {
            path: path.to_owned(),
            asked: asked.as_str(),
            found: found.as_str(),
        }),
        _ => Ok(()),
    }
}

/// The engine whose files a directory holds; `None` if it holds none's. `list` lists
/// the names in a directory.
///
/// # Errors
///
/// [`KvsError::EngineUnusable`] if it holds both engines' files;
/// [`KvsError::OtherVersion`] if version 0.1 wrote them.
pub(crate) fn engine_in(
    path: &Path,
    list: impl Fn(&Path) -> io::Result<Vec<String>>,
) -> Result<Option<EngineName>> {
    let names = list(path).map_err(KvsError::cannot("list the directory", path))?;
    let has = |names: &[String], name: &str| names.iter().any(|it| it == name);
    let has_sled = |names: &[String]| {
        let has_snapshot = names.iter().any(|name| name.starts_with("snap."));
        let found = SLED_NAMES.iter().filter(|name| has(names, name)).count();
        found + usize::from(has_snapshot) > 1
    };
    let has_old = |names: &[String]| names.iter().any(|name| is_old_segment(name));
    let is_old_subdirectory = |name: &&str| {
        // A file of this name is somebody else's.
        let within = list(&path.join(name)).unwrap_or_default();
        has(&names, name) && (has_old(&within) || has_sled(&within))
    };
    if has_old(&names) || OLD_SUBDIRECTORIES.iter().any(is_old_subdirectory) {
        let version = "kvs 0.1".to_owned();
        return Err(KvsError::OtherVersion { path: path.to_owned(), version });
    }
    match (!segment_numbers(&names).is_empty(), has_sled(&names)) {
        (true, true) => {
            let reason = format!("{} holds the files of both engines", path.display());
            Err(KvsError::EngineUnusable { reason })
        }
        (true, false) => Ok(Some(EngineName::Kvs)),
        (false, true) => Ok(Some(EngineName::Sled)),
        (false, false) => Ok(None),
    }
}

/// The name of the segment with this number.
pub(super) fn segment_name(number: u32) -> String {
    format!("{number:0NUMBER_DIGITS$}{SEGMENT_SUFFIX}")
}

/// The numbers of the segments among these names, in rising order.
pub(super) fn segment_numbers(names: &[String]) -> Vec<u32> {
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    numbers
}

/// The number in the name of a segment; `None` for any other name.
fn segment_number(name: &str) -> Option<u32> {
    let number: u32 = name.strip_suffix(SEGMENT_SUFFIX)?.parse().ok()?;
    (name == segment_name(number) && number > 0).then_some(number)
}

/// Returns true if a name is that of a segment of version 0.1.
fn is_old_segment(name: &str) -> bool {
    let number = name.strip_suffix(OLD_SEGMENT_SUFFIX).unwrap_or_default();
    number.len() >= NUMBER_DIGITS && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments_are_told_from_others() {
        for number in [1, 99_999_999, 100_000_000, u32::MAX] {
            assert_eq!(segment_number(&segment_name(number)), Some(number));
        }
        for name in ["1.kvs", "00000000.kvs", "+0000001.kvs", "00000001.seg", "reserve.kvs"] {
            assert_eq!(segment_number(name), None, "{name}");
        }
        let names = ["00000010.kvs", "other", "00000002.kvs"].map(str::to_owned);
        assert_eq!(segment_numbers(&names), [2, 10]);
        assert!(is_old_segment("00000001.seg") && !is_old_segment("00000001.kvs"));
    }
}
