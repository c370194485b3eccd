//! Real damage is told from a torn tail, named, and refused.
//!
//! Stores that were closed cleanly are harmed: each bit flipped, each segment
//! lost, cut at every byte, swapped, copied over another, or replaced by one of
//! another store. Opening them fails and names a file and an offset, and has
//! changed nothing; or it gives the right map. Only the newest segment may be
//! cut without being refused, as a cut at the end of a record looks like a
//! write that never came: then the map is an earlier one.
//!
//! Not told from a store that is whole: one of which all files are replaced by
//! older ones of its own.

mod simulation;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kvs::{KvStore, KvsEngine, KvsError, Options};
use simulation::disk::SimulatedDisk;
use simulation::model::{Map, show};
use simulation::workload::DIRECTORY;

/// The files of a disk.
type Files = BTreeMap<PathBuf, Vec<u8>>;
/// Bytes of a segment's header.
const HEADER_BYTES: usize = 32;

/// Options of a store that has several small segments.
fn options() -> Options {
    let mut options = Options::default();
    options.segment_bytes = 512;
    options.compact_threshold_bytes = 4096;
    options.cache_bytes = 0;
    options
}

/// Writes and overwrites keys, a sync now and then; the map after each write.
fn fill(store: &impl KvsEngine, writes: usize) -> Vec<Map> {
    let mut maps = vec![Map::new()];
    for nth in 0..writes {
        let key = format!("key{}", nth * 7 % 11);
        let mut map = maps[nth].clone();
        if nth % 13 == 12 && map.remove(&key).is_some() {
            store.remove(key).unwrap();
        } else {
            let value = format!("{nth} {}", "v".repeat(nth % 50));
            store.set(key.clone(), value.clone()).unwrap();
            map.insert(key, value);
        }
        if nth % 5 == 0 {
            store.sync().unwrap();
        }
        maps.push(map);
    }
    maps
}

/// A store on a simulated disk that was closed, and the maps on the way to it.
fn closed_store(writes: usize) -> (Files, Vec<Map>) {
    let disk = SimulatedDisk::new(1);
    let store = KvStore::open_on(disk.clone(), DIRECTORY, options()).unwrap();
    let maps = fill(&store, writes);
    drop(store);
    (disk.files(), maps)
}

/// The segments of some files, in order.
fn segments(files: &Files) -> Vec<PathBuf> {
    files.keys().filter(|path| path.extension().is_some()).cloned().collect()
}

/// All that is in a store.
fn found(store: &impl KvsEngine) -> Map {
    let get = |nth| {
        let key = format!("key{nth}");
        Some((key.clone(), store.get(key).unwrap()?))
    };
    let map: Map = (0..11).filter_map(get).collect();
    assert!(store.stats().contains(&("keys", map.len() as u64)), "there are other keys");
    map
}

/// What opening a store of these files gives; a refusal has changed nothing.
fn open(files: &Files) -> Result<Map, KvsError> {
    let disk = SimulatedDisk::from_files(files);
    let opened = KvStore::open_on(disk.clone(), DIRECTORY, options());
    if opened.is_err() {
        assert!(disk.files() == *files, "a refusal has changed the files");
    }
    opened.map(|store| found(&store))
}

/// Fails unless these files are refused, with an error that names one of them.
fn assert_refused(files: &Files, what: &str) -> (PathBuf, u64) {
    match open(files) {
        Err(KvsError::Corrupt { path, offset, .. }) => {
            assert!(path.starts_with(DIRECTORY), "{what}: it named {}", path.display());
            (path, offset)
        }
        Err(error) => panic!("{what}: {error:?}"),
        Ok(map) => panic!("{what}: it opened with {:?}", show(&map)),
    }
}

/// Fails unless these files are refused for damage to `wanted`, at or before `at`.
fn assert_names(files: &Files, wanted: &Path, at: usize, what: &str) {
    let (path, offset) = assert_refused(files, what);
    assert_eq!(path, wanted, "{what}");
    assert!(offset <= at as u64, "{what}: it named byte {offset}");
}

