//! What the sled engine adds to sled: files, the lock, and refusal.

use super::*;

#[test]
fn keeps_what_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledKvStore::open(dir.path()).unwrap();
    let large = "x".repeat(2 << 20);
    store.set("a".to_owned(), "1".to_owned()).unwrap();
    store.set(String::new(), large.clone()).unwrap();
    store.set("b".to_owned(), "2".to_owned()).unwrap();
    store.remove("b".to_owned()).unwrap();
    assert!(matches!(store.remove("b".to_owned()), Err(KvsError::KeyNotFound)));
    store.sync().unwrap();
    assert_eq!(store.synced_blobs.borrow().len(), 1);
    drop(store);
    let store = SledKvStore::open(dir.path()).unwrap();
    assert_eq!(store.get("a".to_owned()).unwrap().as_deref(), Some("1"));
    assert_eq!(store.get(String::new()).unwrap(), Some(large));
    assert_eq!(store.get("b".to_owned()).unwrap(), None);
}

#[test]
fn a_second_handle_is_told_who_has_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let _first = SledKvStore::open(dir.path()).unwrap();
    let error = SledKvStore::open(dir.path()).unwrap_err();
    let me = std::process::id();
    assert!(matches!(error, KvsError::InUse { pid: Some(pid), .. } if pid == me));
}

#[test]
fn nobody_else_may_read_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sled");
    let store = SledKvStore::open(&path).unwrap();
    store.set("a".to_owned(), "x".repeat(2 << 20)).unwrap();
    store.sync().unwrap();
    for directory in [&path, &path.join("blobs")] {
        assert_eq!(mode(directory), 0o700);
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            assert!(path.is_dir() || mode(&path) == FILE_MODE, "{}", path.display());
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn after_a_failed_sync_no_write_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledKvStore::open(dir.path()).unwrap();
    store.set("a".to_owned(), "1".to_owned()).unwrap();
    fs::remove_dir_all(dir.path().join("blobs")).unwrap();
    assert!(store.sync().is_err());
    for refused in [store.set("a".to_owned(), "2".to_owned()), store.sync(), store.flush()] {
        assert!(matches!(refused, Err(KvsError::WritesRefused { .. })));
    }
    assert_eq!(store.get("a".to_owned()).unwrap().as_deref(), Some("1"));
}

#[test]
fn it_tells_its_syncs_and_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledKvStore::open(dir.path()).unwrap();
    store.set("a".to_owned(), "1".to_owned()).unwrap();
    let before = store.stats();
    store.sync().unwrap();
    store.sync().unwrap();
    let stats = store.stats();
    assert_eq!(stats[0], ("syncs", before[0].1 + 2));
    assert!(matches!(stats[1..], [("disk_bytes", 1..)]), "{stats:?}");
}

#[test]
fn a_file_that_is_gone_meanwhile_is_no_failure_and_any_other_is() {
    let dir = tempfile::tempdir().unwrap();
    let failed = |kind: io::ErrorKind| unless_gone(Err(kind.into()));
    assert_eq!(failed(io::ErrorKind::NotFound).unwrap(), None);
    assert_eq!(unless_gone(sync_private(&dir.path().join("gone"))).unwrap(), None);
    assert_eq!(unless_gone(sync_private(dir.path())).unwrap(), Some(()));
    assert!(failed(io::ErrorKind::PermissionDenied).is_err());
}

/// A handle that was dropped lets go of sled's own lock a little later.
#[test]
fn a_lock_that_is_still_held_is_waited_for_and_no_other_failure_is() {
    let failure = |text: &str| Err(sled::Error::Io(io::Error::other(text.to_owned())));
    let tries = Cell::new(0);
    let open = |wanted: u32, text: &str| {
        tries.set(tries.get() + 1);
        if tries.get() == wanted { Ok(()) } else { failure(text) }
    };
    await_lock(|| open(3, "could not acquire lock on \"db\"")).unwrap();
    assert_eq!(tries.take(), 3);
    assert!(await_lock(|| open(3, "permission denied")).is_err());
    assert_eq!(tries.take(), 1);
}
