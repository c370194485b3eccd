//! What the operating system's file system is asked for, and syncs beside the caller.

use super::*;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::channel;

#[test]
fn files_and_directories_are_their_owners_only() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("directory");
    OsDisk.create_dir(&directory).unwrap();
    OsDisk.create(&directory.join("file")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&directory.join("file"))), (0o700, 0o600));
    fs::write(directory.join(std::ffi::OsStr::from_bytes(b"\xFF")), "").unwrap();
    assert_eq!(OsDisk.list(&directory).unwrap(), ["file"]);
    assert!(OsDisk.create(&directory.join("file")).is_err());
    OsDisk.sync_dir(&directory).unwrap();
    assert!(OsDisk.sync_dir(&parent.path().join("missing")).is_err());
}

#[test]
fn a_file_has_one_lock_and_the_length_it_is_cut_to() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("file");
    let file = OsDisk.create(&path).unwrap();
    assert!(DiskFile::try_lock(&file).unwrap());
    let other = OsDisk.open(&path).unwrap();
    assert!(!DiskFile::try_lock(&other).unwrap());
    file.close_beside();
    write_full(&other, b"0123456789", 5).unwrap();
    DiskFile::truncate(&other, 12).unwrap();
    assert_eq!(DiskFile::len(&other).unwrap(), 12);
    let mut bytes = [7; 10];
    assert_eq!(read_full(&other, &mut bytes, 4).unwrap(), 8);
    assert_eq!(bytes, *b"\x000123456\x07\x07");
}

#[test]
fn a_sync_beside_tells_when_it_has_ended_and_how() {
    let parent = tempfile::tempdir().unwrap();
    let file = OsDisk.create(&parent.path().join("file")).unwrap();
    write_full(&file, b"bytes", 0).unwrap();
    file.sync_beside().unwrap().wait().unwrap();
    for is_failed in [false, true] {
        let (let_end, told) = channel::<()>();
        let syncing = std::thread::spawn(move || {
            let _ = told.recv();
            if is_failed { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
        });
        assert!(!syncing.is_done());
        drop(let_end);
        while !syncing.is_done() {
            std::thread::yield_now();
        }
        assert_eq!(syncing.wait().is_err(), is_failed);
    }
}
