//! Directories that only their owner may enter.

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

/// Puts the names in a directory on the disk.
pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(KvsError::io(format!("cannot sync the directory {}", path.display())))
}
