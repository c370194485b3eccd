//! What is beside a damaged store before it is repaired, and what the data
//! directory's own name may lead through.

use std::fs;
use std::path::{Path, PathBuf};

use kvs::choice::{self, EngineName};
use kvs::{KvStore, KvsEngine, KvsError, Options};

/// A store with one value, set twice, in two segments or more.
fn fill(directory: &Path) -> Vec<PathBuf> {
    let mut options = Options::default();
    options.segment_bytes = kvs::SEGMENT_BYTES_MIN;
    let store = KvStore::open_with(directory, options).unwrap();
    for nth in 0..40 {
        store
            .set("key".to_owned(), if nth < 30 { "old value" } else { "new value" }.to_owned())
            .unwrap();
        store.sync().unwrap();
    }
    drop(store);
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> = entries.filter(|path| path.extension().is_some()).collect();
    segments.sort();
    assert!(segments.len() > 1);
    segments
}

/// The same, with damage in the oldest segment.
fn fill_and_damage(directory: &Path) {
    let oldest = &fill(directory)[0];
    let mut bytes = fs::read(oldest).unwrap();
    bytes[40] ^= 1;
    fs::write(oldest, bytes).unwrap();
}

/// Fails unless the store opens with its newest value.
fn check(directory: &Path) {
    let store = KvStore::open(directory).unwrap();
    assert_eq!(store.get("key".to_owned()).unwrap().as_deref(), Some("new value"));
}

#[test]
fn a_segment_under_another_name_is_lost_and_does_not_bring_back_what_was_overwritten() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kvs");
    let segments = fill(&directory);
    let beyond = directory.join(format!("{:08}.seg", segments.len() + 1));
    fs::copy(&segments[0], &beyond).unwrap();
    let repair = KvStore::repair(&directory).unwrap();
    let told = format!("{}: all of it: it is segment 1 under another name", beyond.display());
    assert_eq!(repair.lost, [told]);
    check(&directory);
}

#[test]
fn what_an_earlier_repair_left_beside_a_damaged_store_is_not_taken_for_its_own() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kvs");
    fill_and_damage(&directory);
    let beside = |name: &str| parent.path().join(name);
    for name in ["kvs.repaired", "kvs.repairing"] {
        fs::create_dir(beside(name)).unwrap();
        fs::write(beside(name).join("left"), "").unwrap();
    }
    let error = KvStore::open(&directory).unwrap_err();
    assert!(error.to_string().contains("its repair was cut off"), "{error}");
    KvStore::repair(&directory).unwrap();
    check(&directory);
    assert!(!directory.join("left").exists());
    assert!(!beside("kvs.repaired").exists() && !beside("kvs.repairing").exists());
}

#[test]
fn what_is_in_the_way_of_a_repair_and_cannot_be_removed_is_told_and_the_store_left_as_it_is() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kvs");
    fill_and_damage(&directory);
    let in_the_way = parent.path().join("kvs.repairing");
    fs::write(&in_the_way, "a file").unwrap();
    let error = KvStore::repair(&directory).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot remove {}", in_the_way.display())));
    assert!(matches!(KvStore::open(&directory), Err(KvsError::Corrupt { .. })));
    fs::remove_file(in_the_way).unwrap();
    KvStore::repair(&directory).unwrap();
    check(&directory);
}

#[test]
fn what_is_in_the_place_of_a_store_whose_repair_was_cut_off_is_not_moved_away() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kvs");
    fill(&parent.path().join("kvs.repaired"));
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("notes"), "a user's").unwrap();
    let error = KvStore::repair(&directory).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot remove {}", directory.display()));
    fs::remove_file(directory.join("notes")).unwrap();
    KvStore::repair(&directory).unwrap();
    check(&directory);
}

#[test]
fn what_a_first_start_that_failed_has_created_is_gone_and_what_was_there_is_not() {
    let parent = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.cache_bytes = usize::MAX;
    for (name, stays) in [("new", false), ("there", true)] {
        let directory = parent.path().join(name);
        stays.then(|| fs::create_dir(&directory).unwrap());
        assert!(choice::open(&directory, EngineName::Kvs, &options).is_err());
        assert_eq!(directory.exists(), stays);
        assert!(!directory.join("kvs").exists());
    }
}

/// The only test here that changes the working directory: all others name theirs whole.
#[test]
fn a_store_may_have_a_bare_name_in_the_working_directory() {
    let parent = tempfile::tempdir().unwrap();
    std::env::set_current_dir(parent.path()).unwrap();
    let directory = Path::new("kvs");
    fill_and_damage(directory);
    let repair = KvStore::repair(directory).unwrap();
    assert_eq!(repair.set_aside.as_deref(), Some(Path::new("kvs.damaged-1")));
    check(directory);
    drop(choice::open(Path::new("data"), EngineName::Kvs, &Options::default()).unwrap());
    check(&parent.path().join("kvs"));
    assert!(parent.path().join("data/kvs").is_dir());
}

#[test]
fn a_data_directory_may_be_named_through_one_that_is_still_to_be_made() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("first/../second");
    drop(choice::open(&directory, EngineName::Kvs, &Options::default()).unwrap());
    assert!(parent.path().join("first").is_dir());
    assert!(parent.path().join("second/kvs").is_dir());
}

#[test]
fn a_file_in_the_place_of_the_data_directory_is_named_and_stays() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    fs::write(&path, "a file").unwrap();
    let Err(error) = choice::open(&path, EngineName::Kvs, &Options::default()) else {
        panic!("a store in a file");
    };
    assert_eq!(error.to_string(), format!("cannot create the directory {}", path.display()));
    assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
}

#[test]
fn a_store_is_repaired_however_its_directory_is_written() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kvs");
    fill_and_damage(&directory);
    let repair = KvStore::repair(&directory.join("")).unwrap();
    assert_eq!(repair.set_aside, Some(parent.path().join("kvs.damaged-1")));
    check(&directory);
}
