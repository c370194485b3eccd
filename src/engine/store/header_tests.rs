//! Headers, intact and damaged.

use super::*;

const HEADER: Header = Header { number: 7, store: 0x0102_0304_0506_0708, salt: 42 };

#[test]
fn a_header_is_decoded_as_it_was_encoded() {
    assert_eq!(Header::decode(&HEADER.encode()), Ok(HEADER));
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_header_is_seen() {
    let bytes = HEADER.encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::decode(&flipped).is_err(), "bit {bit}");
    }
    for end in 0..bytes.len() {
        assert!(Header::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn another_version_is_named() {
    let mut bytes = HEADER.encode();
    bytes[VERSION_AT] = 9;
    let crc = crc32c(0, &bytes[..CRC_AT]);
    bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    let expected = "its format version is 9; this kvs reads 1";
    assert_eq!(Header::decode(&bytes), Err(expected.to_owned()));
}
