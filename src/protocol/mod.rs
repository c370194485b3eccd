//! The text protocol: requests, replies, and the line that each is.
//!
//! A client sends lines and gets one line for each, in order. Lines are UTF-8
//! and end with `\n`; one `\r` before it belongs to the ending. The empty line
//! is skipped.
//!
//! ```text
//! request = verb *( blanks token ) [blanks]    ; blanks = spaces or tabs
//! token   = bare / quoted
//! bare    = 1*( any character but blank, control, `"`, `\` / escape )
//! quoted  = `"` *( any character but control, `"`, `\` / escape ) `"`
//! escape  = \n \r \t \0 \\ \" \' \xHH (up to 7F) \u{H..H} (one to six digits)
//!
//! SET key value    OK
//! GET key          VALUE token, or NOT_FOUND
//! RM key           OK, or NOT_FOUND
//! AUTH token       OK, if the token is the secret that the server was given
//! PING             PONG
//! STATS            STATS name=value name=value ..
//! HELP             HELP and the verbs
//! QUIT             OK, and the connection ends; lines after it are not looked at
//! SHUTDOWN         OK when the server has ended, and the connection ends
//! anything else    ERR code message
//! ```
//!
//! Verbs are read in any case. A message is text for people, in which
//! `; caused by: ` stands before each cause; the code is for programs.
//!
//! These are pure functions on slices. Not here: sockets, the limit on a line's
//! length and its ending ([`server`](crate::KvsServer)), and engines.
//!
//! Invariants:
//! * Every line gives a request or a fault, none a panic
//!   (`any_bytes_are_a_request_or_a_fault`).
//! * A request or reply that was encoded is decoded as it was
//!   (`every_request_has_its_line`, `every_reply_has_its_line`).

mod reply;
mod request;
mod token;

pub use self::reply::{Fault, Reply, decode_reply, encode_reply};
pub(crate) use self::request::decode_beginning;
pub use self::request::{Request, decode_request, encode_request};
pub use crate::error::Code;

use self::token::ESCAPE_FACTOR_MAX;

/// Bytes a request line may have, its ending left out, unless set otherwise.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes it may be set to have at the most: no more than can be held for a client.
pub const LINE_BYTES_LIMIT: usize = 256 << 20;

/// Bytes that a client reads of a reply: a value as long as the longest line, each
/// byte escaped at its worst. A value that came by a line is hardly longer than it
/// was there; the library may have stored others.
pub(crate) const REPLY_BYTES_MAX: usize = "VALUE \"\"".len() + ESCAPE_FACTOR_MAX * LINE_BYTES_LIMIT;

/// What `HELP` answers.
pub const HELP: &str =
    "SET key value | GET key | RM key | AUTH token | PING | STATS | HELP | QUIT | SHUTDOWN";

/// Characters that a message repeats of a line that it complains of.
const SHOWN_CHARS_MAX: usize = 32;

#[cfg(test)]
mod tests;
