//! Which records of a segment cleaning reads, and which it asks the index for.

use super::*;

const SALT: u32 = 7;

/// The bytes of these records.
fn encoded(records: &[(Kind, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in records {
        record::encode(&mut bytes, SALT, *kind, false, b"key", value);
    }
    bytes
}

#[test]
fn the_index_is_asked_for_sets_only_and_for_none_that_is_known_to_be_dead() {
    let bytes = encoded(&[(Kind::Set, b"1"), (Kind::Remove, b""), (Kind::Set, b"2")]);
    let records = intact(&bytes, SALT).unwrap();
    let mut dead = Dead::default();
    dead.insert(records[2].0 as u64);
    let asked = records.iter().map(|(at, record)| may_live(record, *at as u64, &dead));
    assert_eq!(asked.collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn whole_records_are_read_and_one_that_is_cut_off_waits_unless_it_is_the_first() {
    let bytes = encoded(&[(Kind::Set, b"1"), (Kind::Set, b"22")]);
    let first = encoded(&[(Kind::Set, b"1")]).len();
    for end in 0..=bytes.len() {
        let found = intact(&bytes[..end], SALT).map(|found| found.len());
        match end {
            _ if end < first => assert!(matches!(found, Err((0, Damage::Cut(_)))), "{found:?}"),
            _ => assert_eq!(found, Ok(1 + usize::from(end == bytes.len()))),
        }
    }
    let mut damaged = bytes.clone();
    damaged[first + 4] = 9;
    assert_eq!(intact(&damaged, SALT).unwrap_err(), (first, Damage::Kind(9)));
}
