//! What a client has sent, as lines.
//!
//! Not here: what a line says, and how it came.
//!
//! Lines are handed out within a turn and taken back by
//! [`rollback`](Inbox::rollback), up to the last [`commit`](Inbox::commit).
//!
//! Invariants:
//! * `executed <= scanned <= bytes.len()`, and `bytes[executed..scanned]` has no
//!   newline: no byte is searched twice, so a line that comes byte by byte
//!   costs no more than one that comes at once (`no_byte_is_searched_twice`).
//! * Between turns the inbox holds no more than one line of the limit and what
//!   was read last. The rest of a line over the limit is dropped as it comes
//!   (`an_endless_line_needs_no_more_memory_than_a_line`).
//! * Every line that is not empty is handed out once, whatever is in it, unless
//!   it is taken back, or the connection ends before it
//!   (`lines_are_the_same_wherever_they_are_split`).

use std::io::BufRead;

use super::buffer::{release, reserve};

/// What comes next in an inbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A line, without its ending.
    Line(&'a [u8]),
    /// A line over the limit, which is skipped, whether or not it is all here: its
    /// first bytes, one more than the limit.
    TooLong(&'a [u8]),
    /// The input ended within a line.
    CutOff,
    /// An empty line, or the end of one that was too long.
    Nothing,
    /// More input is needed.
    Wait,
    /// There is no more input.
    End,
}

/// How far an inbox has been handed out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// Bytes that have been handed out since the last commit.
    pub(super) executed: usize,
    /// Bytes that have been searched for a newline.
    scanned: usize,
    /// Whether the next bytes are the rest of a line that was too long.
    skipping: bool,
}

/// What a client has sent.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// What is not committed.
    bytes: Vec<u8>,
    /// Bytes that a line may have, its ending left out.
    line_bytes_max: usize,
    /// Where this turn is.
    place: Place,
    /// Where it began.
    turn_start: Place,
    /// Whether there may be a piece to hand out.
    pending: bool,
    /// Whether no more bytes come.
    ended: bool,
}

impl Inbox {
    /// An empty one.
    pub(super) fn new(line_bytes_max: usize) -> Inbox {
        Inbox {
            bytes: Vec::new(),
            line_bytes_max,
            place: Place::default(),
            turn_start: Place::default(),
            pending: false,
            ended: false,
        }
    }

    /// Appends what was read.
    pub(super) fn take_in(&mut self, bytes: &[u8]) {
        let most = self.line_bytes_max.saturating_add(1).saturating_add(bytes.len());
        reserve(&mut self.bytes, bytes.len(), most);
        self.bytes.extend_from_slice(bytes);
        self.pending = true;
    }

    /// Whether it may take in more: lines that are executed and not committed stay,
    /// and are not to make it longer than one line may.
    pub(super) fn has_room(&self) -> bool {
        self.place.executed == 0 || self.bytes.len() <= self.line_bytes_max
    }

    /// Takes note that no more bytes come.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.pending = true;
    }

    /// What there is, to be handed out piece by piece.
    pub(super) fn pieces(&mut self) -> Pieces<'_> {
        Pieces {
            bytes: &self.bytes,
            line_bytes_max: self.line_bytes_max,
            ended: self.ended,
            place: &mut self.place,
            pending: &mut self.pending,
        }
    }

    /// Takes back what was handed out since, to be handed out again.
    pub(super) fn go_back(&mut self, place: Place) {
        self.place = place;
        self.pending = true;
    }

    /// Makes final what was handed out.
    pub(super) fn commit(&mut self) {
        let executed = std::mem::take(&mut self.place.executed);
        self.place.scanned -= executed;
        self.bytes.drain(..executed);
        self.turn_start = self.place;
    }

    /// Takes back what was handed out since the last commit, to be handed out
    /// again, and says how many bytes that were.
    pub(super) fn rollback(&mut self) -> usize {
        let executed = self.executed();
        self.go_back(self.turn_start);
        executed
    }

    /// Gives back the room that an idle client does not need.
    pub(super) fn release(&mut self) {
        release(&mut self.bytes);
    }

    /// Bytes of memory that it takes.
    #[cfg(test)]
    pub(super) fn room_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Drops what is there; nothing is to be handed out any more.
    pub(super) fn clear(&mut self) {
        *self = Inbox { ended: self.ended, ..Inbox::new(self.line_bytes_max) };
    }

    /// Bytes handed out since the last commit.
    pub(super) fn executed(&self) -> usize {
        self.place.executed
    }

    /// Whether there may be a piece to hand out.
    pub(super) fn is_pending(&self) -> bool {
        self.pending
    }

    /// Whether no more bytes come.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }
}

