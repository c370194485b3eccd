//! `KvStore::inspect` accounts for every byte, and `KvStore::repair` keeps what
//! is intact, wherever one bit of a store is flipped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kvs::{KvStore, KvsEngine, KvsError, Options};

/// Options of a store that has several small segments.
fn options() -> Options {
    let mut options = Options::default();
    options.segment_bytes = kvs::SEGMENT_BYTES_MIN;
    options
}

/// Writes three small segments; what is in them at the end.
fn fill(directory: &Path) -> BTreeMap<String, String> {
    let store = KvStore::open_with(directory, options()).unwrap();
    let mut map = BTreeMap::new();
    for nth in 0..60 {
        let (key, value) = (format!("key{}", nth % 20), format!("value {nth}\u{1b}"));
        store.set(key.clone(), value.clone()).unwrap();
        map.insert(key, value);
    }
    store.remove("key7".to_owned()).unwrap();
    map.remove("key7");
    map
}

/// What inspecting prints, and how many damaged ranges it counts.
fn inspect(directory: &Path) -> (String, u64) {
    let mut out = Vec::new();
    let damaged = KvStore::inspect(directory, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), damaged)
}

/// The segments of a store, in order.
fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}

#[test]
fn an_intact_store_is_shown_record_by_record_and_left_as_it_is() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kvs");
    let map = fill(&directory);
    let read_all = || segments(&directory).iter().map(|it| fs::read(it).unwrap()).collect();
    let before: Vec<Vec<u8>> = read_all();
    fs::write(directory.join("lock"), "1\n").unwrap();
    let (text, damaged) = inspect(&directory);
    assert!(damaged == 0 && before == read_all());
    let holder = fs::read_to_string(directory.join("lock")).unwrap();
    assert_eq!(holder, format!("{}\n", std::process::id()), "who is refused is told this one");
    assert!(text.contains("\n  32 set \"key0\" \"value 0\\u{1b}\", synced before\n"), "{text}");
    assert_eq!(text.matches(" set ").count(), 60);
    assert_eq!(text.matches(" remove \"key7\"").count(), 1);
    assert_eq!(text.matches(" continued").count(), segments(&directory).len() - 1);
    let repair = KvStore::repair(&directory).unwrap();
    assert_eq!((repair.keys, repair.set_aside), (map.len() as u64, None));
}

/// What a kill leaves after a sync: a copy of the directory while it is open.
fn killed(parent: &Path) -> PathBuf {
    let (open, killed) = (parent.join("open"), parent.join("killed"));
    let store = KvStore::open(&open).unwrap();
    store.set("key".to_owned(), "value".to_owned()).unwrap();
    store.sync().unwrap();
    copy(&open, &killed);
    killed
}

/// Copies a store's directory as it is.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

/// A store that was killed with a value in its tail that is full of what look
/// like headers of long records, and with one bit before them flipped. Where
/// `is_synced`, a record behind tells that the value had been on the disk.
fn crafted_tail(parent: &Path, is_synced: bool) -> PathBuf {
    let (open, killed) = (parent.join("open"), parent.join("killed"));
    let store = KvStore::open(&open).unwrap();
    store.set("first".to_owned(), "1".to_owned()).unwrap();
    store.sync().unwrap();
    // A checksum of zeros, the kind, no key, and a value of 2 MiB and some.
    let header = "\0\0\0\0\u{1}\0\0\0\0\0\0\u{20}\0";
    store.set("crafted".to_owned(), header.repeat((4 << 20) / header.len())).unwrap();
    if is_synced {
        store.sync().unwrap();
        store.set("last".to_owned(), "2".to_owned()).unwrap();
    }
    copy(&open, &killed);
    let path = &segments(&killed)[0];
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(7).position(|window| window == b"crafted").unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
    killed
}

