//! The text protocol: requests, replies, and how each is written as one line.
//!
//! A client sends lines and gets one reply line for each, in order. Lines are
//! UTF-8. A line ends with LF or CR LF, and **its reply ends the same way**.
//! Empty lines are skipped and get no reply.
//!
//! ```text
//! request = [blanks] verb *( blanks token ) [blanks]  ; blanks = spaces or tabs
//! token   = bare / quoted
//! bare    = 1*( character except blank, control, `"` and `\` / escape )
//! quoted  = a JSON string (RFC 8259)
//! escape  = \" \\ \/ \b \f \n \r \t \uXXXX            ; surrogate pairs included
//!
//! SET key value    OK
//! GET key          VALUE token, or NOT_FOUND
//! RM key           OK, or NOT_FOUND
//! SCAN [cursor]    KEYS next key key ..             ; no cursor for the first page
//! AUTH token       OK, if the token is the server's secret
//! PING             PONG
//! STATS            STATS name=token name=token ..
//! HELP             HELP and the verbs
//! QUIT             OK, then the connection closes; later lines are ignored
//! SHUTDOWN         OK after the server has shut down, then the connection closes
//! anything else    ERR code message
//! ```
//!
//! Verbs are case-insensitive. `next` is the cursor of the scan's next page, or
//! a bare `-` after the last page. The code of an error is for programs. Its
//! message is for people; `; caused by: ` precedes each cause. Encoding quotes a
//! token only when it must. In a reply it escapes every control character (DEL and C1
//! too), as a terminal may interpret it. In a request it leaves DEL and C1 as they are,
//! so that the request is hardly longer than the one that stored the string.
//!
//! Not here: sockets, the enforcement of limits, and engines.
//!
//! Invariants:
//! * Every line decodes to a request or a fault, without a panic
//!   (`any_bytes_decode_without_a_panic`).
//! * Encoding, then decoding, returns the same request or reply
//!   (`every_request_has_its_line`, `every_reply_has_its_line`).

mod reply;
mod request;
mod token;

pub use self::reply::{Fault, Reply, decode_reply, encode_reply};
pub(crate) use self::request::is_http;
pub use self::request::{HELP, Request, decode_request, encode_request};
pub use crate::error::Code;

/// Default maximum length of a request line in bytes, without its ending.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Upper limit of `--max-line`. Each client can make the server hold a line of that length.
pub const LINE_BYTES_LIMIT: usize = 256 << 20;

/// Maximum length of an escape such as `\u001b`, divided by that of its character.
const ESCAPE_FACTOR_MAX: usize = 6;
/// Maximum length of a reply that a client accepts: a value as long as the
/// longest line, with every byte escaped.
pub(crate) const REPLY_BYTES_MAX: usize = "VALUE \"\"".len() + ESCAPE_FACTOR_MAX * LINE_BYTES_LIMIT;

/// A string as a token in quotes, for output that a person reads.
pub fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    token::push_quoted(&mut out, text, char::is_control);
    String::from_utf8_lossy(&out).into_owned()
}

/// How a line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnding {
    /// `\n`
    Lf,
    /// `\r\n`
    CrLf,
}

impl LineEnding {
    /// Splits a line, whose LF is already removed, into its text and its ending.
    pub fn split(line: &[u8]) -> (&[u8], LineEnding) {
        match line.strip_suffix(b"\r") {
            Some(text) => (text, LineEnding::CrLf),
            None => (line, LineEnding::Lf),
        }
    }
}

#[cfg(test)]
mod tests;
