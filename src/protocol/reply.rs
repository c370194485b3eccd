//! Replies: what the server answers, and the line of each.

use std::borrow::Cow;

use super::LineEnding;
use super::token::{BLANKS, Tokens, push_escaped, push_quoted, push_token};
use crate::error::{Code, KvsError};

/// Precedes each cause in the message of an error.
const CAUSED_BY: &str = "; caused by: ";

/// What the server answers. [`protocol`](super) has the line of each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the grammar of `protocol` explains each")]
pub enum Reply {
    Ok,
    Value(String),
    NotFound,
    Keys { next: Option<String>, keys: Vec<String> },
    Pong,
    Stats(Vec<(String, String)>),
    Help(String),
    Error(Fault),
}

/// Why a request failed, in the form that is sent to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// For programs.
    pub code: Code,
    /// For people: the messages of the error and its causes, outermost first.
    pub messages: Vec<String>,
}

impl Fault {
    /// A fault without causes.
    pub fn new(code: Code, message: impl Into<String>) -> Fault {
        Fault { code, messages: vec![message.into()] }
    }

    pub(crate) fn http() -> Fault {
        Fault::new(Code::Http, "this is not a web server; the connection closes")
    }

    /// Returns true if the server closes the connection after this fault.
    pub fn closes(&self) -> bool {
        self.code == Code::Http
    }
}

impl From<&KvsError> for Fault {
    fn from(error: &KvsError) -> Fault {
        let code = match error {
            KvsError::TooLarge { .. } => Code::TooLong,
            KvsError::BadCursor(_) => Code::Syntax,
            _ => Code::Storage,
        };
        Fault { code, messages: error.chain() }
    }
}

/// Appends the line of a reply, with this ending.
pub fn encode_reply(reply: &Reply, ending: LineEnding, out: &mut Vec<u8>) {
    match reply {
        Reply::Ok => out.extend_from_slice(b"OK"),
        Reply::Value(value) => {
            out.extend_from_slice(b"VALUE ");
            push_token(out, value, char::is_control);
        }
        Reply::NotFound => out.extend_from_slice(b"NOT_FOUND"),
        Reply::Keys { next, keys } => {
            out.extend_from_slice(b"KEYS ");
            match next.as_deref() {
                None => out.push(b'-'),
                Some("-") => push_quoted(out, "-", char::is_control),
                Some(cursor) => push_token(out, cursor, char::is_control),
            }
            for key in keys {
                out.push(b' ');
                push_token(out, key, char::is_control);
            }
        }
        Reply::Pong => out.extend_from_slice(b"PONG"),
        Reply::Stats(stats) => {
            out.extend_from_slice(b"STATS");
            for (name, value) in stats {
                out.extend_from_slice(format!(" {name}=").as_bytes());
                push_token(out, value, char::is_control);
            }
        }
        Reply::Help(text) => push_escaped(out, &format!("HELP {text}"), char::is_control),
        Reply::Error(Fault { code, messages }) => {
            let text = format!("ERR {} {}", code.as_str(), messages.join(CAUSED_BY));
            push_escaped(out, &text, char::is_control);
        }
    }
    if ending == LineEnding::CrLf {
        out.push(b'\r');
    }
    out.push(b'\n');
}

/// Decodes one line, without its ending, as a reply.
///
/// # Errors
///
/// [`KvsError::BadReply`] if the line is not a reply.
pub fn decode_reply(line: &[u8]) -> crate::Result<Reply> {
    let bad = |reason| KvsError::BadReply { reason };
    let line = str::from_utf8(line).map_err(|error| bad(error.to_string()))?;
    decode_utf8(line).ok_or_else(|| {
        let beginning = format!("{line:.32}");
        bad(format!("it begins '{}'", beginning.escape_debug()))
    })
}

fn decode_utf8(line: &str) -> Option<Reply> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut tokens = Tokens { len: rest.len(), rest };
    let reply = match word {
        "HELP" => return Some(Reply::Help(rest.to_owned())),
        "ERR" => {
            let (name, message) = rest.split_once(' ').unwrap_or((rest, ""));
            let (code, _) = Code::NAMES.into_iter().find(|(_, it)| *it == name)?;
            let messages = message.split(CAUSED_BY).map(str::to_owned).collect();
            return Some(Reply::Error(Fault { code, messages }));
        }
        _ if line.ends_with(BLANKS) => return None,
        "OK" => Reply::Ok,
        "VALUE" => Reply::Value(tokens.next()?.ok()?.into_owned()),
        "NOT_FOUND" => Reply::NotFound,
        "KEYS" => {
            let is_last = rest.split(' ').next() == Some("-");
            let cursor = tokens.next()?.ok()?.into_owned();
            let keys =
                tokens.by_ref().map(|key| key.map(Cow::into_owned)).collect::<Result<_, _>>();
            Reply::Keys { next: (!is_last).then_some(cursor), keys: keys.ok()? }
        }
        "PONG" => Reply::Pong,
        "STATS" => {
            let mut stats = Vec::new();
            while !tokens.rest.is_empty() {
                let (name, rest) = tokens.rest.trim_start_matches(' ').split_once('=')?;
                tokens.rest = rest;
                stats.push((name.to_owned(), tokens.next()?.ok()?.into_owned()));
            }
            Reply::Stats(stats)
        }
        _ => return None,
    };
    tokens.rest.is_empty().then_some(reply)
}