/// The pieces of an inbox, which stay as they are while it is borrowed.
pub(super) struct Pieces<'a> {
    /// What is not committed.
    bytes: &'a [u8],
    /// As in the inbox.
    line_bytes_max: usize,
    /// As in the inbox.
    ended: bool,
    /// Where the next piece begins.
    place: &'a mut Place,
    /// Whether there may be one.
    pending: &'a mut bool,
}

impl<'a> Pieces<'a> {
    /// Hands out the next piece.
    pub(super) fn next(&mut self) -> Piece<'a> {
        match self.find_newline() {
            Some(newline) => self.take_line(newline),
            None => self.take_rest(),
        }
    }

    /// Where the line that is due ends, looking only at what was not looked at.
    fn find_newline(&mut self) -> Option<usize> {
        // std's way to the C library's memchr, which compares many bytes at a
        // time; it cannot fail on a slice.
        let mut rest = &self.bytes[self.place.scanned..];
        self.place.scanned += rest.skip_until(b'\n').unwrap_or_default();
        let last = self.place.scanned.checked_sub(1)?;
        (last >= self.place.executed && self.bytes[last] == b'\n').then_some(last)
    }

    /// Hands out the line that ends at `newline`.
    fn take_line(&mut self, newline: usize) -> Piece<'a> {
        let line = without_cr(&self.bytes[self.place.executed..newline]);
        self.place.executed = newline + 1;
        let is_rest_of_skipped = std::mem::take(&mut self.place.skipping);
        match line.len() {
            _ if is_rest_of_skipped => Piece::Nothing,
            0 => Piece::Nothing,
            len if len > self.line_bytes_max => Piece::TooLong(&line[..=self.line_bytes_max]),
            _ => Piece::Line(line),
        }
    }

    /// Hands out what follows from the bytes after the last newline.
    fn take_rest(&mut self) -> Piece<'a> {
        let rest = &self.bytes[self.place.executed..];
        // One byte more than a line may have can still be its carriage return.
        let is_too_long = rest.len() > self.line_bytes_max.saturating_add(1);
        let piece = match rest {
            // More of a line that is answered already.
            _ if self.place.skipping && self.ended => Piece::End,
            _ if self.place.skipping => Piece::Wait,
            _ if is_too_long => Piece::TooLong(&rest[..=self.line_bytes_max]),
            _ if !self.ended => return self.wait_for_line(),
            b"" | b"\r" => Piece::End,
            _ => Piece::CutOff,
        };
        // None of it becomes a line any more.
        self.place.executed = self.bytes.len();
        self.place.skipping |= is_too_long;
        // An answer is not the last piece: a wait for more or the end follows it.
        *self.pending = matches!(piece, Piece::TooLong(_) | Piece::CutOff);
        piece
    }

    /// Keeps what has come of a line until there is more.
    fn wait_for_line(&mut self) -> Piece<'a> {
        *self.pending = false;
        Piece::Wait
    }

    /// Where it is: [`go_back`](Inbox::go_back) leads there until the next commit.
    pub(super) fn place(&self) -> Place {
        *self.place
    }
}

/// The line without the one carriage return that may end it.
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
