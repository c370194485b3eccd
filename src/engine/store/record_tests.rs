//! The format: what was encoded is decoded, and nothing else is.

use super::*;

fn encoded(salt: u32, kind: Kind, synced: bool, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Record { kind, synced, key, value }.encode(&mut out, salt);
    out
}

fn a_record() -> Vec<u8> {
    encoded(9, Kind::Set, false, b"key", b"value")
}

const HEADER: SegmentHeader =
    SegmentHeader { number: 7, store: 0x0123_4567_89AB_CDEF, previous_len: 99, salt: 0xDEAD_BEEF };

#[test]
fn the_example_in_the_documentation_is_right() {
    let hex = |byte: &u8| format!("{byte:02x}");
    let bytes: Vec<String> = encoded(0, Kind::Set, true, b"a", b"1").iter().map(hex).collect();
    let example = include_str!("record.rs").lines().find(|line| line.contains("| 81 |"));
    assert_eq!(bytes.join(" "), example.unwrap()["//! ".len()..].replace("| ", ""));
}

#[test]
fn what_was_encoded_is_decoded() {
    let kinds = [Kind::Set, Kind::Remove, Kind::Checkpoint, Kind::Cleaned];
    for (kind, synced) in kinds.into_iter().zip([true, false].into_iter().cycle()) {
        let mut bytes = encoded(9, kind, synced, "k\u{e9}y".as_bytes(), b"value");
        let len = bytes.len();
        bytes.extend_from_slice(b"more");
        let record = Record::decode(&bytes, 9).unwrap();
        assert_eq!((record.kind, record.synced), (kind, synced));
        assert_eq!((record.key, record.value), ("k\u{e9}y".as_bytes(), &b"value"[..]));
        assert_eq!(RecordHeader::decode(&bytes, 9).unwrap().len(), len);
    }
    let position = Position { segment: 0x0102_0304, offset: 0xA0B0_C0D0 };
    let bytes = encoded(9, Kind::Checkpoint, true, &position.encode(), &5u32.to_le_bytes());
    assert_eq!(bytes.len(), CHECKPOINT_BYTES_MAX);
    let record = Record::decode(&bytes, 9).unwrap();
    assert_eq!((record.checkpoint(), record.next_salt()), (Some(position), Some(5)));
    let bytes = encoded(9, Kind::Cleaned, true, &6u32.to_le_bytes(), b"");
    assert_eq!(Record::decode(&bytes, 9).unwrap().cleaned(), Some(6));
    assert_eq!(SegmentHeader::decode(&HEADER.encode()), Ok(HEADER));
}

/// What is not a checkpoint names no position, and so on.
#[test]
fn other_records_name_nothing() {
    let bytes = a_record();
    let record = Record::decode(&bytes, 9).unwrap();
    assert_eq!((record.checkpoint(), record.next_salt(), record.cleaned()), (None, None, None));
    for kind in [Kind::Checkpoint, Kind::Cleaned] {
        let bytes = encoded(9, kind, false, b"odd", b"odd");
        let record = Record::decode(&bytes, 9).unwrap();
        assert_eq!((record.checkpoint(), record.next_salt(), record.cleaned()), (None, None, None));
    }
}

#[test]
fn every_flipped_bit_is_detected() {
    let bytes = a_record();
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Record::decode(&bytes, 9).is_err(), "bit {bit}");
    }
    let bytes = HEADER.encode();
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit} of a segment header");
    }
}

#[test]
fn every_cut_is_detected() {
    let bytes = a_record();
    for end in 0..bytes.len() {
        assert_eq!(Record::decode(&bytes[..end], 9), Err(CUT));
    }
    for end in 0..SEGMENT_HEADER_BYTES {
        let cut = SegmentHeader::decode(&HEADER.encode()[..end]);
        assert_eq!(cut, Err(HeaderError::Damaged("the header is cut off")));
    }
}

#[test]
fn another_salt_does_not_match() {
    assert_eq!(Record::decode(&a_record(), 10), Err(BAD_HEADER));
    let header = RecordHeader::decode(&a_record(), 9).unwrap();
    assert_eq!(header.record(&a_record(), 10), Err(BAD_BODY));
}

#[test]
fn lengths_are_checked_before_use() {
    let with_lengths = |key: &[u8], value_len: u32| {
        let mut bytes = encoded(9, Kind::Set, false, key, b"");
        bytes[12..RECORD_HEADER_BYTES].copy_from_slice(&value_len.to_le_bytes());
        let crc = crc32c(9, &bytes[4..RECORD_HEADER_BYTES]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        Record::decode(&bytes, 9).err()
    };
    assert_eq!(with_lengths(b"key", VALUE_BYTES_MAX as u32), Some(CUT));
    assert_eq!(with_lengths(b"key", VALUE_BYTES_MAX as u32 + 1), Some(UNKNOWN));
    let longest = vec![7; KEY_BYTES_MAX];
    let bytes = encoded(9, Kind::Set, false, &longest, b"");
    assert_eq!(Record::decode(&bytes, 9).unwrap().key, longest);
}

#[test]
fn a_newer_version_is_named() {
    let mut bytes = HEADER.encode();
    bytes[8] = 3;
    // Only the version differs from an intact header.
    assert!(matches!(SegmentHeader::decode(&bytes), Err(HeaderError::Damaged(_))));
    let crc = crc32c(0, &bytes[..32]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Version(3)));
    // Whatever the rest of its header looks like.
    bytes[12..].fill(0xFF);
    assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Version(3)));
}

#[test]
fn zeros_are_not_a_record() {
    // The salt for which the checksum of zeros is zero is found by no chance here,
    // and the kind is wrong even then.
    for salt in (0..1 << 20).map(|nth: u32| nth.wrapping_mul(4_093)) {
        assert!(RecordHeader::decode(&[0; 64], salt).is_err());
    }
}

#[test]
fn an_unknown_kind_is_refused() {
    let mut bytes = a_record();
    bytes[8] = 5;
    let crc = crc32c(9, &bytes[4..RECORD_HEADER_BYTES]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Record::decode(&bytes, 9), Err(UNKNOWN));
}
