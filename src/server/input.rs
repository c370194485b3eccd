//! The input of a client, split into lines and decoded.
//!
//! Lines are decoded in groups. A caller that cannot execute all of a group
//! goes back to the first line that is left.
//!
//! Invariants:
//! * `consumed <= scanned <= bytes.len()`. No byte of an incomplete line is searched for
//!   a newline twice, so a line that arrives byte by byte costs no more
//!   (`no_byte_is_searched_twice`).
//! * After execution the buffer holds at most one line of the maximum length. Of a
//!   longer line it holds the beginning and the last byte, since a reply ends as its
//!   line does (`an_endless_line_needs_little_memory`).
//! * Every line that is not empty is returned exactly once
//!   (`lines_do_not_depend_on_splits`).

use std::io::BufRead;

use super::execute::UNAUTHENTICATED_BYTES_MAX;
use crate::protocol::{Code, Fault, LineEnding, Request, decode_request, is_http};

const INCOMPLETE: &str = "the input ended within this line, so it was not executed";

/// A decoded line.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// Where it begins.
    pub(super) start: usize,
    pub(super) request: Result<Request<'a>, Fault>,
    pub(super) ending: LineEnding,
}

/// What a client has sent.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// Bytes that were returned as lines, or skipped.
    consumed: usize,
    /// Bytes that were searched for a newline.
    scanned: usize,
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
        let mut lines = Vec::with_capacity(count);
        while lines.len() < count && self.is_pending() {
            let start = self.consumed;
            // std's way to call memchr. It cannot fail on a slice.
            self.scanned += (&self.bytes[self.scanned..]).skip_until(b'\n').unwrap_or_default();
            let line = &self.bytes[start..self.scanned];
            if !line.ends_with(b"\n") && !self.is_ended {
                break;
            }
            self.consumed = self.scanned;
            lines.extend(decode(line, start, line_bytes_max));
        }
        lines
    }

    /// Makes the line that begins at `start`, and those after it, be returned again.
    pub(super) fn rewind(&mut self, start: usize) {
        (self.consumed, self.scanned) = (start, start);
    }

    /// Removes the bytes that were consumed. Of an incomplete line over the limit, it keeps
    /// one byte more than the limit, and the last byte, which may belong to the ending.
    pub(super) fn discard_consumed(&mut self, line_bytes_max: usize) {
        self.bytes.drain(..self.consumed);
        self.scanned -= self.consumed;
        self.consumed = 0;
        let is_incomplete = self.scanned == self.bytes.len();
        if is_incomplete && self.scanned.saturating_sub(2) > line_bytes_max {
            self.bytes.drain(line_bytes_max + 1..self.scanned - 1);
            self.scanned = self.bytes.len();
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
        self.scanned < self.bytes.len() || (self.is_ended && self.consumed < self.bytes.len())
    }
}

/// Decodes a line, which lacks its newline if the input has ended. Returns `None` for an
/// empty line.
fn decode(line: &[u8], start: usize, limit: usize) -> Option<Line<'_>> {
    let (text, ending) = LineEnding::split(line.strip_suffix(b"\n").unwrap_or(line));
    let is_complete = line.ends_with(b"\n");
    let request = match text {
        b"" => return None,
        _ if text.len() > limit => Err(long_line(&text[..=limit], limit)),
        _ if is_complete => decode_request(text),
        _ => Err(Fault::new(Code::Incomplete, INCOMPLETE)),
    };
    Some(Line { start, request, ending: if is_complete { ending } else { LineEnding::Lf } })
}

/// The fault of a line over the limit.
fn long_line(beginning: &[u8], limit: usize) -> Fault {
    if is_http(beginning, false) {
        return Fault::http();
    }
    let message = format!("the line is longer than the limit of {limit} bytes");
    let hint = format!(" (--max-line; {UNAUTHENTICATED_BYTES_MAX} before AUTH)");
    Fault::new(Code::TooLong, message + &hint)
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
