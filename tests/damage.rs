//! Real damage is told from a torn tail: every flipped bit, cut, and segment
//! that is lost, renamed, copied or foreign is refused with its file's name, or
//! the store holds exactly what it held. A refusal changes nothing.

#[path = "support/random.rs"]
mod random;
#[path = "support/simulated_disk.rs"]
mod simulated_disk;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kvs::{KvStore, KvsEngine, KvsError, Options};
use simulated_disk::{EIO, ENOSPC, Plan, SimulatedDisk};

/// The files of a disk.
type Files = BTreeMap<PathBuf, Vec<u8>>;
/// What is in a store.
type Map = BTreeMap<String, String>;

/// Keys that there are.
const KEYS: usize = 8;

/// Options with which there are several segments.
fn options() -> Options {
    let mut options = Options::default();
    options.segment_bytes = kvs::SEGMENT_BYTES_MIN;
    options
}

/// Opens the store on a disk.
fn open(disk: &SimulatedDisk) -> kvs::Result<KvStore<SimulatedDisk>> {
    KvStore::open_on(disk.clone(), "/kvs", options())
}

/// What is in a store.
fn contents(store: &KvStore<SimulatedDisk>) -> Map {
    let keys = (0..KEYS).map(|nth| format!("key{nth}"));
    keys.filter_map(|key| Some((key.clone(), store.get(key).unwrap()?))).collect()
}

/// The files of a store of three segments that was closed, and what it held
/// after each write.
fn closed_store_and_states() -> (Files, Vec<Map>) {
    let disk = SimulatedDisk::new(Plan::Work);
    let store = open(&disk).unwrap();
    let mut states = vec![Map::new()];
    for nth in 0..40 {
        store.set(format!("key{}", nth % KEYS), format!("value {nth}")).unwrap();
        states.push(contents(&store));
        if nth % 4 == 0 {
            store.sync().unwrap();
        }
    }
    store.remove("key3".to_owned()).unwrap();
    states.push(contents(&store));
    drop(store);
    let files = disk.files();
    assert_eq!(segments(&files).len(), 3, "{:?}", files.keys());
    (files, states)
}

/// The files of such a store, and what it holds at the end.
fn closed_store() -> (Files, Map) {
    let (files, mut states) = closed_store_and_states();
    (files, states.pop().unwrap())
}

/// The segments among some files.
fn segments(files: &Files) -> Vec<PathBuf> {
    let is_segment = |path: &&PathBuf| path.extension().is_some();
    files.keys().filter(is_segment).cloned().collect()
}

/// What opening these files comes to: a map, or the path that is named as
/// damaged, with nothing changed.
fn outcome(files: &Files) -> Result<Map, PathBuf> {
    let disk = SimulatedDisk::with_files(files);
    match open(&disk) {
        Ok(store) => Ok(contents(&store)),
        Err(KvsError::Corrupt { path, offset, reason }) => {
            assert_eq!(disk.files(), *files, "{}, {offset}, {reason}", path.display());
            Err(path)
        }
        Err(error) => panic!("{}", error.chain().join(": ")),
    }
}

#[test]
fn every_flipped_bit_is_refused_or_harmless() {
    let (files, map) = closed_store();
    let (mut refused, mut harmless) = (0, 0);
    for path in segments(&files) {
        for bit in 0..files[&path].len() * 8 {
            let mut files = files.clone();
            files.get_mut(&path).unwrap()[bit / 8] ^= 1 << (bit % 8);
            match outcome(&files) {
                Err(named) => {
                    assert_eq!(named, path);
                    refused += 1;
                }
                Ok(found) => {
                    assert_eq!(found, map, "bit {bit} of {}", path.display());
                    harmless += 1;
                }
            }
        }
    }
    // The last mark, 13 bytes, is all that a store can do without.
    assert_eq!(harmless, 13 * 8);
    println!("{refused} flipped bits were refused");
}

#[test]
fn a_cut_is_refused_but_in_the_newest_segment_whose_rest_is_kept() {
    let (files, states) = closed_store_and_states();
    let paths = segments(&files);
    for (nth, path) in paths.iter().enumerate() {
        for len in 0..files[path].len() {
            let mut files = files.clone();
            files.get_mut(path).unwrap().truncate(len);
            match outcome(&files) {
                Err(_) if nth + 1 < paths.len() || len < 32 => {}
                Ok(found) if nth + 1 == paths.len() && states.contains(&found) => {}
                outcome => panic!("cut {} to {len}: {outcome:?}", path.display()),
            }
        }
    }
}

#[test]
fn a_segment_that_is_lost_is_missed() {
    let (files, _) = closed_store();
    for path in segments(&files) {
        let mut files = files.clone();
        files.remove(&path);
        assert_eq!(outcome(&files), Err(path));
    }
    let mut none = files.clone();
    none.retain(|path, _| path.extension().is_none());
    assert_eq!(outcome(&none), Err(PathBuf::from("/kvs")));
}

