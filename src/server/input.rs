//! The input of a client, split into lines and decoded.
//!
//! Lines are decoded in groups. A caller that cannot execute all of a group
//! goes back to the first line that is left.
//!
//! Invariants:
//! * `consumed <= scanned <= bytes.len()`. No byte of an incomplete line is searched for
//!   a newline twice, so a line that arrives byte by byte costs no more
//!   (`no_byte_is_searched_twice`).
//! * After execution the buffer holds at most one line of the maximum length. A
//!   longer line is dropped as it arrives (`an_endless_line_needs_little_memory`).
//!   Its fault is returned when it ends, since a reply ends as its line does.
//! * Every line that is not empty is returned exactly once
//!   (`lines_do_not_depend_on_splits`).

use std::io::BufRead;

use super::execute::UNAUTHENTICATED_BYTES_MAX;
use crate::protocol::{Code, Fault, LineEnding, Request, decode_beginning, decode_request};

const INCOMPLETE: &str = "the input ended within this line, so it was not executed";

/// A decoded line.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// Where it begins.
    pub(super) start: Position,
    pub(super) request: Result<Request<'a>, Fault>,
    pub(super) ending: LineEnding,
}

/// How far the input was read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    /// Bytes that were returned as lines, or skipped.
    consumed: usize,
    /// Bytes that were searched for a newline.
    scanned: usize,
    /// Set while the rest of a line over the limit is skipped: whether that line
    /// begins like HTTP.
    skipping: Option<bool>,
}

/// What a client has sent.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// The start of a [`Line`] makes the next call return that line again.
    pub(super) position: Position,
    pub(super) is_ended: bool,
}

impl Input {
    /// Appends what was read from the socket. Nothing means that the input has ended.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.is_ended |= bytes.is_empty();
        self.bytes.extend_from_slice(bytes);
    }

    /// Decodes the next lines, at most `count` of them.
    pub(super) fn next_lines(&mut self, count: usize, line_bytes_max: usize) -> Vec<Line<'_>> {
        let Input { bytes, position, is_ended } = self;
        let mut lines = Vec::with_capacity(count);
        while lines.len() < count {
            let start = *position;
            let Some((request, ending)) = position.next_line(bytes, *is_ended, line_bytes_max)
            else {
                break;
            };
            lines.push(Line { start, request, ending });
        }
        lines
    }

    /// Removes the bytes that were consumed.
    pub(super) fn discard_consumed(&mut self) {
        self.bytes.drain(..self.position.consumed);
        self.position.scanned -= self.position.consumed;
        self.position.consumed = 0;
        if self.position.skipping.is_some() {
            self.free_unused();
        }
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Input { is_ended: self.is_ended, ..Input::default() };
    }

    pub(super) fn free_unused(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Whether there may be a line to return.
    pub(super) fn is_pending(&self) -> bool {
        let Position { consumed, scanned, skipping } = self.position;
        let has_last_line = consumed < self.bytes.len() || skipping.is_some();
        scanned < self.bytes.len() || (self.is_ended && has_last_line)
    }
}

impl Position {
    /// Decodes the next line; `None` if there is none yet. Skips empty lines.
    fn next_line<'a>(
        &mut self,
        bytes: &'a [u8],
        is_ended: bool,
        limit: usize,
    ) -> Option<(Result<Request<'a>, Fault>, LineEnding)> {
        while let Some(newline) = self.find_newline(bytes) {
            let (line, ending) = LineEnding::split(&bytes[self.consumed..newline]);
            self.consumed = newline + 1;
            self.note_length(line, limit);
            if let Some(is_http) = self.skipping.take() {
                return Some((Err(long_line(is_http, limit)), ending));
            }
            if !line.is_empty() {
                return Some((decode_request(line), ending));
            }
        }
        let rest = &bytes[self.consumed..];
        // A carriage return at the end may belong to the line's ending.
        self.note_length(rest.strip_suffix(b"\r").unwrap_or(rest), limit);
        let is_long = self.skipping;
        if is_ended {
            *self = Position { consumed: bytes.len(), scanned: bytes.len(), skipping: None };
        } else if is_long.is_some() {
            self.consumed = bytes.len() - usize::from(rest.ends_with(b"\r"));
        }
        let fault = match is_long {
            _ if !is_ended => return None,
            Some(is_http) => long_line(is_http, limit),
            None if rest.is_empty() || rest == b"\r" => return None,
            None => Fault::new(Code::Incomplete, INCOMPLETE),
        };
        Some((Err(fault), LineEnding::Lf))
    }

    /// Searches the bytes that were not searched before.
    fn find_newline(&mut self, bytes: &[u8]) -> Option<usize> {
        // std's way to call memchr. It cannot fail on a slice.
        self.scanned += (&bytes[self.scanned..]).skip_until(b'\n').unwrap_or_default();
        let last = self.scanned.checked_sub(1)?;
        (last >= self.consumed && bytes[last] == b'\n').then_some(last)
    }

    /// Starts to skip a line, of which `line` is the first part, if it is too long.
    fn note_length(&mut self, line: &[u8], limit: usize) {
        if self.skipping.is_none() && line.len() > limit {
            self.skipping = Some(decode_beginning(&line[..=limit]).is_some());
        }
    }
}

/// The fault of a line over the limit.
fn long_line(is_http: bool, limit: usize) -> Fault {
    if is_http {
        return Fault::http();
    }
    let message = format!("the line is longer than the limit of {limit} bytes");
    let hint = format!(" (--max-line; {UNAUTHENTICATED_BYTES_MAX} before AUTH)");
    Fault::new(Code::TooLong, message + &hint)
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
