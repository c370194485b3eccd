//! Inspect accounts for every byte, and export saves all that is intact. Both only read.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kvs::{KvStore, KvsEngine, KvsError, Options, choice};

/// Options of a store with small segments.
fn options() -> Options {
    let mut options = Options::default();
    options.segment_bytes = 512;
    options.compact_threshold_bytes = 4096;
    options
}

/// Writes some segments. Returns what is in them at the end.
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

/// What inspect prints, and how many damaged ranges it counts.
fn inspect(directory: &Path) -> (String, u64) {
    let mut out = Vec::new();
    let damaged = KvStore::inspect(directory, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), damaged)
}

/// The lines that export writes, what it reports, and how much is lost.
fn export(directory: &Path) -> (String, Vec<String>, u64) {
    let (mut out, mut reports) = (Vec::new(), Vec::new());
    let mut report = |line: &str| reports.push(line.to_owned());
    let lost = choice::export(directory, &mut out, &mut report).unwrap();
    (String::from_utf8(out).unwrap(), reports, lost)
}

/// The pairs in exported lines.
fn pairs(lines: &str) -> BTreeMap<String, String> {
    let decode = |line: &str| match kvs::protocol::decode_request(line.as_bytes()) {
        Ok(kvs::protocol::Request::Set { key, value }) => (key.into_owned(), value.into_owned()),
        other => panic!("{other:?}"),
    };
    lines.lines().map(decode).collect()
}

/// The segments of a store, in order.
fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Changes a file.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Text with the random numbers of a store left out.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    for word in text.split_inclusive([' ', '\n', ',']) {
        let trimmed = word.trim_end_matches([' ', '\n', ',']);
        let is_hex = [8, 16].contains(&trimmed.len())
            && trimmed.bytes().all(|byte| byte.is_ascii_hexdigit());
        masked += &if is_hex {
            word.replace(trimmed, &"x".repeat(trimmed.len()))
        } else {
            word.to_owned()
        };
    }
    masked
}

/// Every kind of record and of damage. `KVS_BLESS=1` writes the golden file.
#[test]
fn inspect_prints_every_kind_of_finding() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data");
    let store = KvStore::open_with(&directory, options()).unwrap();
    // An fsync after each, so that nothing depends on when one in the background ends.
    let set = |key: &str, value: &str| {
        store.set(key.to_owned(), value.to_owned()).unwrap();
        store.sync().unwrap();
    };
    for nth in 0..150 {
        set(&format!("key{}", nth % 5), &format!("overwritten {nth}"));
    }
    store.set("flushed together".to_owned(), String::new()).unwrap();
    set("with this", "\u{e9}\u{1b}");
    store.remove("with this".to_owned()).unwrap();
    for nth in 0..4 {
        set(&format!("long{nth}"), &"v".repeat(500));
    }
    set("end", "");
    set("very end", "\0");
    drop(store);
    let (intact, damaged) = inspect(&directory);
    assert_eq!(damaged, 0, "{intact}");
    let paths = segments(&directory);
    let [.., sixth, fifth, fourth, third, second, newest] = &paths[..] else { panic!("{intact}") };
    fs::remove_file(sixth).unwrap();
    change(fifth, |bytes| bytes[3] ^= 1);
    change(fourth, |bytes| bytes[36] ^= 1);
    change(third, |bytes| bytes.truncate(100));
    change(second, |bytes| bytes[60] ^= 1);
    change(newest, |bytes| bytes.extend_from_slice(&[0; 30]));
    let other = parent.path().join("other");
    fill(&other);
    fs::copy(&segments(&other)[0], directory.join("00000099.kvs")).unwrap();
    let (text, damaged) = inspect(&directory);
    let all = masked(&format!("{intact}\nAfter damage:\n{text}{damaged} damaged ranges\n"));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/inspect.txt");
    if std::env::var_os("KVS_BLESS").is_some() {
        fs::create_dir_all(golden.parent().unwrap()).unwrap();
        fs::write(&golden, &all).unwrap();
    }
    assert!(all == fs::read_to_string(golden).unwrap(), "{all}");
}

