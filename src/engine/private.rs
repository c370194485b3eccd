//! Directories that only their owner may enter, and their names on the disk.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::error::{KvsError, Result};

/// The owner may list, create and enter; nobody else may anything.
const MODE: u32 = 0o700;

/// Creates a directory and those above it that are missing, each with its name
/// on the disk; says whether it was missing itself.
pub(super) fn create(path: &Path) -> Result<bool> {
    if path.is_dir() {
        return Ok(false);
    }
    let parent = parent(path);
    create(parent)?;
    let context = || format!("cannot create the directory {}", path.display());
    match DirBuilder::new().mode(MODE).create(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => return Ok(false),
        created => created.map_err(KvsError::io(context()))?,
    }
    sync(parent)?;
    Ok(true)
}

/// Puts the names that lead to `path` on the disk, those that were there before
/// included: they may be of a start that was cut off. One that this process may
/// not read, or whose file system has no such call, it has not made either. `sync`
/// does it for one directory.
pub(super) fn sync_ancestors(path: &Path, sync: impl Fn(&Path) -> Result<()>) -> Result<()> {
    for above in path.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match sync(above) {
            Err(KvsError::Io { source, .. }) if is_of_others(source.kind()) => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Whether a directory that cannot be synced for this reason is none of ours.
fn is_of_others(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

/// The directory that has the last name of a path, which may be the working one.
pub(super) fn parent(path: &Path) -> &Path {
    let named = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    named.unwrap_or(Path::new("."))
}

/// Puts the names in a directory on the disk.
pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(KvsError::io(format!("cannot sync the directory {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_directory_is_in_the_one_above_it() {
        for (path, above) in [("a/b", "a"), ("/a", "/"), ("a", "."), ("/", "."), ("../a/", "..")] {
            assert_eq!(parent(Path::new(path)), Path::new(above));
        }
    }

    #[test]
    fn a_directory_is_created_once_and_what_is_in_its_place_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/../other");
        assert!(create(&path).unwrap() && !create(&path).unwrap());
        assert!(dir.path().join("new").is_dir() && dir.path().join("other").is_dir());
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(create(&dir.path().join("file")).is_err());
        assert!(sync(&path).is_ok() && sync(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn the_names_that_lead_to_a_path_are_synced_as_far_as_they_may_be_read() {
        let sync_all = |failed: &str, kind: ErrorKind| {
            let synced = std::cell::RefCell::new(Vec::new());
            let sync = |path: &Path| {
                synced.borrow_mut().push(path.display().to_string());
                let is_failed = path == Path::new(failed);
                if is_failed { Err(KvsError::io("cannot sync")(kind.into())) } else { Ok(()) }
            };
            let outcome = sync_ancestors(Path::new("a/b/c"), sync);
            (outcome.is_ok(), synced.take().join(" "))
        };
        let all = (true, "a/b a .".to_owned());
        assert_eq!(sync_all("", ErrorKind::Other), all);
        for of_others in
            [ErrorKind::PermissionDenied, ErrorKind::InvalidInput, ErrorKind::Unsupported]
        {
            assert_eq!(sync_all("a", of_others), all);
        }
        assert_eq!(sync_all("a", ErrorKind::Other), (false, "a/b a".to_owned()));
    }
}
