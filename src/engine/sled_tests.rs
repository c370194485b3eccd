//! What the sled engine adds to sled: durable files, the lock, scans and failures.

use super::*;

#[test]
fn what_was_set_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledKvStore::open(dir.path()).unwrap();
    let large = "x".repeat(2 << 20);
    store.set("a".to_owned(), "1".to_owned()).unwrap();
    store.set(String::new(), large.clone()).unwrap();
    store.set("b".to_owned(), "2".to_owned()).unwrap();
    store.remove("b".to_owned()).unwrap();
    assert!(matches!(store.remove("b".to_owned()), Err(KvsError::KeyNotFound)));
    store.sync().unwrap();
    assert!(store.synced_blob.get() > 0);
    drop(store);
    let store = SledKvStore::open(dir.path()).unwrap();
    assert_eq!(store.get("a".to_owned()).unwrap().as_deref(), Some("1"));
    assert_eq!(store.get(String::new()).unwrap(), Some(large));
    assert_eq!(store.get("b".to_owned()).unwrap(), None);
}

#[test]
fn only_the_owner_may_read_sleds_files() {
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

/// With sled's directory of blobs gone, an fsync fails.
#[test]
fn after_a_failed_sync_every_call_of_sled_fails() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledKvStore::open(dir.path()).unwrap();
    store.set("a".to_owned(), "1".to_owned()).unwrap();
    fs::remove_dir_all(dir.path().join("blobs")).unwrap();
    assert!(matches!(store.sync(), Err(KvsError::Io { .. })));
    for result in [
        store.set("a".to_owned(), "2".to_owned()),
        store.get("a".to_owned()).map(drop),
        store.scan(None).map(drop),
        store.sync(),
        store.sync_in_background(),
        store.flush(),
        store.maintain().map(drop),
    ] {
        assert!(matches!(result, Err(KvsError::Failed { .. })), "{result:?}");
    }
}

#[test]
fn an_export_loads_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledKvStore::open(dir.path()).unwrap();
    store.set("b c".to_owned(), "2".to_owned()).unwrap();
    store.set("a".to_owned(), "1\n".to_owned()).unwrap();
    drop(store);
    let mut out = Vec::new();
    assert_eq!(export(dir.path(), &mut out, &mut |_| {}).unwrap(), 0);
    assert_eq!(String::from_utf8(out).unwrap(), "SET a \"1\\n\"\nSET \"b c\" 2\n");
}

#[test]
fn stats_have_syncs_and_size() {
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
fn only_wanted_files_are_fsynced_and_a_missing_one_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["wanted", "other"] {
        fs::write(dir.path().join(name), "").unwrap();
        fs::set_permissions(dir.path().join(name), Permissions::from_mode(0o644)).unwrap();
    }
    std::os::unix::fs::symlink("gone", dir.path().join("missing")).unwrap();
    assert!(sync_files(dir.path(), |name| name != "other").unwrap());
    assert_eq!(mode(&dir.path().join("wanted")), FILE_MODE);
    assert_eq!(mode(&dir.path().join("other")), 0o644);
    assert!(sync_files(&dir.path().join("gone"), |_| true).is_err());
}

/// The threads of a handle that was dropped release sled's lock a little later.
#[test]
fn only_a_held_lock_is_waited_for() {
    let failure = |text: &str| Err(sled::Error::Io(io::Error::other(text.to_owned())));
    let tries = Cell::new(0);
    let open = |wanted: u32, text: &str| {
        tries.set(tries.get() + 1);
        if tries.get() == wanted { Ok(()) } else { failure(text) }
    };
    retry_while_locked(|| open(3, "could not acquire lock on \"db\"")).unwrap();
    assert_eq!(tries.take(), 3);
    assert!(retry_while_locked(|| open(3, "permission denied")).is_err());
    assert_eq!(tries.take(), 1);
}
