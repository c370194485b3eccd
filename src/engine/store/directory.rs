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

use super::background::{DirectoryMoved, Job};
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
/// Files that every sled database has.
const SLED_NAMES: [&str; 2] = ["conf", "db"];

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
    /// The file system that it is on.
    fs: D,
    /// Its absolute path.
    path: PathBuf,
    /// Its open handle, which carries the lock.
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
        let context = |what: &str| format!("cannot {what} the directory {}", path.display());
        fs.create_dir(&path).map_err(KvsError::io(context("create")))?;
        let handle = fs.open_dir(&path).map_err(KvsError::io(context("open")))?;
        if !handle.try_lock().map_err(KvsError::io(context("lock")))? {
            return Err(KvsError::InUse { path });
        }
        let directory = Directory { fs, path, handle: Arc::new(handle) };
        directory.check_in_place()?;
        let list = |path: &Path| directory.fs.list(path);
        match engine_in(&directory.path, list)? {
            Some(found) if found != engine => Err(KvsError::WrongEngine {
                path: directory.path.clone(),
                asked: engine.as_str(),
                found: found.as_str(),
            }),
            _ => Ok(directory),
        }
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
        for above in self.path.ancestors().skip(1) {
            match self.fs.open_dir(above).and_then(|directory| directory.sync()) {
                Err(error) if is_of_others(error.kind()) => {}
                synced => {
                    let context = format!("cannot fsync the directory {}", above.display());
                    synced.map_err(KvsError::io(context))?;
                }
            }
        }
        Ok(())
    }

    /// Fsyncs the directory: the names in it survive a power failure.
    pub(crate) fn sync(&self) -> Result<()> {
        let context = format!("cannot fsync the directory {}", self.path.display());
        self.handle.sync().map_err(KvsError::io(context))
    }

    /// Fails if the path leads to another directory now.
    pub(crate) fn check_in_place(&self) -> Result<()> {
        match self.handle.is_at(&self.path) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.moved()),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.moved()),
            Err(error) => {
                let context = format!("cannot look at the directory {}", self.path.display());
                Err(KvsError::io(context)(error))
            }
        }
    }

    /// The error for a directory that was moved.
    pub(super) fn moved(&self) -> KvsError {
        let context = format!("cannot go on in {}", self.path.display());
        KvsError::io(context)(io::Error::other(DirectoryMoved))
    }

    /// The numbers of the segments, in rising order.
    pub(super) fn segment_numbers(&self) -> Result<Vec<u32>> {
        let context = format!("cannot list the directory {}", self.path.display());
        let names = self.fs.list(&self.path).map_err(KvsError::io(context))?;
        Ok(segment_numbers(&names))
    }

    /// The path of a file in the directory.
    pub(super) fn file_path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The path of a segment.
    pub(super) fn segment_path(&self, number: u32) -> PathBuf {
        self.file_path(&segment_name(number))
    }

    /// Creates a file. Its name survives a power failure after the next
    /// [`sync`](Self::sync).
    pub(super) fn create(&self, path: &Path) -> Result<D::File> {
        self.check_in_place()?;
        let context = format!("cannot create {}", path.display());
        self.fs.create(path).map_err(KvsError::io(context))
    }

    /// Opens a file.
    pub(super) fn open_file(&self, path: &Path) -> Result<D::File> {
        self.check_in_place()?;
        let context = format!("cannot open {}", path.display());
        self.fs.open(path).map_err(KvsError::io(context))
    }

    /// Removes a file.
    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        self.check_in_place()?;
        let context = format!("cannot remove {}", path.display());
        self.fs.remove(path).map_err(KvsError::io(context))
    }

    /// A job in this directory that does nothing yet.
    pub(super) fn job(&self) -> Job<D::File, D::Dir> {
        Job {
            directory: (self.handle.clone(), self.path.clone()),
            sync_files: Vec::new(),
            sync_directory: false,
            remove: Vec::new(),
            close: Vec::new(),
        }
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
    let context = format!("cannot make the path '{}' absolute", path.display());
    std::path::absolute(path).map_err(KvsError::io(context))
}

/// Returns true if a directory that cannot be opened or fsynced with this error
/// was not created by this process.
fn is_of_others(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported)
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
    let context = format!("cannot list the directory {}", path.display());
    let names = list(path).map_err(KvsError::io(context))?;
    let has_sled =
        |names: &[String]| SLED_NAMES.iter().all(|it| names.iter().any(|name| name == it));
    let has_old = |names: &[String]| names.iter().any(|name| is_old_segment(name));
    let mut old = has_old(&names);
    for name in OLD_SUBDIRECTORIES {
        if names.iter().any(|it| it == name) {
            // A file of this name is somebody else's.
            let within = list(&path.join(name)).unwrap_or_default();
            old |= has_old(&within) || has_sled(&within);
        }
    }
    if old {
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
