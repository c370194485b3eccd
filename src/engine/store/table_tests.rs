//! The table beside a map of std.

use super::*;
use std::collections::HashMap;

/// Stands in for a hash: the table only wants bits that differ.
fn hash(key: &[u8]) -> u64 {
    key.iter().fold(7, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3))
}

/// The place of a key in a model.
fn location(nth: u32) -> Location {
    Location { segment: nth, offset: !nth, len: nth / 3 }
}

#[test]
fn it_holds_what_a_hash_map_holds() {
    let (mut table, mut model) = (Table::default(), HashMap::new());
    let mut random = 1u64;
    for step in 0..60_000u32 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let key = format!("{:x}", (random >> 33) % 20_000).repeat((random >> 60) as usize);
        let key = key.into_bytes();
        table.prefetch(&[hash(&key)]);
        if step % 7_000 == 0 {
            table.reserve(20_000);
        }
        if random >> 32 & 3 == 0 {
            assert_eq!(table.remove(hash(&key), &key), model.remove(&key));
        } else {
            let old = table.insert(hash(&key), &key, location(step));
            assert_eq!(old, model.insert(key, location(step)));
        }
        assert_eq!(table.len(), model.len());
    }
    assert!(table.buckets > CHUNK_BUCKETS, "{} buckets", table.buckets);
    assert!(table.chunks.iter().all(|chunk| chunk.capacity() == CHUNK_BUCKETS));
    for (key, location) in &model {
        assert_eq!(table.get(hash(key), key), Some(*location));
    }
    for (key, location) in &model {
        assert_eq!(table.remove(hash(key), key), Some(*location));
        assert_eq!(table.get(hash(key), key), None);
    }
    assert_eq!((table.len(), table.chunks.len()), (0, 1));
    assert!(table.entries.chunks_in_use() <= 1);
    // The last of all removals may leave some more than one.
    assert!(table.buckets < 8, "{} buckets", table.buckets);
}

/// Inserts or removes the `nth` of keys that are short and of one length.
fn change(table: &mut Table, nth: u32, is_insert: bool) {
    let key = nth.to_be_bytes();
    let old = match is_insert {
        true => table.insert(hash(&key), &key, location(nth)),
        false => table.remove(hash(&key), &key),
    };
    assert_eq!(old, (!is_insert).then_some(location(nth)));
}

#[test]
fn there_are_as_many_buckets_as_the_keys_need_and_they_go_only_when_most_keys_have() {
    let mut table = Table::default();
    for nth in 0..10_000 {
        change(&mut table, nth, true);
        assert_eq!(table.buckets, table.len().div_ceil(BUCKET_FILL));
    }
    let most = table.buckets;
    for nth in 0..7_400 {
        change(&mut table, nth, false);
        assert_eq!(table.buckets, most);
    }
    for nth in 7_400..10_000 {
        change(&mut table, nth, false);
        let is_quarter_full = |buckets| buckets * BUCKET_FILL / 4 <= table.len();
        assert!(table.buckets == 1 || is_quarter_full(table.buckets));
        assert!(table.buckets == most || !is_quarter_full(table.buckets + 1));
    }
}

#[test]
fn buckets_are_made_at_once_when_they_will_be_full_and_go_when_no_keys_come() {
    let mut table = Table::default();
    (0..3_000).for_each(|nth| change(&mut table, nth, true));
    let buckets_after = |table: &mut Table, more| {
        table.reserve(more);
        let key = |nth: u32| nth.to_be_bytes();
        let get = |nth: u32| table.get(hash(&key(nth)), &key(nth));
        assert!((0..3_000).all(|nth| get(nth) == Some(location(nth))));
        table.buckets
    };
    // Too few more.
    assert_eq!(buckets_after(&mut table, 749), 1_000);
    assert_eq!(buckets_after(&mut table, 750), 1_250);
    // Enough for a while.
    assert_eq!(buckets_after(&mut table, u64::MAX), 1_250);
    (3_000..3_400).for_each(|nth| change(&mut table, nth, true));
    assert_eq!(buckets_after(&mut table, u64::MAX), (3_400 + RESERVED_KEYS) / BUCKET_FILL);
    table.shrink();
    assert_eq!(buckets_after(&mut table, 0), 3_400 / SHRUNK_FILL + 1);
    let most = (RESERVED_KEYS / RESERVED_FACTOR) as u32;
    (3_400..2 * most).for_each(|nth| change(&mut table, nth, true));
    let keys = 2 * most as usize;
    assert_eq!(buckets_after(&mut table, u64::MAX), keys * (1 + RESERVED_FACTOR) / BUCKET_FILL);
}

#[test]
fn keys_that_come_and_go_do_not_pile_up() {
    let mut table = Table::default();
    let mut lens = [4, 36, 4_000, 8_000, 9_000, 15_000, 20_000, 40_000].into_iter().cycle();
    let come_and_go = |table: &mut Table, nth: u32, len| {
        let key = vec![nth as u8; len];
        assert_eq!(table.insert(hash(&key), &key, location(nth)), None);
        assert_eq!(table.remove(hash(&key), &key), Some(location(nth)));
    };
    // Without any that stays, and beside some that do.
    for nth in 0..10_000 {
        come_and_go(&mut table, nth, lens.next().unwrap());
        come_and_go(&mut table, nth, if nth % 2 == 0 { 15_000 } else { 20_000 });
        assert!(table.entries.chunks_in_use() <= 2, "{}", table.entries.chunks_in_use());
    }
    for nth in 0..10_000 {
        change(&mut table, nth, true);
        come_and_go(&mut table, nth, 1_000 + nth as usize % 7_000);
    }
    assert!(
        (0..10_000u32).all(|nth| table.get(hash(&nth.to_be_bytes()), &nth.to_be_bytes()).is_some())
    );
    let needed = 10_000 * 24 / (32 << 10);
    assert!(table.entries.chunks_in_use() <= 4 * needed, "{}", table.entries.chunks_in_use());
}

/// As each removal may move what is left of a chunk, the chunks must not come to that
/// together.
#[test]
fn chunks_that_were_filled_together_are_not_moved_together() {
    let mut table = Table::default();
    (0..100_000).for_each(|nth| change(&mut table, nth, true));
    let full = table.entries.chunks_in_use();
    // Every 7,919th after the other, so that all chunks lose as many.
    let mut removed = (0..100_000u64).map(|nth| (nth * 7_919 % 100_000) as u32);
    let mut in_use = vec![full];
    while in_use.len() <= 10 {
        removed.by_ref().take(5_000).for_each(|nth| change(&mut table, nth, false));
        in_use.push(table.entries.chunks_in_use());
    }
    let most = in_use.windows(2).map(|pair| pair[0].saturating_sub(pair[1])).max();
    assert!(most < Some(full / 4), "{in_use:?}");
}