/// Without a bound on the work, each of these calls takes minutes.
#[test]
fn values_full_of_headers_do_not_make_the_search_behind_damage_long() {
    let parent = tempfile::tempdir().unwrap();
    let torn = crafted_tail(parent.path(), false);
    assert_eq!(inspect(&torn).1, 1);
    let store = KvStore::open(&torn).unwrap();
    assert_eq!(store.get("first".to_owned()).unwrap().as_deref(), Some("1"));
    assert_eq!(store.get("crafted".to_owned()).unwrap(), None);

    let parent = tempfile::tempdir().unwrap();
    let damaged = crafted_tail(parent.path(), true);
    let error = KvStore::open(&damaged).unwrap_err().to_string();
    assert!(error.ends_with(" tells that this had been on the disk"), "{error}");
    assert_eq!(inspect(&damaged).1, 1);
    let repair = KvStore::repair(&damaged).unwrap();
    assert_eq!((repair.keys, repair.lost.len()), (2, 1), "{repair:?}");
}

#[test]
fn zeros_written_ahead_are_no_damage_and_go_when_the_store_is_opened() {
    let parent = tempfile::tempdir().unwrap();
    let directory = killed(parent.path());
    let size = || fs::metadata(&segments(&directory)[0]).unwrap().len();
    assert!(size() > 64 << 10, "nothing was written ahead");
    let (text, damaged) = inspect(&directory);
    assert_eq!((damaged, text.matches(" zeros, written ahead").count()), (0, 1), "{text}");
    let repair = KvStore::repair(&directory).unwrap();
    assert_eq!((repair.keys, repair.set_aside), (1, None));
    assert!(size() < 100, "{} bytes are left", size());
}

#[test]
fn zeros_at_the_end_of_an_older_segment_are_damage() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kvs");
    fill(&directory);
    let oldest = &segments(&directory)[0];
    fs::write(oldest, [fs::read(oldest).unwrap(), vec![0; 20]].concat()).unwrap();
    assert_eq!(inspect(&directory).1, 1);
    assert!(matches!(KvStore::open(&directory), Err(KvsError::Corrupt { .. })));
    assert_eq!(KvStore::repair(&directory).unwrap().lost.len(), 1);
}

#[test]
fn wherever_a_bit_is_flipped_the_rest_is_kept() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kvs");
    let map = fill(&directory);
    for path in segments(&directory) {
        let intact = fs::read(&path).unwrap();
        for at in (0..intact.len()).step_by(7) {
            let mut bytes = intact.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            assert_eq!(inspect(&directory).1, 1, "byte {at}");
            repair_and_check(&directory, &map, at >= 32);
            fs::write(&path, &intact).unwrap();
        }
    }
}

/// Repairs, compares, and puts the damaged directory back.
fn repair_and_check(directory: &Path, map: &BTreeMap<String, String>, few_are_lost: bool) {
    let repair = KvStore::repair(directory).unwrap();
    let Some(set_aside) = repair.set_aside else {
        return; // The last mark: it tells nothing of use any more.
    };
    assert_eq!(repair.lost.len(), 1);
    let store = KvStore::open(directory).unwrap();
    let is_kept = |(key, value): &(&String, &String)| {
        store.get((*key).clone()).unwrap().as_ref() == Some(*value)
    };
    let kept = map.iter().filter(is_kept).count();
    assert!(!few_are_lost || kept + 1 >= map.len(), "{kept} of {}", map.len());
    drop(store);
    fs::remove_dir_all(directory).unwrap();
    fs::rename(set_aside, directory).unwrap();
}