#[test]
fn inspect_and_export_change_nothing_and_only_read() {
    let parent = tempfile::tempdir().unwrap();
    let map = fill(parent.path());
    let read_all = || -> Vec<_> {
        segments(parent.path()).into_iter().map(|it| (fs::read(&it).unwrap(), it)).collect()
    };
    let before = read_all();
    for path in segments(parent.path()) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
    }
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let (text, damaged) = inspect(parent.path());
    let (lines, reports, lost) = export(parent.path());
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!((damaged, lost, reports.len()), (0, 0, 0));
    assert_eq!(pairs(&lines), map);
    assert_eq!(text.matches(" set \"").count(), 60);
    assert!(read_all() == before);
}

#[test]
fn a_store_in_use_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let store = KvStore::open(parent.path()).unwrap();
    let refused = [
        KvStore::inspect(parent.path(), &mut Vec::new()).map(drop),
        choice::export(parent.path(), &mut Vec::new(), &mut |_| {}).map(drop),
    ];
    for refused in refused {
        assert!(matches!(refused, Err(KvsError::InUse { .. })), "{refused:?}");
    }
    drop(store);
    assert_eq!(inspect(parent.path()).1, 0);
    for path in [parent.path().join("missing"), parent.path().join("..")] {
        assert!(KvStore::inspect(&path, &mut Vec::new()).is_err());
        assert!(choice::export(&path, &mut Vec::new(), &mut |_| {}).is_err());
    }
}

/// Each line that inspect prints begins where the one before ends.
#[test]
fn every_byte_is_accounted_for() {
    let parent = tempfile::tempdir().unwrap();
    fill(parent.path());
    for path in segments(parent.path()) {
        let intact = fs::read(&path).unwrap();
        for at in (0..intact.len()).step_by(5) {
            change(&path, |bytes| bytes[at] ^= 1 << (at % 8));
            let (text, damaged) = inspect(parent.path());
            assert_eq!(damaged, 1, "byte {at} of {}\n{text}", path.display());
            let line = text.lines().find(|line| line.contains("DAMAGED")).unwrap();
            let from: usize = line.trim().split(' ').next().unwrap().parse().unwrap();
            let to = line.split(" up to ").nth(1).unwrap().split(':').next().unwrap();
            assert!((from..to.parse().unwrap()).contains(&at), "byte {at}: {line}");
            fs::write(&path, &intact).unwrap();
        }
    }
}

#[test]
fn export_saves_all_but_what_is_damaged() {
    let parent = tempfile::tempdir().unwrap();
    let map = fill(parent.path());
    let loaded = tempfile::tempdir().unwrap();
    for path in segments(parent.path()) {
        let intact = fs::read(&path).unwrap();
        for at in (36..intact.len()).step_by(7) {
            change(&path, |bytes| bytes[at] ^= 1 << (at % 8));
            let (lines, reports, lost) = export(parent.path());
            assert_eq!(reports.len(), 1, "byte {at}");
            let pairs = pairs(&lines);
            let same = map.iter().filter(|(key, value)| pairs.get(*key) == Some(value)).count();
            // A damaged tombstone brings its key back.
            assert!(same + 1 >= map.len() && pairs.len() <= map.len() + 1, "byte {at}: {same}");
            assert_eq!(lost, u64::from(!reports[0].contains("never durable")), "{reports:?}");
            fs::write(&path, &intact).unwrap();
        }
    }
    let store = KvStore::open(loaded.path()).unwrap();
    for (key, value) in pairs(&export(parent.path()).0) {
        store.set(key, value).unwrap();
    }
    assert_eq!(store.scan(None).unwrap().keys.len(), map.len());
}

