//! What there is in a store's directory, intact or not: every byte of every
//! segment is accounted for.
//!
//! A segment belongs to the store if its header says so, with the number in its
//! name and the store's id. The id is that of most segments: whichever of them
//! is another store's, even the oldest, it is not to have all the others taken
//! for foreign. Where as many have another id, the oldest has the say, as it has
//! when a store is opened.
//!
//! Not here: printing ([`inspect`](super::inspect)) and mending
//! ([`repair`](super::repair)), which are handed the same pieces.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

use super::checksums::Checksums;
use super::directory::Directory;
use super::disk::{OsDisk, read_full};
use super::record::{self, Record};
use super::recover::why_foreign;
use super::replay::is_room;
use super::segment::{HEADER_BYTES, Header, read_whole};
use crate::error::{KvsError, Result};

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
    /// Zeros up to the end of the file, written ahead of records: where they begin.
    Room(usize),
}

/// Gives `see` every piece of every segment, oldest segment first, with its path.
pub(super) fn survey(
    directory: &Directory<OsDisk>,
    mut see: impl FnMut(&Path, Piece<'_>) -> Result<()>,
) -> Result<()> {
    let numbers = directory.segment_numbers()?;
    let survey = Survey::new(directory, &numbers)?;
    let mut bytes = Vec::new();
    for &number in &numbers {
        let path = directory.segment_path(number);
        read_whole(&directory.open_segment(number)?, &path, &mut bytes)?;
        survey.segment(number, &bytes, &mut |piece| see(&path, piece))?;
    }
    Ok(())
}

/// What the headers of the segments tell of the store.
struct Survey {
    /// Its id; `None` when no header tells.
    store: Option<u64>,
    /// The newest segment that is not foreign.
    newest: u32,
}

impl Survey {
    /// Reads the headers of the segments with these numbers.
    fn new(directory: &Directory<OsDisk>, numbers: &[u32]) -> Result<Survey> {
        let mut headers = Vec::new();
        for &number in numbers {
            headers.push((number, read_header(directory, number)?));
        }
        let own = |(number, header): &(u32, Option<Header>)| Some((*number, (*header)?));
        let store = store_of_most(headers.iter().filter_map(own));
        let mut survey = Survey { store, newest: 0 };
        // One whose header is damaged may be the store's: its place is taken.
        let is_own = |(number, header): &(u32, Option<Header>)| {
            (*header).is_none_or(|header| survey.why_foreign(header, *number).is_none())
        };
        let newest = headers.iter().rfind(|it| is_own(it)).map(|(number, _)| *number);
        survey.newest = newest.unwrap_or_default();
        Ok(survey)
    }

    /// Why the segment with this header and the number in its name is foreign.
    fn why_foreign(&self, header: Header, number: u32) -> Option<String> {
        why_foreign(header, number, self.store.unwrap_or(header.store))
    }

    /// Gives `see` the pieces of the segment with these bytes.
    fn segment(
        &self,
        number: u32,
        bytes: &[u8],
        see: &mut impl FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        see(Piece::File(bytes.len()))?;
        let header = match Header::decode(bytes) {
            Ok(header) => header,
            Err(reason) => {
                let why = "without its salt no record can be checked";
                return see(Piece::Lost(format!("{reason}; {why}")));
            }
        };
        see(Piece::Header(header))?;
        let mut pieces = Scan::new(bytes, header, number == self.newest);
        let Some(reason) = self.why_foreign(header, number) else {
            return pieces.try_for_each(see);
        };
        see(Piece::Lost(reason))?;
        pieces.try_for_each(|piece| match piece {
            Piece::Record(at, record) => see(Piece::Foreign(at, record)),
            _ => Ok(()),
        })
    }
}

/// The header of a segment; `None` when it is damaged.
fn read_header(directory: &Directory<OsDisk>, number: u32) -> Result<Option<Header>> {
    let mut bytes = [0; HEADER_BYTES];
    let context = || format!("cannot read {}", directory.segment_path(number).display());
    let read = read_full(&directory.open_segment(number)?, &mut bytes, 0);
    let len = read.map_err(KvsError::io(context()))?;
    Ok(Header::decode(&bytes[..len]).ok())
}

/// The id that most of these headers have, of those with the number in their name.
fn store_of_most(headers: impl Iterator<Item = (u32, Header)>) -> Option<u64> {
    let mut stores: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for (number, header) in headers.filter(|(number, header)| header.number == *number) {
        stores.entry(header.store).or_default().push(number);
    }
    let most = stores.iter().max_by_key(|(_, numbers)| (numbers.len(), Reverse(numbers[0])));
    most.map(|(store, _)| *store)
}

/// The pieces of a segment's bytes, header left out, one after another.
struct Scan<'a> {
    /// The whole segment, made ready to be searched behind damage.
    checksums: Checksums<'a>,
    /// The seed of its checksums.
    salt: u32,
    /// Whether it may end with zeros, which only the newest does.
    is_newest: bool,
    /// Where the next piece begins.
    at: usize,
}

impl<'a> Scan<'a> {
    /// The pieces of the segment that has these bytes and this header.
    fn new(bytes: &'a [u8], header: Header, is_newest: bool) -> Scan<'a> {
        Scan { checksums: Checksums::new(bytes), salt: header.salt, is_newest, at: HEADER_BYTES }
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let (start, bytes) = (self.at, self.checksums.bytes());
        if start >= bytes.len() {
            return None;
        }
        match record::decode_at(&self.checksums, start, self.salt) {
            Ok(record) => {
                self.at += record.len();
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
