//! Lines that are decoded together, before the first of them is executed: an
//! engine that knows which keys will be read can look them up at once.
//!
//! Not here: executing them. Who does not get to the end of a group takes the
//! inbox back to where the next line began.

use super::inbox::{Inbox, Piece, Place};
use crate::protocol::{Fault, Request, decode_beginning, decode_request};

/// Lines whose keys are looked up together: enough that waits for memory overlap.
const GROUP_LINES_MAX: usize = 32;
/// Bytes of lines from which on a group takes no more. What a group holds that
/// may not be executed any more is decoded again later.
const GROUP_BYTES_MAX: usize = 16 << 10;

/// What a piece of input asks for.
#[derive(Debug)]
pub(super) enum Asked<'a> {
    /// A request.
    Request(Request<'a>),
    /// None: the line is wrong.
    Fault(Fault),
    /// None: the line is over the limit.
    TooLong,
    /// None: the input ended within the line.
    CutOff,
    /// Nothing: the input has ended.
    End,
}

/// The next lines, and where each began.
pub(super) fn take_group(inbox: &mut Inbox) -> Vec<(Place, Asked<'_>)> {
    let mut group = Vec::with_capacity(GROUP_LINES_MAX);
    let mut pieces = inbox.pieces();
    let start = pieces.place().executed;
    while group.len() < GROUP_LINES_MAX && pieces.place().executed - start < GROUP_BYTES_MAX {
        let place = pieces.place();
        let asked = match pieces.next() {
            Piece::Line(line) => decode_request(line).map_or_else(Asked::Fault, Asked::Request),
            Piece::TooLong(begins) => decode_beginning(begins).map_or(Asked::TooLong, Asked::Fault),
            Piece::CutOff => Asked::CutOff,
            Piece::End => Asked::End,
            Piece::Wait => break,
            Piece::Nothing => continue,
        };
        let is_end = matches!(asked, Asked::CutOff | Asked::End);
        group.push((place, asked));
        if is_end {
            break;
        }
    }
    group
}

/// The keys that a group reads; none for a single line, which gains nothing.
pub(super) fn keys<'a>(group: &'a [(Place, Asked<'_>)]) -> Vec<&'a str> {
    let mut keys = Vec::new();
    for (_, asked) in group.iter().filter(|_| group.len() > 1) {
        if let Asked::Request(Request::Get { key }) = asked {
            keys.push(key.as_ref());
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_bounded_in_lines_and_in_bytes_and_the_next_has_what_follows() {
        let long = format!("PING{:1$}\n", "", GROUP_BYTES_MAX / 2 - 5);
        for (line, most) in [("PING\n", GROUP_LINES_MAX), (&long, 2)] {
            let mut inbox = Inbox::new(GROUP_BYTES_MAX);
            inbox.take_in(line.repeat(most + 1).as_bytes());
            assert_eq!(take_group(&mut inbox).len(), most);
            assert_eq!(take_group(&mut inbox).len(), 1);
        }
    }
}
