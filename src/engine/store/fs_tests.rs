//! The file system of the operating system, as the store uses it.

use super::*;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

#[test]
fn only_the_owner_may_use_files_and_directories() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("deep/directory");
    let fs = OsFs::default();
    fs.create_dir(&directory).unwrap();
    fs.create(&directory.join("file")).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&directory.join("file"))), (0o700, 0o600));
    std::fs::write(directory.join(std::ffi::OsStr::from_bytes(b"\xFF")), "").unwrap();
    assert_eq!(fs.list(&directory).unwrap(), ["file"]);
    assert!(fs.create(&directory.join("file")).is_err());
    FsDir::sync(&fs.open_dir(&directory).unwrap()).unwrap();
    assert!(fs.open_dir(&parent.path().join("missing")).is_err());
}

#[test]
fn a_directory_has_one_lock_and_knows_its_place() {
    let parent = tempfile::tempdir().unwrap();
    let (path, moved) = (parent.path().join("here"), parent.path().join("there"));
    let fs = OsFs::default();
    fs.create_dir(&path).unwrap();
    let [first, second] = [(); 2].map(|()| fs.open_dir(&path).unwrap());
    assert!(FsDir::try_lock(&first).unwrap() && !FsDir::try_lock(&second).unwrap());
    // A copy of the handle, as a forked process has one.
    let copy = first.try_clone().unwrap();
    FsDir::unlock(&first);
    assert!(FsDir::try_lock(&second).unwrap());
    drop(copy);
    assert!(second.is_at(&path).unwrap());
    std::fs::rename(&path, &moved).unwrap();
    assert!(second.is_at(&moved).unwrap() && !second.is_at(&path).unwrap());
    fs.create_dir(&path).unwrap();
    assert!(!second.is_at(&path).unwrap());
}

#[test]
fn reads_and_writes_go_on_until_all_is_done() {
    let parent = tempfile::tempdir().unwrap();
    let file = OsFs::default().create(&parent.path().join("file")).unwrap();
    assert!(matches!(write_full(&file, b"0123456789", 5), (10, Ok(()))));
    FsFile::truncate(&file, 12).unwrap();
    assert_eq!(FsFile::len(&file).unwrap(), 12);
    let mut bytes = [7; 10];
    assert_eq!(read_full(&file, &mut bytes, 4).unwrap(), 8);
    assert_eq!(bytes, *b"\x000123456\x07\x07");
}

/// A file that writes nothing, and reports no error.
struct Stuck;

impl FsFile for Stuck {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn truncate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_write_of_nothing_is_an_error() {
    let (written, result) = write_full(&Stuck, b"bytes", 0);
    assert_eq!((written, result.unwrap_err().kind()), (0, io::ErrorKind::WriteZero));
}

/// A handle that `O_PATH` made cannot be locked.
#[test]
fn a_lock_may_fail() {
    let parent = tempfile::tempdir().unwrap();
    const O_PATH: i32 = 0o10000000;
    let handle = OpenOptions::new().read(true).custom_flags(O_PATH).open(parent.path()).unwrap();
    assert!(FsDir::try_lock(&handle).is_err());
}
