//! The input of a client, split into lines and decoded.
//!
//! Lines are decoded in groups. If a line of a group must not be executed yet, the
//! caller rewinds to it. What a request does belongs to
//! [`execute`](super::execute).
//!
//! Invariants:
//! * `consumed <= scanned <= bytes.len()`. No byte is searched for a newline
//!   twice, so a line that arrives byte by byte costs no more
//!   (`no_byte_is_searched_twice`).
//! * After execution the buffer holds at most one line of the maximum length. A
//!   longer line is dropped as it arrives (`an_endless_line_needs_little_memory`).
//!   Its fault is returned when it ends, since a reply ends as its line does.
//! * Every line that is not empty is returned exactly once
//!   (`lines_do_not_depend_on_splits`).

use std::io::BufRead;

use crate::protocol::{Code, Fault, LineEnding, Request, decode_beginning, decode_request};

/// Number of lines that are decoded together, so that the engine can look up
/// their keys together.
const GROUP_LINES_MAX: usize = 32;

/// The next part of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A line that holds a request.
    Request(Request<'a>, LineEnding),
    /// A line that is wrong, too long or cut off.
    Fault(Fault, LineEnding),
    /// The input has ended.
    End,
}

/// How far the input was read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    /// Bytes that were returned as lines, or skipped.
    consumed: usize,
    /// Bytes that were searched for a newline.
    scanned: usize,
    /// Set while the rest of a line over the limit is skipped.
    skipping: Option<LongLine>,
}

/// What is known about a line over the limit.
#[derive(Clone, Copy, Debug)]
struct LongLine {
    limit: usize,
    /// Whether it begins like HTTP.
    is_http: bool,
}

/// What a client has sent.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// The bytes that are not discarded.
    bytes: Vec<u8>,
    /// How far they were read.
    position: Position,
    /// Whether there may be a line to return.
    pending: bool,
    /// Whether no more bytes will come.
    ended: bool,
}

impl Input {
    /// Appends what was read from the socket; nothing means that the input has
    /// ended. `line_bytes_max` only bounds the capacity.
    pub(super) fn append(&mut self, bytes: &[u8], line_bytes_max: usize) {
        self.ended |= bytes.is_empty();
        self.pending = true;
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() {
            // Doubling keeps growth linear. More than a line and a read is never held.
            let most = line_bytes_max.saturating_add(1 + bytes.len());
            let capacity = self.bytes.capacity().saturating_mul(2).min(most).max(needed);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Decodes the next lines, each with the position where it begins. Fewer than
    /// [`GROUP_LINES_MAX`] if `is_single`, or if more input is needed.
    pub(super) fn next_group(
        &mut self,
        line_bytes_max: usize,
        is_single: bool,
    ) -> Vec<(Position, Line<'_>)> {
        let lines_max = if is_single { 1 } else { GROUP_LINES_MAX };
        let mut group = Vec::with_capacity(lines_max);
        let mut lines = self.lines(line_bytes_max);
        while group.len() < lines_max && *lines.pending {
            let position = *lines.position;
            group.extend(lines.next().map(|line| (position, line)));
        }
        group
    }

    /// The lines that were received. Longer ones than `line_bytes_max` are faults.
    fn lines(&mut self, line_bytes_max: usize) -> Lines<'_> {
        Lines {
            bytes: &self.bytes,
            ended: self.ended,
            limit: line_bytes_max,
            position: &mut self.position,
            pending: &mut self.pending,
        }
    }

    /// Returns to a position, so that the lines after it are returned again.
    pub(super) fn rewind(&mut self, position: Position) {
        self.position = position;
        self.pending = true;
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

    /// Removes everything, including what will be appended.
    pub(super) fn clear(&mut self) {
        *self = Input { ended: self.ended, ..Input::default() };
    }

    /// Frees unused memory.
    pub(super) fn free_unused(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Whether there may be a line to return.
    pub(super) fn is_pending(&self) -> bool {
        self.pending
    }

    /// Whether no more bytes will come.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }
}

/// Iterates over the lines of an [`Input`], which stays unchanged meanwhile.
struct Lines<'a> {
    bytes: &'a [u8],
    ended: bool,
    limit: usize,
    position: &'a mut Position,
    pending: &'a mut bool,
}

impl<'a> Lines<'a> {
    /// The next line; `None` if more input is needed. Empty lines are skipped.
    fn next(&mut self) -> Option<Line<'a>> {
        while let Some(newline) = self.find_newline() {
            let line = &self.bytes[self.position.consumed..newline];
            let (text, ending) = LineEnding::split(line);
            self.position.consumed = newline + 1;
            if let Some(long_line) = self.position.skipping.take() {
                return Some(Line::Fault(long_line.fault(), ending));
            }
            if text.len() > self.limit {
                return Some(Line::Fault(self.long_line(text).fault(), ending));
            }
            if !text.is_empty() {
                return Some(match decode_request(text) {
                    Ok(request) => Line::Request(request, ending),
                    Err(fault) => Line::Fault(fault, ending),
                });
            }
        }
        self.rest()
    }

    /// Searches the bytes that were not searched before.
    fn find_newline(&mut self) -> Option<usize> {
        // std's way to call memchr. It cannot fail on a slice.
        let mut rest = &self.bytes[self.position.scanned..];
        self.position.scanned += rest.skip_until(b'\n').unwrap_or_default();
        let last = self.position.scanned.checked_sub(1)?;
        (last >= self.position.consumed && self.bytes[last] == b'\n').then_some(last)
    }

    /// Handles the bytes after the last newline.
    fn rest(&mut self) -> Option<Line<'a>> {
        let rest = &self.bytes[self.position.consumed..];
        // One byte over the limit may be the carriage return.
        if self.position.skipping.is_none() && rest.len() > self.limit.saturating_add(1) {
            self.position.skipping = Some(self.long_line(rest));
        }
        if self.ended {
            self.position.consumed = self.bytes.len();
            return Some(self.last_line(rest));
        }
        if self.position.skipping.is_some() {
            // The last byte may belong to the ending.
            self.position.consumed = self.bytes.len() - usize::from(rest.ends_with(b"\r"));
        }
        *self.pending = false;
        None
    }

    /// What the bytes after the last newline are at the end of the input.
    fn last_line(&mut self, rest: &[u8]) -> Line<'a> {
        if let Some(long_line) = self.position.skipping.take() {
            return Line::Fault(long_line.fault(), LineEnding::Lf);
        }
        if !rest.is_empty() && rest != b"\r" {
            let message = "the input ended within this line, so it was not executed";
            return Line::Fault(Fault::new(Code::Incomplete, message), LineEnding::Lf);
        }
        *self.pending = false;
        Line::End
    }

    /// What is known about a line that begins with `text` and is over the limit.
    fn long_line(&self, text: &[u8]) -> LongLine {
        let is_http = decode_beginning(&text[..=self.limit]).is_some();
        LongLine { limit: self.limit, is_http }
    }
}

impl LongLine {
    /// The fault to reply.
    fn fault(self) -> Fault {
        if self.is_http {
            return Fault::http();
        }
        let message = format!("the line is longer than the limit of {} bytes", self.limit);
        Fault::new(Code::TooLong, message)
    }
}

/// The keys that several lines read. A single line gains nothing from prefetching.
pub(super) fn keys<'a>(group: &'a [(Position, Line<'_>)]) -> Vec<&'a str> {
    let keys = group.iter().filter_map(|(_, line)| match line {
        Line::Request(Request::Get { key }, _) => Some(key.as_ref()),
        _ => None,
    });
    if group.len() > 1 { keys.collect() } else { Vec::new() }
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
