//! Corruption is told from a torn tail, named, and refused.
//!
//! Stores that were closed are harmed: each bit flipped, each segment lost, cut at every
//! byte, swapped, copied over another, or replaced by one of another store. Opening them
//! fails, names a file and an offset, and changes nothing; or it gives the right map.
//! What is behind the last record that says what is on disk may be lost: the map is an
//! earlier one then.
//!
//! Not told from a store that is whole: one that has lost its newest segment, or all of
//! them, and one whose files are all replaced by older ones of its own.

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
const HEADER_BYTES: usize = 36;
/// Bytes of the checkpoint with which a closed store ends.
const CHECKPOINT_BYTES: usize = 24;

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

/// The same without a sync.
fn fill_without_sync(store: &impl KvsEngine, writes: usize) -> Vec<Map> {
    let mut maps = vec![Map::new()];
    for nth in 0..writes {
        let (key, value) = (format!("key{}", nth * 7 % 11), format!("{nth} vvvvv"));
        store.set(key.clone(), value.clone()).unwrap();
        let mut map = maps[nth].clone();
        map.insert(key, value);
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
    files.keys().cloned().collect()
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
        // A bit of the version.
        Err(KvsError::OtherVersion { path, .. }) => (path, 0),
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
fn every_flipped_bit_is_refused_or_unsynced() {
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
    let last = files[newest].len() - CHECKPOINT_BYTES;
    assert!(harmless.iter().all(|&(path, at)| path == newest && at >= last), "{harmless:?}");
}

#[test]
fn a_lost_segment_is_refused() {
    let (files, maps) = closed_store(150);
    assert!(!files.contains_key(&Path::new(DIRECTORY).join("00000001.kvs")), "compacted");
    let segments = segments(&files);
    for path in &segments {
        let mut files = files.clone();
        files.remove(path);
        if Some(path) == segments.last() {
            assert!(maps.contains(&open(&files).unwrap()));
            continue;
        }
        let (named, _) = assert_refused(&files, &format!("without {}", path.display()));
        assert_eq!(named, *path);
    }
}

#[test]
fn a_cut_segment_is_refused_unless_it_is_the_newest() {
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
            Ok(map) => assert!(maps.contains(&map), "cut at {end}"),
            Err(error) => panic!("newest cut at {end}: {error}"),
        }
    }
}

/// The error says what is wrong, how that is known, and what to do.
#[test]
fn an_error_names_the_damage_and_the_next_step() {
    let (files, _) = closed_store(80);
    let older = &segments(&files)[0];
    type Harm = fn(&mut Vec<u8>);
    let harms: [(Harm, &str); 3] = [
        (|bytes| bytes[HEADER_BYTES] ^= 1, "the header checksum of a record does not match"),
        (|bytes| bytes[HEADER_BYTES + 17] ^= 1, "the body checksum of a record does not match"),
        (|bytes| bytes.truncate(HEADER_BYTES), "the next segment says that this one has"),
    ];
    for (harm, wanted) in harms {
        let mut files = files.clone();
        harm(files.get_mut(older).unwrap());
        match open(&files) {
            Err(error @ KvsError::Corrupt { offset: 36, .. }) => {
                let text = error.to_string();
                assert!(text.contains(wanted) && text.contains("had been on disk"), "{text}");
                assert!(text.ends_with("--export saves it"), "{text}");
            }
            opened => panic!("{opened:?}"),
        }
    }
}

#[test]
fn a_segment_in_the_place_of_another_is_refused() {
    let (files, maps) = closed_store(150);
    let segments = segments(&files);
    let newest = segments.last().unwrap();
    for from in &segments {
        for to in segments.iter().filter(|to| *to != from) {
            let mut copied = files.clone();
            copied.insert(to.clone(), files[from].clone());
            if to == newest {
                assert!(maps.contains(&open(&copied).unwrap()), "as if it were lost");
            } else {
                assert_names(&copied, to, 0, "copied");
            }
            copied.insert(from.clone(), files[to].clone());
            if from == newest || to == newest {
                assert!(open(&copied).map_or(true, |map| maps.contains(&map)), "swapped");
            } else {
                assert_names(&copied, from.min(to), 0, "swapped");
            }
        }
    }
    let mut next = files.clone();
    let beyond = Path::new(DIRECTORY).join(format!("{:08}.kvs", 1 + number(&segments)));
    next.insert(beyond.clone(), files[&segments[0]].clone());
    assert!(open(&next).unwrap() == *maps.last().unwrap(), "copied behind the newest");
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
        for at in [0, 8, 12, 16, 24, 28, 32] {
            let mut files = files.clone();
            files.get_mut(&path).unwrap()[at] ^= 3;
            assert_names(&files, &path, 0, &format!("byte {at} of {}", path.display()));
        }
    }
}