#[test]
fn every_flipped_bit_is_refused_or_harmless() {
    let (files, maps) = closed_store(80);
    let segments = segments(&files);
    assert!(segments.len() > 3);
    let mut harmless = Vec::new();
    for path in &segments {
        for bit in 0..files[path].len() * 8 {
            let mut files = files.clone();
            files.get_mut(path).unwrap()[bit / 8] ^= 1 << (bit % 8);
            match open(&files) {
                Ok(map) => {
                    assert!(map == maps[80], "bit {bit} of {}: {:?}", path.display(), show(&map));
                    harmless.push((path, bit / 8));
                }
                Err(_) => assert_names(&files, path, bit / 8, &format!("bit {bit}")),
            }
        }
    }
    let newest = segments.last().unwrap();
    let last_mark = files[newest].len() - 13;
    assert!(harmless.iter().all(|&(path, at)| path == newest && at >= last_mark), "{harmless:?}");
}

#[test]
fn a_lost_segment_is_refused() {
    let (files, _) = closed_store(150);
    assert!(!files.contains_key(&Path::new(DIRECTORY).join("00000001.seg")), "compacted");
    for path in segments(&files) {
        let mut files = files.clone();
        files.remove(&path);
        let (named, _) = assert_refused(&files, &format!("without {}", path.display()));
        assert_eq!(named, path);
    }
}

#[test]
fn a_store_that_lost_all_its_segments_is_refused() {
    let (mut files, _) = closed_store(150);
    files.retain(|path, _| path.extension().is_none());
    assert_refused(&files, "without segments");
}

/// Wherever the first start was killed, the second has told the lock file of
/// segments, so that losing all of them is not taken for a new store.
#[test]
fn a_store_whose_first_start_was_killed_tells_that_it_lost_its_segments() {
    for changes in 1..20 {
        let first = SimulatedDisk::new(1);
        first.end_after(changes);
        drop(KvStore::open_on(first.clone(), DIRECTORY, options()));
        for second in [first.after_kill(), first.after_power_loss()] {
            drop(KvStore::open_on(second.clone(), DIRECTORY, options()).unwrap());
            let mut files = second.files();
            files.retain(|path, _| path.extension().is_none());
            assert_refused(&files, "without segments");
        }
    }
}

#[test]
fn a_cut_segment_is_refused_unless_a_write_may_never_have_come() {
    let (files, maps) = closed_store(80);
    let segments = segments(&files);
    let (newest, older) = segments.split_last().unwrap();
    for path in older {
        for end in 0..files[path].len() {
            let mut files = files.clone();
            files.get_mut(path).unwrap().truncate(end);
            assert_names(&files, path, end, &format!("{} cut at {end}", path.display()));
        }
    }
    for end in 0..files[newest].len() {
        let mut files = files.clone();
        files.get_mut(newest).unwrap().truncate(end);
        match open(&files) {
            Ok(map) => assert!(end >= HEADER_BYTES && maps.contains(&map), "cut at {end}"),
            Err(_) => assert_names(&files, newest, end, &format!("newest cut at {end}")),
        }
    }
}

/// What an older segment is refused for.
#[test]
fn damage_in_an_older_segment_is_told_from_records_that_are_cut_off() {
    let (files, _) = closed_store(80);
    let older = &segments(&files)[0];
    type Harm = fn(&mut Vec<u8>);
    let harms: [(Harm, &str); 2] = [
        (|bytes| bytes[HEADER_BYTES] ^= 1, "the checksum does not match"),
        (|bytes| bytes.truncate(HEADER_BYTES), "records are cut off at its end"),
    ];
    for (harm, wanted) in harms {
        let mut files = files.clone();
        harm(files.get_mut(older).unwrap());
        match open(&files) {
            Err(error @ KvsError::Corrupt { offset: 32, .. }) => {
                assert!(error.to_string().ends_with(wanted), "{error}");
            }
            opened => panic!("{opened:?}"),
        }
    }
}

