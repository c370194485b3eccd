//! What every engine promises: one suite, run against a map in memory, with the store
//! closed and opened again in between.

#[path = "simulation/random.rs"]
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use kvs::{KvStore, KvsEngine, KvsError, Options};
use random::Random;

/// Opens an engine in a directory.
type Open = fn(&Path) -> kvs::Result<Box<dyn KvsEngine>>;

/// Every engine in every way of opening it that matters.
const ENGINES: &[(&str, Open)] = &[
    ("kvs", |path| Ok(Box::new(KvStore::open(path)?))),
    ("kvs, buffered, without a cache", |path| {
        let mut options = tiny();
        options.buffered = true;
        options.cache_bytes = 0;
        Ok(Box::new(KvStore::open_with(path, options)?))
    }),
    ("kvs, tiny", |path| Ok(Box::new(KvStore::open_with(path, tiny())?))),
    #[cfg(feature = "sled")]
    ("sled", |path| Ok(Box::new(kvs::SledKvStore::open(path)?))),
];

/// The keys that a scan lists, and how many times it lists one.
fn scan(engine: &dyn KvsEngine, mut between: impl FnMut()) -> (BTreeSet<String>, usize) {
    let (mut keys, mut count, mut cursor) = (BTreeSet::new(), 0, None);
    loop {
        let page = engine.scan(cursor.as_deref()).unwrap();
        count += page.keys.len();
        keys.extend(page.keys);
        cursor = page.next;
        if cursor.is_none() {
            return (keys, count);
        }
        between();
    }
}

/// Options with which everything happens all the time.
fn tiny() -> Options {
    let mut options = Options::default();
    options.segment_bytes = 1_000;
    options.compact_threshold_bytes = 4096;
    options.cache_bytes = 3 * 4_096;
    options
}

/// A string of up to `len_max` characters from all of Unicode.
fn string(random: &mut Random, len_max: u64) -> String {
    let len = random.below(len_max + 1);
    let random_char = |_| {
        let limit = random.pick(&[0x80, 0x800, 0x1_0000, 0x11_0000]);
        char::from_u32(random.below(limit) as u32)
    };
    (0..len).filter_map(random_char).collect()
}

/// Bytes of all files in a directory. One may be removed meanwhile.
fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().metadata().map_or(0, |metadata| metadata.len())).sum()
}

/// Does one random thing to an engine and to its model.
fn step(engine: &dyn KvsEngine, model: &mut BTreeMap<String, String>, random: &mut Random) {
    let key = match random.below(20) {
        0 => string(random, 3),
        nth => format!("key {nth}"),
    };
    match random.below(20) {
        0..=8 => {
            let len_max = if random.below(50) == 0 { 9_000 } else { 40 };
            let value = string(random, len_max);
            engine.set(key.clone(), value.clone()).unwrap();
            model.insert(key, value);
        }
        9..=12 => match (engine.remove(key.clone()), model.remove(&key)) {
            (Ok(()), Some(_)) | (Err(KvsError::KeyNotFound), None) => {}
            (removed, modelled) => panic!("{removed:?} and {modelled:?}"),
        },
        13..=15 => assert_eq!(engine.get(key.clone()).unwrap(), model.get(&key).cloned()),
        16..=17 => {
            let keys = [&key, "key 3", "key 4"];
            engine.prefetch(&keys);
            for key in keys.into_iter().skip(random.below(2) as usize) {
                if random.one_in(4) {
                    let value = string(random, 3);
                    engine.set("key 4".to_owned(), value.clone()).unwrap();
                    model.insert("key 4".to_owned(), value);
                }
                assert_eq!(engine.get_str(key).unwrap(), model.get(key).cloned());
            }
        }
        18 if random.one_in(4) => {
            let (keys, count) = scan(engine, || {});
            assert!(count == model.len() && keys.iter().eq(model.keys()), "{keys:?}");
        }
        18 => drop(engine.maintain().unwrap()),
        _ => [KvsEngine::flush, KvsEngine::sync][random.below(2) as usize](engine).unwrap(),
    }
}

#[test]
fn an_engine_does_what_a_map_does() {
    for (name, open) in ENGINES {
        for seed in 1..=8 {
            let dir = tempfile::tempdir().unwrap();
            let (mut random, mut model) = (Random::new(seed), BTreeMap::new());
            for _ in 0..5 {
                let engine = open(dir.path()).unwrap();
                for (key, value) in &model {
                    let found = engine.get(String::clone(key)).unwrap();
                    assert_eq!(found.as_ref(), Some(value), "{name}, seed {seed}");
                }
                for _ in 0..1_000 {
                    step(&*engine, &mut model, &mut random);
                }
            }
        }
    }
}