#[test]
fn a_segment_of_another_store_is_lost_as_a_whole_wherever_it_stands() {
    let parent = tempfile::tempdir().unwrap();
    let (other, directory) = (parent.path().join("other"), parent.path().join("kvs"));
    let store = KvStore::open_with(&other, options()).unwrap();
    (0..99).for_each(|nth| store.set(format!("foreign{nth}"), "value".to_owned()).unwrap());
    drop(store);
    let others = segments(&other);
    let own = {
        fill(&parent.path().join("own"));
        segments(&parent.path().join("own"))
    };
    assert!(own.len() > 2 && others.len() > own.len());
    for foreign in &others[..=own.len()] {
        copy(&parent.path().join("own"), &directory);
        let path = directory.join(foreign.file_name().unwrap());
        fs::copy(foreign, &path).unwrap();
        let (text, damaged) = inspect(&directory);
        assert_eq!(damaged, 1, "{text}");
        assert!(text.contains(" set \"foreign"), "{text}");
        let repair = KvStore::repair(&directory).unwrap();
        let all = format!("{}: all of it: it belongs to another store", path.display());
        assert!(repair.lost.len() == 1 && repair.lost[0].starts_with(&all), "{repair:?}");
        let store = KvStore::open(&directory).unwrap();
        for nth in 0..99 {
            assert_eq!(store.get(format!("foreign{nth}")).unwrap(), None);
        }
        assert!(store.stats().contains(&("keys", repair.keys)) && repair.keys > 10);
        drop(store);
        fs::remove_dir_all(&directory).unwrap();
    }
}

/// A store whose oldest segments were cleaned.
fn fill_and_clean(directory: &Path) -> Vec<PathBuf> {
    let mut options = options();
    options.compact_threshold_bytes = kvs::COMPACT_THRESHOLD_BYTES_MIN;
    let store = KvStore::open_with(directory, options).unwrap();
    (0..400).for_each(|nth| store.set(format!("key{}", nth % 40), format!("{nth}")).unwrap());
    drop(store);
    let segments = segments(directory);
    assert!(segments.len() > 5 && !segments[0].ends_with("00000001.seg"));
    assert_eq!(inspect(directory).1, 0);
    segments
}

/// What a store is harmed with; none of it is a byte that has changed.
fn harms(segments: &[PathBuf]) -> Vec<(PathBuf, Box<dyn Fn()>)> {
    let mut harms: Vec<(PathBuf, Box<dyn Fn()>)> = Vec::new();
    for path in segments {
        let lost = path.clone();
        harms.push((path.clone(), Box::new(move || fs::remove_file(&lost).unwrap())));
    }
    let [older, next] = [segments[1].clone(), segments[2].clone()];
    let named = next.clone();
    harms.push((named.clone(), Box::new(move || assert!(fs::copy(&older, &next).is_ok()))));
    let (first, both) = (named.clone(), [named, segments[3].clone()]);
    harms.push((first, Box::new(move || both.iter().for_each(|it| fs::remove_file(it).unwrap()))));
    let older = segments[1].clone();
    // The mark that the segment is continued has no key and no value.
    let cut = move || {
        let bytes = fs::read(&older).unwrap();
        fs::write(&older, &bytes[..bytes.len() - 13]).unwrap();
    };
    harms.push((segments[1].clone(), Box::new(cut)));
    let older = segments[1].clone();
    let twice = move || {
        let bytes = fs::read(&older).unwrap();
        fs::write(&older, [&bytes[..], &bytes[bytes.len() - 13..]].concat()).unwrap();
    };
    harms.push((segments[1].clone(), Box::new(twice)));
    let all = segments.to_vec();
    let directory = all[0].parent().unwrap().to_owned();
    harms.push((
        directory,
        Box::new(move || all.iter().for_each(|it| fs::remove_file(it).unwrap())),
    ));
    harms
}

#[test]
fn what_a_store_is_refused_for_is_told_by_inspect_and_repair() {
    let parent = tempfile::tempdir().unwrap();
    let (whole, directory) = (parent.path().join("whole"), parent.path().join("kvs"));
    let names = fill_and_clean(&whole);
    let names: Vec<_> =
        names.iter().map(|path| directory.join(path.file_name().unwrap())).collect();
    for (path, harm) in harms(&names) {
        copy(&whole, &directory);
        harm();
        assert!(matches!(KvStore::open(&directory), Err(KvsError::Corrupt { .. })));
        let (text, damaged) = inspect(&directory);
        assert!(damaged > 0 && text.contains("DAMAGED"), "{text}");
        let repair = KvStore::repair(&directory).unwrap();
        let named = path.display().to_string();
        assert!(repair.lost.iter().any(|line| line.starts_with(&named)), "{named}: {repair:?}");
        assert_eq!(repair.lost.len() as u64, damaged, "{repair:?}\n{text}");
        KvStore::open(&directory).unwrap();
        fs::remove_dir_all(&directory).unwrap();
    }
}

