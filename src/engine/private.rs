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
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
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
/// not read it has not made either. `sync` does it for one directory.
pub(super) fn sync_ancestors(path: &Path, sync: impl Fn(&Path) -> Result<()>) -> Result<()> {
    for above in path.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match sync(above) {
            Err(KvsError::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Puts the names in a directory on the disk.
pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(KvsError::io(format!("cannot sync the directory {}", path.display())))
}