#[test]
fn removing_a_missing_key_is_an_error() {
    for (name, open) in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).unwrap();
        let removed = engine.remove("a".to_owned());
        assert!(matches!(removed, Err(KvsError::KeyNotFound)), "{name}: {removed:?}");
    }
}

#[test]
fn a_directory_is_open_once() {
    for (name, open) in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).unwrap();
        match open(dir.path()).map(drop) {
            Err(KvsError::InUse { path }) => assert_eq!(path, dir.path()),
            opened => panic!("{name}: {opened:?}"),
        }
        drop(engine);
        open(dir.path()).unwrap();
    }
}

#[test]
fn a_cache_without_memory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let mut options = Options::default();
    options.cache_bytes = usize::MAX;
    let error = KvStore::open_with(&path, options).map(drop).unwrap_err();
    let expected = format!("cannot allocate a block cache of {} bytes", usize::MAX);
    assert_eq!(error.chain(), [expected.as_str(), "out of memory"]);
    assert!(!path.exists());
}

#[test]
fn a_store_may_be_bound_either_way() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = KvStore::open(dir.path()).unwrap();
        store.set("a".to_owned(), "1".to_owned()).unwrap();
    }
    #[expect(unused_mut, reason = "as the specification's tests bind it")]
    let mut store: kvs::KvsStore = KvStore::open(dir.path()).unwrap();
    assert_eq!(store.get("a".to_owned()).unwrap(), Some("1".to_owned()));
}

#[test]
fn limits_of_keys_and_values_are_as_stated() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open(dir.path()).unwrap();
    let zeros = |len| String::from_utf8(vec![0; len]).unwrap();
    let (key_len, value_len) = ((16 << 20) - 1, 512 << 20);
    store.set(zeros(key_len), "value".to_owned()).unwrap();
    assert_eq!(store.get(zeros(key_len)).unwrap().as_deref(), Some("value"));
    for (key, value, what, max) in [
        (zeros(key_len + 1), String::new(), "a key", key_len),
        ("key".to_owned(), zeros(value_len + 1), "a value", value_len),
    ] {
        let max = max as u64;
        match store.set(key, value) {
            Err(KvsError::TooLarge { what: told, len, max: limit }) => {
                assert_eq!((told, len, limit), (what, max + 1, max));
            }
            set => panic!("{what}: {set:?}"),
        }
    }
    assert!(store.stats().contains(&("keys", 1)));
}

/// A step is bounded in bytes, not in records, whether a write pays for it or an
/// idle turn does it.
#[test]
fn long_records_are_cleaned_in_small_steps() {
    // With the space that is preallocated.
    const STEP_MAX: u64 = 3 << 20;
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open(dir.path()).unwrap();
    let value = |nth: u64| format!("{nth}{}", "v".repeat(100_000));
    (0..100).for_each(|nth| store.set(format!("live{nth}"), value(nth)).unwrap());
    let mut is_compacting = false;
    let mut check = |what: &str, step: &dyn Fn()| {
        let before = size_of(dir.path());
        step();
        let grown = size_of(dir.path()).saturating_sub(before);
        assert!(grown <= STEP_MAX, "{what}: {grown} bytes more");
        is_compacting |= store.stats().contains(&("compacting", 1));
    };
    (0..200).for_each(|nth| {
        check("a write", &|| store.set("dead".to_owned(), value(nth)).unwrap());
    });
    let more = std::cell::Cell::new(true);
    while more.get() {
        check("an idle step", &|| more.set(store.maintain().unwrap()));
    }
    assert!(is_compacting, "nothing was compacted");
    (0..100).for_each(|nth| {
        assert_eq!(store.get(format!("live{nth}")).unwrap(), Some(value(nth)));
    });
}

#[test]
fn an_opened_store_has_the_same_counts() {
    let counts = |store: &KvStore| {
        store.sync().unwrap();
        while store.maintain().unwrap() {}
        let wanted = ["keys", "live_bytes"];
        store.stats().into_iter().filter(|(name, _)| wanted.contains(name)).collect::<Vec<_>>()
    };
    for seed in 1..=20 {
        let dir = tempfile::tempdir().unwrap();
        let mut random = Random::new(seed);
        let store = KvStore::open_with(dir.path(), tiny()).unwrap();
        let mut model = BTreeMap::new();
        for _ in 0..2_000 {
            step(&store, &mut model, &mut random);
        }
        let before = counts(&store);
        let segments = store.stats().into_iter().find(|(name, _)| *name == "segments").unwrap().1;
        drop(store);
        let is_segment = |name: &std::ffi::OsString| name.to_string_lossy().starts_with('0');
        let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        // The checkpoint at the end may begin a segment.
        let files = names.filter(is_segment).count() as u64;
        assert!((segments..=segments + 1).contains(&files), "{files} files, {segments} segments");
        let store = KvStore::open_with(dir.path(), tiny()).unwrap();
        assert_eq!(counts(&store), before, "seed {seed}");
    }
}