#[test]
fn a_segment_under_another_name_is_refused() {
    let (files, _) = closed_store();
    let paths = segments(&files);
    for a in &paths {
        for b in paths.iter().filter(|b| *b != a) {
            let mut copied = files.clone();
            copied.insert(b.clone(), files[a].clone());
            assert!(outcome(&copied).is_err(), "{} copied to {}", a.display(), b.display());
            let mut swapped = copied;
            swapped.insert(a.clone(), files[b].clone());
            assert!(outcome(&swapped).is_err(), "{} and {} swapped", a.display(), b.display());
        }
        let mut added = files.clone();
        added.insert(PathBuf::from("/kvs/00000004.seg"), files[a].clone());
        assert!(outcome(&added).is_err(), "{} copied to the end", a.display());
    }
}

#[test]
fn a_segment_of_another_store_is_refused() {
    let ((files, _), (other, _)) = (closed_store(), closed_store());
    for path in segments(&files) {
        let mut mixed = files.clone();
        mixed.insert(path.clone(), other[&path].clone());
        assert!(outcome(&mixed).is_err(), "{}", path.display());
    }
}

#[test]
fn a_clean_start_writes_nothing_but_who_holds_the_directory() {
    let (files, map) = closed_store();
    let disk = SimulatedDisk::with_files(&files);
    let store = open(&disk).unwrap();
    assert_eq!(contents(&store), map);
    drop(store);
    assert_eq!(disk.files(), files);
}

#[test]
fn records_left_over_from_another_segment_are_none() {
    let (files, map) = closed_store();
    let paths = segments(&files);
    for old in &paths[..2] {
        // A file system may hand out a block that an older segment was in.
        let left_over = files[old][32..].to_vec();
        let mut files = files.clone();
        files.get_mut(&paths[2]).unwrap().extend(left_over);
        assert_eq!(outcome(&files), Ok(map.clone()));
    }
}

#[test]
fn what_was_cut_off_never_comes_back_behind_newer_records() {
    let mut options = Options::default();
    options.buffered = true;
    // The second record of each batch begins a page of its own.
    let first_page = |byte: &str| byte.repeat(4_096 - 32 - 13 - "key0".len());
    for seed in 0..200 {
        let disk = SimulatedDisk::new(Plan::Work);
        let store = KvStore::open_on(disk.clone(), "/kvs", options.clone()).unwrap();
        store.set("key0".to_owned(), first_page("o")).unwrap();
        store.set("key1".to_owned(), "refused".to_owned()).unwrap();
        disk.set_plan(Plan::Fail(1, ENOSPC));
        store.flush().unwrap_err();
        disk.set_plan(Plan::Work);
        store.set("key0".to_owned(), first_page("n")).unwrap();
        store.set("key2".to_owned(), "new".to_owned()).unwrap();
        store.flush().unwrap();
        let disk = disk.after_power_loss(seed, Plan::Work);
        let store = KvStore::open_on(disk, "/kvs", options.clone()).unwrap();
        assert_eq!(store.get("key1".to_owned()).unwrap(), None, "seed {seed}");
    }
}

#[test]
fn a_value_that_is_damaged_while_the_store_runs_is_an_error_and_the_rest_is_served() {
    let disk = SimulatedDisk::new(Plan::Work);
    let mut options = options();
    options.cache_bytes = 0;
    let store = KvStore::open_on(disk.clone(), "/kvs", options).unwrap();
    store.set("key0".to_owned(), "first".to_owned()).unwrap();
    store.set("key1".to_owned(), "second".to_owned()).unwrap();
    disk.flip_bit(Path::new("/kvs/00000001.seg"), 32 + 13 + 4, 0);
    match store.get("key0".to_owned()) {
        Err(KvsError::Corrupt { path, offset: 32, .. }) => {
            assert_eq!(path, Path::new("/kvs/00000001.seg"));
        }
        got => panic!("{got:?}"),
    }
    assert_eq!(store.get("key1".to_owned()).unwrap(), Some("second".to_owned()));
}

#[test]
fn after_a_failed_sync_no_write_is_accepted_and_reads_go_on() {
    for call in 1..=2 {
        let disk = SimulatedDisk::new(Plan::Work);
        let mut options = options();
        options.buffered = true;
        let store = KvStore::open_on(disk.clone(), "/kvs", options).unwrap();
        store.set("key0".to_owned(), "kept".to_owned()).unwrap();
        store.sync().unwrap();
        store.set("key0".to_owned(), "refused".to_owned()).unwrap();
        // The first call is the write, the second the sync.
        disk.set_plan(Plan::Fail(call, EIO));
        let error = store.sync().unwrap_err();
        assert!(matches!(error, KvsError::Io { .. }), "{error}");
        assert_eq!(store.get("key0".to_owned()).unwrap(), Some("kept".to_owned()));
        let again = store.set("key0".to_owned(), "again".to_owned()).and_then(|()| store.sync());
        match (call, again) {
            (1, Ok(())) => {}
            (2, Err(error @ KvsError::WritesRefused { .. })) => {
                let told = "no writes are accepted until the store is opened anew: \
                    cannot sync /kvs/00000001.seg: ";
                assert!(error.to_string().starts_with(told), "{error}");
            }
            (_, again) => panic!("call {call}: {again:?}"),
        }
    }
}
