//! What there is in a store's directory, intact or not: every byte of every
//! segment is accounted for.
//!
//! A segment belongs to the store if its header says so, with the number in its
//! name and the store's id. The id is that of most segments: whichever of them
//! is another store's, even the oldest, it is not to have all the others taken
//! for foreign. Where as many have another id, the oldest has the say, as it has
//! when a store is opened.
//!
//! A store's numbers have no gaps, a record tells which segments were cleaned,
//! and each segment but the newest ends with the mark that it is continued. So
//! the names and the records tell which segments are missing. A damaged record
//! cannot: what it may have retired is then called missing too.
//!
//! Not here: printing ([`inspect`](super::inspect)) and mending
//! ([`repair`](super::repair)), which are handed the same pieces.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::directory::{Directory, segment_name};
use super::disk::{OsDisk, read_full};
use super::header::{HEADER_BYTES, Header};
use super::record::Kind;
use super::recover::{is_empty, why_foreign};
use super::scan::{Piece, Scan};
use super::segment::read_whole;
use crate::error::{KvsError, Result};

/// Gives `see` every piece of every segment, oldest segment first, with its path,
/// and then what is missing.
pub(super) fn survey(
    directory: &Directory<OsDisk>,
    mut see: impl FnMut(&Path, Piece<'_>) -> Result<()>,
) -> Result<()> {
    let numbers = directory.segment_numbers()?;
    if numbers.is_empty() {
        return see(directory.path(), Piece::Missing("its segments are gone".to_owned()));
    }
    let mut survey = Survey::new(directory, &numbers)?;
    let mut bytes = Vec::new();
    for &number in &numbers {
        let path = directory.segment_path(number);
        read_whole(&directory.open_segment(number)?, &path, &mut bytes)?;
        survey.segment(number, &bytes, &mut |piece| see(&path, piece))?;
    }
    for run in survey.missing(&numbers) {
        see(&directory.segment_path(run.first), Piece::Missing(run.to_string()))?;
    }
    Ok(())
}

/// A run of segments that are missing.
struct Missing {
    /// The number of the first.
    first: u32,
    /// That of the last.
    last: u32,
    /// Whether it may have been cleaned, were there a record that tells so.
    is_before_all: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "the segment is missing")?,
            false => write!(f, "all segments up to {} are missing", segment_name(self.last))?,
        }
        let why = if self.is_before_all { ", and no record tells of its cleaning" } else { "" };
        f.write_str(why)
    }
}

/// What the segments tell of the store, and of one another.
struct Survey {
    /// The store's id; `None` when no header tells.
    store: Option<u64>,
    /// The first and the last number of those that are not foreign, if there are any.
    ends: Option<(u32, u32)>,
    /// Whether the last of them has no records.
    is_last_empty: bool,
    /// The highest number of a segment that a record has retired.
    retired: u32,
    /// Whether the newest that was seen ends with the mark that it is continued.
    is_continued: bool,
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
        let mut survey =
            Survey { store, ends: None, is_last_empty: false, retired: 0, is_continued: false };
        // One whose header is damaged may be the store's: its place is taken.
        let is_own = |(number, header): &(u32, Option<Header>)| {
            (*header).is_none_or(|header| survey.why_foreign(header, *number).is_none())
        };
        let own: Vec<u32> = headers.iter().filter(|it| is_own(it)).map(|it| it.0).collect();
        if let (Some(&first), Some(&last)) = (own.first(), own.last()) {
            survey.ends = Some((first, last));
            survey.is_last_empty = is_empty(directory, last)?;
        }
        Ok(survey)
    }

    /// Why the segment with this header and the number in its name is foreign.
    fn why_foreign(&self, header: Header, number: u32) -> Option<String> {
        why_foreign(header, number, self.store.unwrap_or(header.store))
    }

    /// Gives `see` the pieces of the segment with these bytes.
    fn segment(
        &mut self,
        number: u32,
        bytes: &[u8],
        see: &mut impl FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        see(Piece::File(bytes.len()))?;
        let header = match Header::decode(bytes) {
            Ok(header) => header,
            Err(reason) => {
                self.is_continued = false;
                let why = "without its salt no record can be checked";
                return see(Piece::Lost(format!("{reason}; {why}")));
            }
        };
        see(Piece::Header(header))?;
        let is_newest = self.ends.is_some_and(|(_, newest)| newest == number);
        let mut pieces = Scan::new(bytes, header, is_newest);
        let Some(reason) = self.why_foreign(header, number) else {
            return self.own_segment(number, bytes.len(), pieces, see);
        };
        see(Piece::Lost(reason))?;
        pieces.try_for_each(|piece| match piece {
            Piece::Record(at, record) => see(Piece::Foreign(at, record)),
            _ => Ok(()),
        })
    }

    /// Gives `see` the pieces of a segment that is the store's, of `len` bytes,
    /// and notes what they tell of others.
    fn own_segment(
        &mut self,
        number: u32,
        len: usize,
        pieces: Scan<'_>,
        see: &mut impl FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut is_cut_off = self.is_followed(number);
        self.is_continued = false;
        for piece in pieces {
            if let Piece::Record(_, record) = &piece {
                self.is_continued = record.kind == Kind::Continued;
                self.retired = self.retired.max(record.retired().unwrap_or_default());
            }
            // Damage may have been the mark, and is told of anyway.
            is_cut_off &= !self.is_continued && !matches!(piece, Piece::Damage(..));
            see(piece)?;
        }
        if is_cut_off {
            see(Piece::Damage(len, len, "records are cut off at its end".to_owned()))?;
        }
        Ok(())
    }

    /// Whether a segment with records follows this one.
    fn is_followed(&self, number: u32) -> bool {
        let Some((_, newest)) = self.ends else { return false };
        number < newest && !(number + 1 == newest && self.is_last_empty)
    }

    /// The segments that are missing beside those with these numbers, once all were seen.
    fn missing(&self, numbers: &[u32]) -> Vec<Missing> {
        let Some((oldest, newest)) = self.ends else { return Vec::new() };
        let end = newest.saturating_add(self.is_continued.into());
        let mut first = oldest.min(self.retired.saturating_add(1));
        let mut missing = Vec::new();
        let there = numbers.iter().copied().filter(|number| (first..=end).contains(number));
        for number in there.chain(end.checked_add(1)).collect::<Vec<u32>>() {
            if first < number {
                let is_before_all = number <= oldest;
                missing.push(Missing { first, last: number - 1, is_before_all });
            }
            first = number.saturating_add(1);
        }
        missing
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