#[test]
fn a_segment_in_the_place_of_another_is_refused() {
    let (files, _) = closed_store(150);
    let segments = segments(&files);
    for from in &segments {
        for to in segments.iter().filter(|to| *to != from) {
            let mut copied = files.clone();
            copied.insert(to.clone(), files[from].clone());
            assert_names(&copied, to, 0, "copied");
            copied.insert(from.clone(), files[to].clone());
            assert_names(&copied, from.min(to), 0, "swapped");
        }
    }
    let mut next = files.clone();
    let beyond = Path::new(DIRECTORY).join(format!("{:08}.seg", 1 + number(&segments)));
    next.insert(beyond.clone(), files[&segments[0]].clone());
    assert_refused(&next, "copied behind the newest");
}

/// The number of the newest segment.
fn number(segments: &[PathBuf]) -> u32 {
    segments.last().unwrap().file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

#[test]
fn a_segment_of_another_store_is_refused() {
    let ((files, _), (other, _)) = (closed_store(80), closed_store(80));
    for path in segments(&files) {
        let mut files = files.clone();
        files.insert(path.clone(), other[&path].clone());
        assert_refused(&files, &format!("foreign {}", path.display()));
    }
}

#[test]
fn another_version_and_a_damaged_header_are_named() {
    let (files, _) = closed_store(80);
    for path in segments(&files) {
        for at in [0, 8, 12, 16, 24, 28] {
            let mut files = files.clone();
            files.get_mut(&path).unwrap()[at] ^= 3;
            assert_names(&files, &path, 0, &format!("byte {at} of {}", path.display()));
        }
    }
}

/// Kills a process that has begun a segment and not used it; the files left.
fn killed_while_beginning_a_segment() -> Vec<Files> {
    let mut left = Vec::new();
    for changes in 1.. {
        let disk = SimulatedDisk::new(1);
        disk.end_after(changes);
        let Ok(store) = KvStore::open_on(disk.clone(), DIRECTORY, options()) else { continue };
        for nth in 0..60 {
            let written = store.set(format!("key{}", nth % 11), format!("{nth} vvvvvvvv"));
            let _ = written.and_then(|()| store.sync());
        }
        let files = disk.after_kill().files();
        if files[segments(&files).last().unwrap()].len() <= HEADER_BYTES {
            left.push(files);
        }
        if !disk.has_ended() {
            return left;
        }
    }
    left
}

#[test]
fn damage_before_a_segment_that_was_being_begun_is_refused() {
    for files in killed_while_beginning_a_segment() {
        let segments = segments(&files);
        assert!(open(&files).is_ok(), "it is no damage");
        let Some(previous) = segments.len().checked_sub(2) else { continue };
        let path = &segments[previous];
        for at in 0..files[path].len() - 2 * HEADER_BYTES {
            let mut files = files.clone();
            files.get_mut(path).unwrap()[at] ^= 4;
            assert_names(&files, path, at, &format!("byte {at} of {}", path.display()));
        }
    }
}

/// What is damaged while it is open is an error of that key alone.
#[test]
fn a_value_damaged_while_the_store_runs_is_refused_and_the_rest_goes_on() {
    let parent = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(parent.path(), options()).unwrap();
    store.set("a".to_owned(), "first value".to_owned()).unwrap();
    store.set("b".to_owned(), "second value".to_owned()).unwrap();
    let path = parent.path().join("00000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|window| window == b"first").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    match store.get("a".to_owned()) {
        Err(KvsError::Corrupt { path: named, offset: 32, .. }) => assert_eq!(named, path),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.get("b".to_owned()).unwrap().as_deref(), Some("second value"));
    store.set("a".to_owned(), "third value".to_owned()).unwrap();
    assert_eq!(store.get("a".to_owned()).unwrap().as_deref(), Some("third value"));
}

/// Records that are each intact, in each other's place.
#[test]
fn a_record_of_another_key_is_not_taken_for_this_ones() {
    let parent = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(parent.path(), options()).unwrap();
    store.set("a".to_owned(), "first".to_owned()).unwrap();
    store.set("b".to_owned(), "other".to_owned()).unwrap();
    let path = parent.path().join("00000001.seg");
    let bytes = fs::read(&path).unwrap();
    let (header, records) = bytes.split_at(HEADER_BYTES);
    let (a, b) = records.split_at(records.len() / 2);
    fs::write(&path, [header, b, a].concat()).unwrap();
    for key in ["a", "b"] {
        let error = store.get(key.to_owned()).unwrap_err();
        assert!(error.to_string().ends_with("the record is that of another key"), "{error}");
    }
}

#[test]
fn nothing_may_follow_the_mark_that_a_segment_is_continued() {
    let (files, _) = closed_store(80);
    let older = &segments(&files)[0];
    // An intact record, as it has the salt of this segment.
    let len = HEADER_BYTES + 13 + usize::from(files[older][HEADER_BYTES + 5]);
    let len = len + usize::from(files[older][HEADER_BYTES + 9]);
    let record = files[older][HEADER_BYTES..len].to_vec();
    let mut longer = files.clone();
    let end = files[older].len();
    longer.get_mut(older).unwrap().extend_from_slice(&record);
    let (path, offset) = assert_refused(&longer, "a record after the mark");
    assert_eq!((&path, offset), (older, end as u64));
}

/// Damage that cleaning meets ends the cleaning: what is intact is served, the
/// damaged segment stays, and the next start names it.
fn damage_that_cleaning_meets(harm: fn(&mut Vec<u8>)) {
    let parent = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(parent.path(), options()).unwrap();
    let key = |nth: u32| format!("key {}", nth % 10);
    (0..100).for_each(|nth| store.set(key(nth), "first value".to_owned()).unwrap());
    let path = parent.path().join("00000001.seg");
    assert!(parent.path().join("00000002.seg").exists());
    let mut bytes = fs::read(&path).unwrap();
    harm(&mut bytes);
    fs::write(&path, bytes).unwrap();
    (0..2_000).for_each(|nth| store.set(key(nth), format!("value {nth}")).unwrap());
    assert!(!store.maintain().unwrap());
    assert!(path.exists() && store.stats().contains(&("compacting", 0)));
    for nth in 1_990..2_000 {
        assert_eq!(store.get(key(nth)).unwrap(), Some(format!("value {nth}")));
    }
    drop(store);
    match KvStore::open_with(parent.path(), options()) {
        Err(KvsError::Corrupt { path: named, .. }) => assert_eq!(named, path),
        other => panic!("{other:?}"),
    }
}

#[test]
fn damage_that_cleaning_meets_costs_nothing_but_space() {
    damage_that_cleaning_meets(|bytes| bytes[40] ^= 1);
}

/// There is nothing to be decoded then, and so nothing that is wrong with it.
#[test]
fn a_segment_cut_before_a_record_does_not_hold_up_the_cleaning_for_ever() {
    damage_that_cleaning_meets(|bytes| bytes.truncate(HEADER_BYTES));
}

/// The same on the real file system: one small segment, closed cleanly.
#[test]
fn a_real_segment_is_cut_at_every_byte_and_every_bit_of_it_flipped() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kvs");
    let store = KvStore::open(&directory).unwrap();
    let maps = fill(&store, 12);
    drop(store);
    let path = directory.join("00000001.seg");
    let whole = fs::read(&path).unwrap();
    for end in 0..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        match KvStore::open(&directory) {
            Ok(store) => assert!(end >= HEADER_BYTES && maps.contains(&found(&store)), "{end}"),
            Err(error) => check_refused(&error, &path, &whole[..end]),
        }
        let _ = fs::remove_file(directory.join("00000002.seg"));
    }
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        match KvStore::open(&directory) {
            Ok(store) => assert!(bit / 8 >= whole.len() - 13 && found(&store) == maps[12], "{bit}"),
            Err(error) => check_refused(&error, &path, &bytes),
        }
        let _ = fs::remove_file(directory.join("00000002.seg"));
    }
}

/// Fails unless the error names the file, which is as it was.
fn check_refused(error: &KvsError, path: &Path, bytes: &[u8]) {
    assert!(matches!(error, KvsError::Corrupt { path: named, .. } if named == path), "{error:?}");
    assert!(fs::read(path).unwrap() == bytes, "a refusal has changed the file");
}