#[test]
fn more_segments_than_descriptors_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.segment_bytes = 512;
    options.cache_bytes = 0;
    let store = KvStore::open_with(dir.path(), options).unwrap();
    for nth in 0..1_200 {
        store.set(format!("key{nth}"), "v".repeat(1_000)).unwrap();
    }
    for nth in (0..1_200).rev() {
        assert_eq!(store.get(format!("key{nth}")).unwrap().map(|value| value.len()), Some(1_000));
    }
    let open = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count());
    assert!(open < 500, "{open} files are open");
}

/// Also while keys are written, overwritten, removed and moved by compaction.
#[test]
fn a_scan_lists_every_key_that_stays() {
    for (name, open) in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).unwrap();
        for nth in 0..20_000 {
            engine.set(format!("stays{nth:05}"), "v".repeat(20)).unwrap();
        }
        let mut random = Random::new(7);
        let mut pages = 0;
        // Between two pages, more is written than a page has.
        let (keys, count) = scan(&*engine, || {
            pages += 1;
            for _ in 0..2_000 {
                let nth = random.below(20_000);
                engine.set(format!("stays{nth:05}"), "w".repeat(20)).unwrap();
            }
            for _ in 0..200 {
                let nth = random.below(20_000);
                engine.set(format!("other{nth:05}"), "w".repeat(20)).unwrap();
                if random.one_in(2) {
                    engine.remove(format!("other{nth:05}")).unwrap();
                }
            }
            engine.maintain().unwrap();
        });
        let stay = keys.iter().filter(|key| key.starts_with("stays")).count();
        assert!(stay == 20_000 && pages > 1, "{name}: {stay} keys in {pages} pages");
        assert_eq!(count, keys.len(), "{name}: a key is repeated");
    }
}

#[test]
fn cursors_that_name_no_record_are_refused() {
    for (name, open) in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).unwrap();
        engine.set("key".to_owned(), "value".to_owned()).unwrap();
        for cursor in
            ["", "-", "x", "1", "1-", "1-0", "1-37", "1-4294967295", "99-36", &"0".repeat(32)]
        {
            let page = engine.scan(Some(cursor));
            assert!(matches!(page, Err(KvsError::BadCursor(_))), "{name}, {cursor}: {page:?}");
        }
    }
}

/// A page ends at a thousand keys, or once its keys have 64 KiB.
#[test]
fn a_page_is_limited_in_keys_and_bytes() {
    for (key_bytes, keys) in [(8, 1_000), (1_000, 66), (1_024, 64), (40_000, 2)] {
        let dir = tempfile::tempdir().unwrap();
        let store = KvStore::open(dir.path()).unwrap();
        for nth in 0..2 * keys {
            store.set(format!("{nth:0key_bytes$}"), String::new()).unwrap();
        }
        let page = store.scan(None).unwrap();
        assert_eq!(page.keys.len(), keys, "keys of {key_bytes} bytes");
        assert!(page.next.is_some());
    }
}

#[test]
fn keys_iterates_over_all_pages() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open(dir.path()).unwrap();
    let wanted: BTreeSet<String> = (0..10_000).map(|nth| format!("key {nth:020}")).collect();
    wanted.iter().for_each(|key| store.set(key.clone(), String::new()).unwrap());
    assert!(store.scan(None).unwrap().next.is_some());
    assert_eq!(store.keys().map(|key| key.unwrap()).collect::<BTreeSet<_>>(), wanted);
}

#[test]
fn a_store_may_move_to_another_thread() {
    let dir = tempfile::tempdir().unwrap();
    for engine in [kvs::choice::EngineName::Kvs, kvs::choice::EngineName::Sled] {
        let path = dir.path().join(engine.as_str());
        let Ok(store) = kvs::choice::open(&path, engine, &Options::default()) else { continue };
        let write = move || store.set("key".to_owned(), "value".to_owned());
        std::thread::spawn(write).join().unwrap().unwrap();
    }
}
