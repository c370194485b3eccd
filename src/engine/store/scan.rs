//! The bytes of one segment as they come: every one is accounted for, as part
//! of a record or of a damaged range.
//!
//! Not here: whether the segment belongs to the store, and what it tells of
//! others ([`survey`](mod@super::survey)).
//!
//! Invariant: all that is searched behind damage takes a time that grows with
//! the bytes and no faster ([`checksums`](super::checksums);
//! `values_full_of_headers_do_not_make_the_search_behind_damage_long`).

use super::checksums::Checksums;
use super::header::{HEADER_BYTES, Header};
use super::record::{self, Kind, Record};
use super::replay::is_room;

/// What is found in a segment, one after another.
pub(super) enum Piece<'a> {
    /// The file itself, which has so many bytes.
    File(usize),
    /// An intact header.
    Header(Header),
    /// An intact record, and where it is.
    Record(usize, Record<'a>),
    /// An intact record of a segment that does not belong here, and where it is.
    Foreign(usize, Record<'a>),
    /// Bytes that are none: where they begin, where they end, and why.
    Damage(usize, usize, String),
    /// Nothing in the segment is the store's, and why.
    Lost(String),
    /// The segment, or all from it on to another, has to be there and is not.
    Missing(String),
    /// Zeros up to the end of the file, written ahead of records: where they begin.
    Room(usize),
}

/// The pieces of a segment's bytes, header left out, one after another.
pub(super) struct Scan<'a> {
    /// The whole segment, made ready to be searched behind damage.
    checksums: Checksums<'a>,
    /// The seed of its checksums.
    salt: u32,
    /// Whether it may end with zeros, which only the newest does.
    is_newest: bool,
    /// Where the next piece begins.
    at: usize,
    /// Whether the mark that the segment is continued was found: nothing may follow it.
    is_over: bool,
}

impl<'a> Scan<'a> {
    /// The pieces of the segment that has these bytes and this header.
    pub(super) fn new(bytes: &'a [u8], header: Header, is_newest: bool) -> Scan<'a> {
        Scan {
            checksums: Checksums::new(bytes),
            salt: header.salt,
            is_newest,
            at: HEADER_BYTES,
            is_over: false,
        }
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let (start, bytes) = (self.at, self.checksums.bytes());
        if start >= bytes.len() {
            return None;
        }
        if self.is_over {
            self.at = bytes.len();
            return Some(Piece::Damage(start, self.at, "they follow the last record".to_owned()));
        }
        match record::decode_at(&self.checksums, start, self.salt) {
            Ok(record) => {
                self.at += record.len();
                self.is_over = record.kind == Kind::Continued;
                Some(Piece::Record(start, record))
            }
            Err(_) if self.is_newest && is_room(&bytes[start..]) => {
                self.at = bytes.len();
                Some(Piece::Room(start))
            }
            Err(damage) => {
                let is_record =
                    |at: &usize| record::decode_at(&self.checksums, *at, self.salt).is_ok();
                self.at = (start + 1..bytes.len()).find(is_record).unwrap_or(bytes.len());
                Some(Piece::Damage(start, self.at, damage.to_string()))
            }
        }
    }
}