#[test]
fn a_missing_segment_is_named_once_with_its_number() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kvs");
    fill(&directory);
    let middle = directory.join("00000002.seg");
    fs::remove_file(&middle).unwrap();
    let line = format!("{}: DAMAGED: the segment is missing\n", middle.display());
    let (text, damaged) = inspect(&directory);
    assert!(text.ends_with(&line) && damaged == 1, "{text}");
    let lost = KvStore::repair(&directory).unwrap().lost;
    assert_eq!(lost, [format!("{}: the segment is missing", middle.display())]);
}

#[test]
fn every_damaged_store_is_set_aside_under_its_own_name() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kvs");
    for nth in 1..=3 {
        fill(&directory);
        let path = &segments(&directory)[0];
        let mut bytes = fs::read(path).unwrap();
        bytes[40] ^= 1;
        fs::write(path, &bytes).unwrap();
        // What a repair left behind that was killed is begun anew.
        fs::create_dir_all(parent.path().join("kvs.repairing/left")).unwrap();
        let aside = parent.path().join(format!("kvs.damaged-{nth}"));
        assert_eq!(KvStore::repair(&directory).unwrap().set_aside, Some(aside.clone()));
        assert!(fs::read_dir(aside).unwrap().count() > 1);
        fs::remove_dir_all(&directory).unwrap();
    }
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 3);
}

#[test]
fn a_repair_that_was_cut_off_is_gone_on_with_and_no_store_is_begun_meanwhile() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kvs");
    let map = fill(&directory);
    let repaired = parent.path().join("kvs.repaired");
    fs::rename(&directory, &repaired).unwrap();
    let error = KvStore::open(&directory).unwrap_err();
    assert!(error.to_string().contains("its repair was cut off"), "{error}");
    assert!(!directory.exists());
    fs::create_dir(parent.path().join("kvs.damaged-1")).unwrap();
    let repair = KvStore::repair(&directory).unwrap();
    assert_eq!(repair.keys, map.len() as u64);
    assert_eq!(repair.set_aside, Some(parent.path().join("kvs.damaged-1")));
    KvStore::open(&directory).unwrap();
}

/// As a start leaves that is killed before it has looked further.
#[test]
fn an_empty_directory_in_the_place_of_the_store_does_not_cost_the_repaired_one() {
    let parent = tempfile::tempdir().unwrap();
    let (directory, repaired) = (parent.path().join("kvs"), parent.path().join("kvs.repaired"));
    let map = fill(&repaired);
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("what is this"), "").unwrap();
    let error = KvStore::repair(&directory).unwrap_err();
    assert!(error.to_string().starts_with("cannot remove "), "{error}");
    fs::remove_file(directory.join("what is this")).unwrap();
    let repair = KvStore::repair(&directory).unwrap();
    assert_eq!((repair.keys, repair.set_aside), (map.len() as u64, None));
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
}

#[test]
fn a_store_in_use_or_none_at_all_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kvs");
    assert!(KvStore::inspect(&directory, &mut Vec::new()).is_err());
    assert!(KvStore::repair(&directory).is_err());
    assert!(!directory.exists() && !KvStore::exists(&directory).unwrap());
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("lock"), "").unwrap();
    assert!(!KvStore::exists(&directory).unwrap(), "one that was never begun");
    fs::write(directory.join("lock"), "1\n").unwrap();
    assert!(KvStore::exists(&directory).unwrap(), "one that has lost its segments");
    fs::remove_dir_all(&directory).unwrap();
    let _store = KvStore::open(&directory).unwrap();
    assert!(KvStore::exists(&directory).unwrap());
    for error in [
        KvStore::inspect(&directory, &mut Vec::new()).unwrap_err(),
        KvStore::repair(&directory).unwrap_err(),
    ] {
        assert!(matches!(error, KvsError::InUse { pid: Some(_), .. }), "{error}");
    }
}