/// A disk on which nobody called `sync`, after 3,000 writes and a kill. Full segments
/// were fsynced in the background.
#[test]
fn a_flipped_bit_loses_no_more_than_what_was_unsynced() {
    let disk = SimulatedDisk::new(1);
    let mut options = options();
    options.segment_bytes = 8 << 10;
    options.compact_threshold_bytes = 1 << 30;
    let store = KvStore::open_on(disk.clone(), DIRECTORY, options).unwrap();
    let maps = fill_without_sync(&store, 3_000);
    let files = disk.after_kill().files();
    let segments: Vec<_> =
        segments(&files).into_iter().filter(|it| !it.ends_with("reserve.kvs")).collect();
    assert!(segments.len() > 4);
    for (nth, path) in segments.iter().enumerate() {
        for at in (0..files[path].len()).step_by(37) {
            let mut files = files.clone();
            files.get_mut(path).unwrap()[at] ^= 1 << (at % 8);
            match open(&files) {
                Err(KvsError::Corrupt { .. }) => {}
                Ok(map) => {
                    assert!(nth + 2 >= segments.len(), "{} at {at}", path.display());
                    assert!(maps.contains(&map));
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

/// The copy of an old record is as durable as that record was, once the segment that held it
/// is gone: whatever damages it is no torn tail.
#[test]
fn a_flipped_bit_in_a_copy_loses_nothing_that_was_synced() {
    let disk = SimulatedDisk::new(1);
    let mut options = options();
    options.buffered = true;
    let store = KvStore::open_on(disk.clone(), DIRECTORY, options).unwrap();
    store.set("key10".to_owned(), "old".to_owned()).unwrap();
    store.sync().unwrap();
    let (mut oldest, mut removals) = (segments(&disk.files())[0].clone(), 0);
    for nth in 0..300 {
        let value = format!("{nth} {}", "v".repeat(40));
        store.set(format!("key{}", nth % 7), value).unwrap();
        store.sync().unwrap();
        // Until what runs in the background has ended.
        (0..20).for_each(|_| store.flush().unwrap());
        let mut files = disk.files();
        files.retain(|path, _| !path.ends_with("reserve.kvs"));
        let first = segments(&files)[0].clone();
        if first == oldest {
            continue;
        }
        oldest = first;
        removals += 1;
        let newest = segments(&files).pop().unwrap();
        for at in HEADER_BYTES..files[&newest].len() {
            let mut damaged = files.clone();
            damaged.get_mut(&newest).unwrap()[at] ^= 1;
            if let Ok(map) = open(&damaged) {
                assert_eq!(map.get("key10").map(String::as_str), Some("old"), "{nth} at {at}");
            }
        }
    }
    assert!(removals > 5, "{removals} removals");
}

/// What is damaged while it is open is an error of that key alone.
#[test]
fn a_damaged_value_is_an_error_of_its_key() {
    let parent = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(parent.path(), options()).unwrap();
    store.set("a".to_owned(), "first value".to_owned()).unwrap();
    store.set("b".to_owned(), "second value".to_owned()).unwrap();
    let path = parent.path().join("00000001.kvs");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|window| window == b"first").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    match store.get("a".to_owned()) {
        Err(KvsError::Corrupt { path: named, offset: 36, .. }) => assert_eq!(named, path),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.get("b".to_owned()).unwrap().as_deref(), Some("second value"));
    store.set("a".to_owned(), "third value".to_owned()).unwrap();
    assert_eq!(store.get("a".to_owned()).unwrap().as_deref(), Some("third value"));
}

/// Records that are each intact, in each other's place.
#[test]
fn a_record_of_another_key_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(parent.path(), options()).unwrap();
    store.set("a".to_owned(), "first".to_owned()).unwrap();
    store.set("b".to_owned(), "other".to_owned()).unwrap();
    let path = parent.path().join("00000001.kvs");
    let bytes = fs::read(&path).unwrap();
    let (header, records) = bytes.split_at(HEADER_BYTES);
    // Both records have a key of one byte and a value of five.
    let (a, b) = records[..44].split_at(22);
    fs::write(&path, [header, b, a].concat()).unwrap();
    for key in ["a", "b"] {
        let error = store.get(key.to_owned()).unwrap_err();
        assert!(error.to_string().ends_with("the record has another key"), "{error}");
    }
}

/// A damaged header, and records in each other's place.
#[test]
fn a_scan_finds_damage() {
    for harm in [
        |bytes: &mut Vec<u8>| bytes[37] ^= 1,
        |bytes: &mut Vec<u8>| {
            let (a, b) = (bytes[36..58].to_vec(), bytes[58..80].to_vec());
            bytes[36..80].copy_from_slice(&[b, a].concat());
        },
    ] as [fn(&mut Vec<u8>); 2]
    {
        let parent = tempfile::tempdir().unwrap();
        let store = KvStore::open_with(parent.path(), options()).unwrap();
        store.set("a".to_owned(), "first".to_owned()).unwrap();
        store.set("b".to_owned(), "other".to_owned()).unwrap();
        let path = parent.path().join("00000001.kvs");
        let mut bytes = fs::read(&path).unwrap();
        harm(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let error = store.scan(None).unwrap_err();
        assert!(matches!(error, KvsError::Corrupt { .. }), "{error:?}");
    }
}

/// The header of the next segment says where a segment ends. What follows there was
/// preallocated, and is truncated.
#[test]
fn bytes_behind_the_stated_length_are_no_records() {
    let (files, maps) = closed_store(80);
    let older = &segments(&files)[0];
    let bytes = files[older].clone();
    for more in [vec![0; 500], bytes[HEADER_BYTES..].to_vec()] {
        let mut longer = files.clone();
        longer.get_mut(older).unwrap().extend_from_slice(&more);
        assert!(open(&longer).unwrap() == maps[80]);
    }
}

/// A segment of a newer version is the newest one, or the only one.
#[test]
fn a_newer_format_is_no_damage() {
    let (files, _) = closed_store(80);
    let mut newer = files.clone();
    let bytes = newer.get_mut(segments(&files).last().unwrap()).unwrap();
    // The version, and the checksum that goes with it.
    bytes[8] = 3;
    bytes[32] ^= 1;
    match open(&newer) {
        Err(error @ KvsError::OtherVersion { .. }) => {
            assert!(error.to_string().contains("format 3"), "{error}");
        }
        opened => panic!("{opened:?}"),
    }
}

/// After a power failure, a new segment may have the blocks of a removed one with the same
/// number. Its header states a length that the segment before it had at that time. That
/// one may still end with a record that names the removed segment, or not end yet.
#[test]
fn a_header_of_another_time_cuts_nothing_off() {
    for (names_the_removed, is_full) in [(false, true), (true, true), (false, false)] {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let open = |name: &str| KvStore::open_with(path(name), options()).unwrap();
        let copy = |from: &str, to: &str| {
            fs::create_dir(path(to)).unwrap();
            for file in fs::read_dir(path(from)).unwrap().map(|entry| entry.unwrap()) {
                fs::copy(file.path(), path(to).join(file.file_name())).unwrap();
            }
        };
        let set = |store: &KvStore, key: &str, len: usize| {
            store.set(key.to_owned(), "v".repeat(len)).unwrap();
            store.sync().unwrap();
        };
        set(&open("base"), "first", 10);
        copy("base", "earlier");
        set(&open("earlier"), "long", 400);
        copy(if names_the_removed { "earlier" } else { "base" }, "now");
        let _ = fs::remove_file(path("now/00000002.kvs"));
        let store = open("now");
        ["second", "third"].iter().for_each(|key| set(&store, key, 50));
        if is_full {
            store.set("other".to_owned(), "v".repeat(400)).unwrap();
        }
        copy("now", "after");
        fs::copy(path("earlier/00000002.kvs"), path("after/00000002.kvs")).unwrap();
        let store = open("after");
        for key in ["first", "second", "third"] {
            let found = store.get(key.to_owned()).unwrap();
            assert!(found.is_some(), "{key}, {names_the_removed}, {is_full}");
        }
        assert_eq!(store.get("long".to_owned()).unwrap(), None);
    }
}

/// Damage that cleaning meets ends compaction: what is intact is served, the damaged
/// segment stays, and the next start names it.
#[test]
fn damage_ends_compaction_and_keeps_the_segment() {
    let harms: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes[HEADER_BYTES + 20] ^= 1,
        // The first record, one with a damaged key, and all of them.
        |bytes| bytes[40] ^= 1,
        |bytes| bytes[HEADER_BYTES + 16] ^= 1,
        |bytes| bytes.truncate(HEADER_BYTES),
    ];
    for harm in harms {
        let parent = tempfile::tempdir().unwrap();
        let store = KvStore::open_with(parent.path(), options()).unwrap();
        let key = |nth: u32| format!("key {}", nth % 10);
        store.set("live".to_owned(), "value".to_owned()).unwrap();
        (0..100).for_each(|nth| store.set(key(nth), "first value".to_owned()).unwrap());
        let path = parent.path().join("00000001.kvs");
        assert!(parent.path().join("00000002.kvs").exists());
        let mut bytes = fs::read(&path).unwrap();
        harm(&mut bytes);
        fs::write(&path, bytes).unwrap();
        (0..2_000).for_each(|nth| store.set(key(nth), format!("value {nth}")).unwrap());
        while store.maintain().unwrap() {}
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
}
