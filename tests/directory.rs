//! The directory of a store is moved, replaced, removed or misnamed while the store is
//! open, or is none of ours. No store touches another one's files.

use std::fs;
use std::path::Path;

use kvs::choice::{self, EngineName};
use kvs::{KvStore, KvsEngine, KvsError, Options};

/// Options of a store that creates and removes segments all the time.
fn tiny() -> Options {
    let mut options = Options::default();
    options.segment_bytes = 512;
    options.compact_threshold_bytes = 4096;
    options.cache_bytes = 0;
    options
}

fn open(path: &Path) -> KvStore {
    KvStore::open_with(path, tiny()).unwrap()
}

/// Sets until an error, or so many times.
fn set_many(store: &KvStore, who: &str, times: u32) -> Result<(), KvsError> {
    (0..times).try_for_each(|nth| store.set(format!("key{}", nth % 50), format!("{who} {nth}")))
}

/// Fails unless every key has a value of this store.
fn check(store: &KvStore, who: &str) {
    for nth in 0..50 {
        let value = store.get(format!("key{nth}")).unwrap().unwrap();
        assert!(value.starts_with(who), "{value}");
    }
}

/// The names and bytes of all files.
fn files(path: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
    let mut files: Vec<_> =
        entries.map(|it| (it.file_name(), fs::read(it.path()).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn a_moved_directory_stops_the_store() {
    let parent = tempfile::tempdir().unwrap();
    let (path, old) = (parent.path().join("data"), parent.path().join("old"));
    let first = open(&path);
    set_many(&first, "first", 500).unwrap();
    fs::rename(&path, &old).unwrap();
    let second = open(&path);
    set_many(&second, "second", 100).unwrap();
    second.sync().unwrap();
    let before = files(&path);
    let error = set_many(&first, "first", 10_000).unwrap_err();
    assert!(error.chain().join(": ").contains("was moved or replaced"), "{:?}", error.chain());
    let error = first.get("key1".to_owned()).unwrap_err();
    assert!(matches!(error, KvsError::Failed { .. }), "{error:?}");
    drop(first);
    assert!(files(&path) == before, "it has touched the other store's files");
    check(&second, "second");
    drop(second);
    check(&open(&path), "second");
    check(&open(&old), "first");
}

#[test]
fn a_flipped_symlink_and_a_removed_directory_stop_the_store() {
    for is_removed in [false, true] {
        let parent = tempfile::tempdir().unwrap();
        let link = parent.path().join("link");
        let [one, two] = ["one", "two"].map(|name| parent.path().join(name));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let store = open(&link);
        set_many(&store, "value", 500).unwrap();
        fs::remove_file(&link).unwrap();
        if !is_removed {
            std::os::unix::fs::symlink(&two, &link).unwrap();
        }
        let error = set_many(&store, "value", 10_000).unwrap_err();
        assert!(error.chain().join(": ").contains("was moved or replaced"), "{error:?}");
        drop(store);
        assert_eq!(fs::read_dir(&two).unwrap().count(), 0);
        check(&open(&one), "value");
    }
}

/// The only test here that changes the working directory. All others name theirs whole.
#[test]
fn a_program_may_change_its_directory() {
    let parent = tempfile::tempdir().unwrap();
    let [here, there] = ["here", "there"].map(|name| parent.path().join(name));
    fs::create_dir(&here).unwrap();
    let other = open(&there.join("db"));
    set_many(&other, "other", 500).unwrap();
    std::env::set_current_dir(&here).unwrap();
    let store = open(Path::new("db"));
    set_many(&store, "value", 500).unwrap();
    std::env::set_current_dir(&there).unwrap();
    set_many(&store, "value", 5_000).unwrap();
    check(&store, "value");
    check(&other, "other");
    drop((store, other));
    check(&open(&here.join("db")), "value");
    check(&open(&there.join("db")), "other");
}

#[test]
fn paths_that_cannot_be_created_are_named() {
    let parent = tempfile::tempdir().unwrap();
    let dangling = parent.path().join("dangling");
    std::os::unix::fs::symlink("/nowhere/at/all", &dangling).unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "text").unwrap();
    for path in [dangling.join("data"), dangling.clone(), file.join("data"), file.clone()] {
        let error = KvStore::open(&path).unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        let error = choice::open(&path, EngineName::Sled, &Options::default()).err().unwrap();
        assert!(matches!(error, KvsError::Io { .. } | KvsError::EngineUnusable { .. }), "{error}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "text");
    let through = parent.path().join("first/../second");
    drop(open(&through));
    assert!(parent.path().join("second/00000001.kvs").exists());
}

#[test]
fn other_files_are_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let names = ["notes.txt", "db", "1.kvs", "00000001.kvs.bak", "lock", "00000000.kvs"];
    for name in names {
        fs::write(parent.path().join(name), name).unwrap();
    }
    let store = open(parent.path());
    set_many(&store, "value", 2_000).unwrap();
    drop(store);
    check(&open(parent.path()), "value");
    for name in names {
        assert_eq!(fs::read_to_string(parent.path().join(name)).unwrap(), name);
    }
}

/// A name with a number far from those of the log is no torn tail.
#[test]
fn a_file_that_is_named_like_a_segment_is_not_removed() {
    let parent = tempfile::tempdir().unwrap();
    drop(open(parent.path()));
    let notes = parent.path().join("20261128.kvs");
    fs::write(&notes, "notes of the day").unwrap();
    let opened = KvStore::open(parent.path()).map(drop);
    assert!(matches!(opened, Err(KvsError::Corrupt { .. })), "{opened:?}");
    assert_eq!(fs::read_to_string(&notes).unwrap(), "notes of the day");
    fs::remove_file(notes).unwrap();
    open(parent.path());
}

/// A start that fails removes nothing, not even what it has created: another process
/// may have opened it meanwhile.
#[test]
fn a_failed_start_removes_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    let store = open(&path);
    set_many(&store, "value", 200).unwrap();
    let before = files(&path);
    let mut options = Options::default();
    options.cache_bytes = usize::MAX;
    assert!(choice::open(&path, EngineName::Kvs, &options).is_err());
    assert!(choice::open(&path, EngineName::Sled, &Options::default()).is_err());
    assert!(choice::open(&path, EngineName::Kvs, &Options::default()).is_err());
    assert!(files(&path) == before);
    check(&store, "value");
}

/// A child process inherits the handle that carries the lock.
#[test]
fn a_store_opens_again_after_a_fork() {
    let parent = tempfile::tempdir().unwrap();
    let store = open(parent.path());
    set_many(&store, "value", 100).unwrap();
    // A copy of every descriptor without close-on-exec is what a forked child has.
    let lock = fs::read_dir("/proc/self/fd").map(|entries| {
        let is_it = |path: &std::path::PathBuf| {
            fs::read_link(path).is_ok_and(|target| target == parent.path())
        };
        entries.map(|entry| entry.unwrap().path()).find(is_it).unwrap()
    });
    let Ok(lock) = lock else { return println!("skipped: there is no /proc here") };
    let number: i32 = lock.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let copy = duplicate(number);
    drop(store);
    check(&open(parent.path()), "value");
    drop(copy);
}

/// A copy of a descriptor, as a child process has one: of the same open file.
fn duplicate(number: i32) -> std::os::fd::OwnedFd {
    use std::os::fd::{BorrowedFd, OwnedFd};
    #[expect(unsafe_code, reason = "a number out of /proc has no safe handle")]
    // SAFETY: the store that owns the descriptor is open as long as it is borrowed.
    let borrowed: BorrowedFd<'_> = unsafe { BorrowedFd::borrow_raw(number) };
    let owned: OwnedFd = borrowed.try_clone_to_owned().unwrap();
    owned
}