/// Whatever keeps a store closed is a loss for export, too.
#[test]
fn export_reports_a_loss_where_opening_is_refused() {
    type Damage = fn(&[PathBuf], &[PathBuf]);
    let damages: [Damage; 4] = [
        |paths, _| change(&paths[0], |bytes| bytes[20] ^= 1),
        |paths, _| paths[1..].iter().rev().for_each(|path| fs::remove_file(path).unwrap()),
        |paths, _| {
            fs::remove_file(&paths[0]).unwrap();
            change(paths.last().unwrap(), |bytes| bytes.extend_from_slice(b"torn"));
        },
        |paths, others| {
            fs::copy(others.last().unwrap(), paths.last().unwrap()).unwrap();
        },
    ];
    for (nth, damage) in damages.into_iter().enumerate() {
        let [parent, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        fill(parent.path());
        fill(other.path());
        damage(&segments(parent.path()), &segments(other.path()));
        if nth == 1 {
            change(&segments(parent.path())[0], |bytes| bytes[0] ^= 1);
        }
        let opened = KvStore::open(parent.path()).map(drop);
        assert!(matches!(opened, Err(KvsError::Corrupt { .. })), "{nth}: {opened:?}");
        let (_, reports, lost) = export(parent.path());
        assert!(lost > 0 && !reports.concat().contains("never durable"), "{nth}: {reports:?}");
    }
}

/// A run of missing segments is one loss, and its report says how long it is.
#[test]
fn export_reports_missing_segments() {
    let parent = tempfile::tempdir().unwrap();
    fill(parent.path());
    let paths = segments(parent.path());
    paths[1..3].iter().for_each(|path| fs::remove_file(path).unwrap());
    let (_, reports, lost) = export(parent.path());
    assert_eq!((lost, reports.len()), (1, 1));
    assert!(reports[0].ends_with("00000002.kvs: 2 segments are missing"), "{reports:?}");
}

/// What a power failure tore off was never durable. Opening drops it, and export
/// leaves it out.
#[test]
fn a_torn_tail_is_no_loss() {
    let parent = tempfile::tempdir().unwrap();
    let (open, killed) = (parent.path().join("open"), parent.path().join("killed"));
    let store = KvStore::open(&open).unwrap();
    store.set("synced".to_owned(), "1".to_owned()).unwrap();
    store.sync().unwrap();
    store.set("torn".to_owned(), "2".to_owned()).unwrap();
    store.set("behind".to_owned(), "3".to_owned()).unwrap();
    fs::create_dir(&killed).unwrap();
    fs::copy(open.join("00000001.kvs"), killed.join("00000001.kvs")).unwrap();
    change(&killed.join("00000001.kvs"), |bytes| {
        let at = bytes.windows(4).position(|window| window == b"torn").unwrap();
        bytes[at] ^= 1;
    });
    let (lines, reports, lost) = export(&killed);
    assert_eq!((lines.as_str(), lost), ("SET synced 1\n", 0));
    assert!(reports[0].contains("never durable"), "{reports:?}");
    let store = KvStore::open(&killed).unwrap();
    assert_eq!(store.scan(None).unwrap().keys, ["synced"]);
}

/// Values full of headers with another salt. Without constant time for each position,
/// each of these calls takes minutes.
#[test]
fn crafted_values_do_not_slow_the_search() {
    let parent = tempfile::tempdir().unwrap();
    let store = KvStore::open(parent.path()).unwrap();
    store.set("first".to_owned(), "1".to_owned()).unwrap();
    // A record header: two checksums, the kind, and a value of 2 MiB and some.
    let header = "\0\0\0\0\0\0\0\0\u{1}\0\0\0\0\0\u{20}\0";
    store.set("crafted".to_owned(), header.repeat((4 << 20) / header.len())).unwrap();
    store.set("last".to_owned(), "2".to_owned()).unwrap();
    drop(store);
    change(&parent.path().join("00000001.kvs"), |bytes| {
        let at = bytes.windows(7).position(|window| window == b"crafted").unwrap();
        // The length of the value: its end is unknown then.
        bytes[at - 3] ^= 1;
    });
    assert_eq!(inspect(parent.path()).1, 1);
    let (lines, _, lost) = export(parent.path());
    assert_eq!((pairs(&lines).len(), lost), (2, 1));
    assert!(matches!(KvStore::open(parent.path()), Err(KvsError::Corrupt { .. })));
}
