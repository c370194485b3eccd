//! What the sled engine adds to sled: durable files, the lock, scans and failures.

use std::fs;
use std::os::unix::fs::symlink;
use std::thread;

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
    let blob = store.synced_blob.get();
    assert!(dir.path().join("blobs").join(blob.to_string()).exists());
    store.set("c".to_owned(), large.clone()).unwrap();
    store.sync().unwrap();
    assert!(store.synced_blob.get() > blob);
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
        store.remove("a".to_owned()),
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
    assert_eq!(SledKvStore::export(dir.path(), &mut out, &mut |_| {}).unwrap(), 0);
    assert_eq!(String::from_utf8(out).unwrap(), "SET a \"1\\n\"\nSET \"b c\" 2\n");
}

#[test]
fn an_export_skips_and_counts_what_is_not_utf_8() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledKvStore::open(dir.path()).unwrap();
    store.db.insert(b"\xff", "1").unwrap();
    store.db.insert("a", b"\xff").unwrap();
    store.db.insert("b", "2").unwrap();
    drop(store);
    let (mut out, mut reports) = (Vec::new(), 0);
    assert_eq!(SledKvStore::export(dir.path(), &mut out, &mut |_| reports += 1).unwrap(), 2);
    assert_eq!((reports, &*out), (2, &b"SET b 2\n"[..]));
}

#[test]
fn stats_have_the_size() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledKvStore::open(dir.path()).unwrap();
    store.set("a".to_owned(), "1".to_owned()).unwrap();
    store.sync().unwrap();
    let stats = store.stats();
    assert!(matches!(stats[..], [("disk_bytes", 1..)]), "{stats:?}");
}

#[test]
fn a_file_that_sled_removes_meanwhile_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("here"), "").unwrap();
    symlink("nowhere", dir.path().join("gone")).unwrap();
    sync_files(dir.path(), |_| true).unwrap();
    assert_eq!(mode(&dir.path().join("here")), FILE_MODE);
}

/// The threads of a handle that was dropped release sled's lock a little later.
#[test]
fn only_a_held_lock_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let db = sled::open(dir.path()).unwrap();
    let release = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        drop(db);
    });
    drop(SledKvStore::open(dir.path()).unwrap());
    release.join().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("db")).unwrap();
    let start = Instant::now();
    assert!(matches!(SledKvStore::open(dir.path()), Err(KvsError::Engine { .. })));
    assert!(start.elapsed() < LOCK_RELEASE_MAX);
}
