//! Records: what was encoded is decoded, and nothing else is.

use super::*;

fn encoded(salt: u32, kind: Kind, synced: bool, key: &str, value: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, salt, kind, synced, key.as_bytes(), value.as_bytes());
    out
}

#[test]
fn the_example_of_the_module_doc_is_what_is_written() {
    let hex = |byte: &u8| format!("{byte:02x}");
    let bytes: Vec<String> = encoded(0, Kind::Set, true, "a", "1").iter().map(hex).collect();
    let example = include_str!("record.rs").lines().find(|line| line.contains("| 81 |"));
    assert_eq!(bytes.join(" "), example.unwrap()["//! ".len()..].replace("| ", ""));
}

#[test]
fn what_was_encoded_is_decoded() {
    let kinds = [Kind::Set, Kind::Remove, Kind::Mark, Kind::Continued, Kind::Retired];
    for (kind, synced) in kinds.into_iter().zip([true, false].into_iter().cycle()) {
        let mut bytes = encoded(9, kind, synced, "k\u{e9}y", "value");
        let len = bytes.len();
        bytes.extend_from_slice(b"more");
        let record = decode(&bytes, 9).unwrap();
        assert_eq!((record.kind, record.synced, record.len()), (kind, synced, len));
        assert_eq!((record.key, record.value), ("k\u{e9}y".as_bytes(), &b"value"[..]));
    }
}

#[test]
fn every_flipped_bit_is_seen() {
    let bytes = encoded(9, Kind::Set, false, "key", "value");
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bytes, 9).is_err(), "bit {bit}");
    }
}

#[test]
fn every_cut_is_seen() {
    let bytes = encoded(9, Kind::Set, false, "key", "value");
    for end in 0..bytes.len() {
        assert!(matches!(decode(&bytes[..end], 9), Err(Damage::Cut(_))));
    }
}

#[test]
fn another_salt_does_not_pass() {
    let bytes = encoded(9, Kind::Set, false, "key", "value");
    assert_eq!(decode(&bytes, 10), Err(Damage::Checksum));
}

#[test]
fn lengths_are_checked_first() {
    for at in [KEY_LEN, VALUE_LEN] {
        let mut bytes = encoded(9, Kind::Set, false, "key", "value");
        bytes[at..at + 4].fill(0xFF);
        assert_eq!(decode(&bytes, 9), Err(Damage::Length));
    }
    let header = |key_len: usize, value_len: usize| {
        let mut bytes = encoded(9, Kind::Set, false, "", "");
        bytes[KEY_LEN..VALUE_LEN].copy_from_slice(&(key_len as u32).to_le_bytes());
        bytes[VALUE_LEN..].copy_from_slice(&(value_len as u32).to_le_bytes());
        bytes
    };
    let (key, value) = (16 << 20, 512 << 20);
    let longest = HEADER_BYTES + key + value;
    assert_eq!(decode(&header(key, value), 9), Err(Damage::Cut(longest)));
    for header in [header(key + 1, 0), header(0, value + 1)] {
        assert_eq!(decode(&header, 9), Err(Damage::Length));
    }
}

#[test]
fn damage_says_what_it_is() {
    for (damage, message) in [
        (Damage::Cut(20), "the record has 20 bytes, and the file ends first"),
        (Damage::Kind(9), "no record is of kind 9"),
        (Damage::Length, "a length is over its limit"),
        (Damage::Checksum, "the checksum does not match"),
    ] {
        assert_eq!(damage.to_string(), message);
    }
}

#[test]
fn zeros_are_no_record() {
    assert_eq!(decode(&[0; 64], 0), Err(Damage::Kind(0)));
}
