//! The table beside a map of std.

use super::*;
use std::collections::HashMap;

/// Stands in for a hash: the table only wants bits that differ.
fn hash(key: &[u8]) -> u64 {
    key.iter().fold(7, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3))
}

#[test]
fn it_holds_what_a_hash_map_holds() {
    assert_eq!(size_of::<Bucket>(), 256);
    let (mut table, mut model) = (Table::default(), HashMap::new());
    let mut random = 1u64;
    for step in 0..60_000u32 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let key = format!("{:x}", (random >> 33) % 20_000).repeat((random >> 60) as usize);
        let key = key.into_bytes();
        let location = Location { segment: step, offset: !step, len: step / 3 };
        table.fetch([hash(&key)].into_iter());
        if random >> 32 & 3 == 0 {
            assert_eq!(table.remove(hash(&key), &key), model.remove(&key));
        } else {
            let old = table.insert(hash(&key), &key, location);
            assert_eq!(old, model.insert(key, location));
        }
        assert_eq!(table.len(), model.len());
    }
    assert!(table.buckets > CHUNK_BUCKETS, "{} buckets", table.buckets);
    for (key, location) in &model {
        assert_eq!(table.get(hash(key), key), Some(*location));
    }
    for (key, location) in &model {
        assert_eq!(table.remove(hash(key), key), Some(*location));
    }
    assert_eq!((table.len(), table.entry_bytes, table.chunks.len()), (0, 0, 1));
    // The last of all removals may leave some more than one.
    assert!(table.buckets < 8, "{} buckets", table.buckets);
}

/// Inserts or removes the `nth` of keys that are short and of one length.
fn change(table: &mut Table, nth: u32, is_insert: bool) {
    let key = nth.to_be_bytes();
    let location = Location { segment: nth, offset: 0, len: 1 };
    let old = match is_insert {
        true => table.insert(hash(&key), &key, location),
        false => table.remove(hash(&key), &key),
    };
    assert_eq!(old, (!is_insert).then_some(location));
}

#[test]
fn there_are_as_many_buckets_as_the_keys_need_and_memory_goes_only_when_most_keys_have() {
    let mut table = Table::default();
    for nth in 0..10_000 {
        change(&mut table, nth, true);
        assert_eq!(table.buckets, table.entry_bytes.div_ceil(BUCKET_FILL));
    }
    let most = table.buckets;
    for nth in 0..7_400 {
        change(&mut table, nth, false);
        assert_eq!(table.buckets, most);
    }
    for nth in 7_400..10_000 {
        change(&mut table, nth, false);
        let is_quarter_full = |buckets| buckets * BUCKET_FILL / 4 <= table.entry_bytes;
        assert!(table.buckets == 1 || is_quarter_full(table.buckets));
        assert!(table.buckets == most || !is_quarter_full(table.buckets + 1));
    }
}

#[test]
fn what_does_not_fit_into_a_bucket_takes_no_more_than_its_own_bytes() {
    let mut table = Table::default();
    let location = Location { segment: 1, offset: 2, len: 3 };
    let more = |table: &Table| {
        let bucket = table.bucket(1);
        assert_eq!(bucket.more.capacity(), bucket.more.len());
        (usize::from(bucket.used), bucket.more.len())
    };
    // One hash, so that all are in one bucket.
    table.insert(1, &[0; ROOM - KEY - 30], location);
    assert_eq!(more(&table), (ROOM - 30, 0));
    table.insert(1, &[1; 30 - KEY], location);
    assert_eq!(more(&table), (ROOM, 0));
    table.insert(1, &[2; 300], location);
    table.insert(1, b"", location);
    assert_eq!(more(&table), (ROOM, 300 + 2 * KEY));
    table.remove(1, &[2; 300]);
    assert_eq!(more(&table), (ROOM, KEY));
    table.remove(1, b"");
    assert_eq!(more(&table), (ROOM, 0));
}

#[test]
fn every_cache_line_of_a_buckets_room_is_fetched() {
    let mut table = Table::default();
    let fetch = |table: &Table, hashes: &[u64]| table.fetch(hashes.iter().copied());
    let (location, key) = (Location { segment: 1, offset: 2, len: 3 }, [0b0101; ROOM - KEY]);
    table.insert(0b0011, &key, location);
    // The hash stands in the first line, the key in the three others.
    let touched = ROOM as u16 ^ 0b0011 ^ 0b0101 ^ 0b0101 ^ 0b0101;
    assert_eq!(fetch(&table, &[0b0011]), touched);
    assert_eq!(fetch(&table, &[0b0011, 0b0011]), 0);
    assert_eq!(fetch(&table, &[0b0011, 0b0011, 0b0011]), touched);
}
