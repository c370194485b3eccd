//! Replies: what the server answers, and the line that says it.
//!
//! Not here: requests ([`request`](super::request)), and words
//! ([`token`](super::token)).

use super::SHOWN_CHARS_MAX;
use super::request::words;
use super::token::{Tokens, push_text, push_token};
use crate::error::{Code, KvsError, Result};

/// Stands before each cause in the message of an error.
const CAUSED_BY: &str = "; caused by: ";

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `OK`
    Ok,
    /// `VALUE token`
    Value(String),
    /// `NOT_FOUND`
    NotFound,
    /// `PONG`
    Pong,
    /// `STATS name=value ..`
    Stats(Vec<(String, u64)>),
    /// `HELP` and one line that names the verbs.
    Help(String),
    /// `ERR code message`
    Error(Fault),
}

/// Why a request was not carried out, as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// For programs.
    pub code: Code,
    /// For people: the messages of the error and its causes, outermost first.
    pub messages: Vec<String>,
}

impl Fault {
    /// A fault with one message.
    pub fn new(code: Code, message: impl Into<String>) -> Fault {
        Fault { code, messages: vec![message.into()] }
    }

    /// Whether the server ends the connection after it.
    pub fn closes(&self) -> bool {
        self.code == Code::Http
    }
}

impl From<&KvsError> for Fault {
    fn from(error: &KvsError) -> Fault {
        let code = match error {
            KvsError::TooLarge { .. } => Code::TooLong,
            _ => Code::Storage,
        };
        Fault { code, messages: error.chain() }
    }
}

/// Reads one line, without its ending, as a reply.
///
/// # Errors
///
/// [`KvsError::BadReply`] when it is none.
pub fn decode_reply(line: &[u8]) -> Result<Reply> {
    let bad = |reason: String| KvsError::BadReply { reason };
    let line = str::from_utf8(line).map_err(|error| bad(error.to_string()))?;
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let reply = match (word, rest) {
        ("OK", "") => Some(Reply::Ok),
        ("NOT_FOUND", "") => Some(Reply::NotFound),
        ("PONG", "") => Some(Reply::Pong),
        ("VALUE", _) => {
            let [value] = words(&mut Tokens::new(rest, 0), "VALUE token")
                .map_err(|fault| bad(fault.messages.concat()))?;
            Some(Reply::Value(value.into_owned()))
        }
        ("STATS", _) => {
            rest.split_whitespace().map(decode_stat).collect::<Option<_>>().map(Reply::Stats)
        }
        ("HELP", _) => Some(Reply::Help(rest.to_owned())),
        ("ERR", _) => decode_fault(rest).map(Reply::Error),
        _ => None,
    };
    reply.ok_or_else(|| {
        let shown: String = line.chars().take(SHOWN_CHARS_MAX).collect();
        bad(format!("it begins '{}'", shown.escape_debug()))
    })
}

/// Reads `name=value`.
fn decode_stat(word: &str) -> Option<(String, u64)> {
    let (name, value) = word.split_once('=')?;
    Some((name.to_owned(), value.parse().ok()?))
}

/// Reads a code and a message.
fn decode_fault(rest: &str) -> Option<Fault> {
    let (word, message) = rest.split_once(' ').unwrap_or((rest, ""));
    let code = Code::ALL.into_iter().find(|code| code.as_str() == word)?;
    Some(Fault { code, messages: message.split(CAUSED_BY).map(str::to_owned).collect() })
}

/// Appends a reply's line, ending included.
pub fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Ok => out.extend_from_slice(b"OK"),
        Reply::Value(value) => {
            out.extend_from_slice(b"VALUE ");
            push_token(out, value);
        }
        Reply::NotFound => out.extend_from_slice(b"NOT_FOUND"),
        Reply::Pong => out.extend_from_slice(b"PONG"),
        Reply::Stats(stats) => {
            out.extend_from_slice(b"STATS");
            for (name, value) in stats {
                out.extend_from_slice(format!(" {name}={value}").as_bytes());
            }
        }
        Reply::Help(text) => {
            out.extend_from_slice(b"HELP ");
            push_text(out, text);
        }
        Reply::Error(fault) => {
            out.extend_from_slice(format!("ERR {} ", fault.code.as_str()).as_bytes());
            push_text(out, &fault.messages.join(CAUSED_BY));
        }
    }
    out.push(b'\n');
}
