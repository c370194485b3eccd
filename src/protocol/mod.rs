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
//! QUIT             OK, and the connection ends
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
//! * A request or reply that was encoded is decoded as it was.

mod token;

use self::token::{Tokens, is_blank, push_text, push_token};
use crate::error::{KvsError, Result};

/// Bytes a request line may have, its ending left out, unless set otherwise.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Stands before each cause in the message of an error.
const CAUSED_BY: &str = "; caused by: ";
/// Characters of an unknown verb that the fault repeats.
const VERB_CHARS_MAX: usize = 32;
/// What `HELP` answers.
pub const HELP: &str =
    "SET key value | GET key | RM key | AUTH token | PING | STATS | HELP | QUIT | SHUTDOWN";

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `SET key value`
    Set {
        /// The key to set.
        key: String,
        /// Its new value.
        value: String,
    },
    /// `GET key`
    Get {
        /// The key to read.
        key: String,
    },
    /// `RM key`
    Remove {
        /// The key to remove.
        key: String,
    },
    /// `AUTH token`
    Auth {
        /// What should be the server's secret.
        token: String,
    },
    /// `PING`
    Ping,
    /// `STATS`
    Stats,
    /// `HELP`
    Help,
    /// `QUIT`
    Quit,
    /// `SHUTDOWN`
    Shutdown,
}

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

/// The closed list of error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Not of the grammar, or the wrong number of words for the verb.
    Syntax,
    /// No such verb.
    UnknownVerb,
    /// The line, the key or the value is longer than its limit.
    TooLong,
    /// The line is not UTF-8.
    Utf8,
    /// The connection ended in the middle of the line.
    Incomplete,
    /// The peer speaks HTTP; the connection is closed.
    Http,
    /// The engine failed.
    Storage,
    /// The secret is missing or wrong.
    Auth,
    /// The server was told never to do this.
    Forbidden,
    /// The server serves as many clients as it may.
    Busy,
}

impl Code {
    /// Every code.
    const ALL: [Code; 10] = [
        Code::Syntax,
        Code::UnknownVerb,
        Code::TooLong,
        Code::Utf8,
        Code::Incomplete,
        Code::Http,
        Code::Storage,
        Code::Auth,
        Code::Forbidden,
        Code::Busy,
    ];

    /// The code's word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Syntax => "syntax",
            Code::UnknownVerb => "unknown-verb",
            Code::TooLong => "too-long",
            Code::Utf8 => "utf8",
            Code::Incomplete => "incomplete",
            Code::Http => "http",
            Code::Storage => "storage",
            Code::Auth => "auth",
            Code::Forbidden => "forbidden",
            Code::Busy => "busy",
        }
    }
}

/// Reads one line, without its ending, as a request.
///
/// # Errors
///
/// The fault to answer. A line that is no request and looks like HTTP gives
/// [`Code::Http`]: a web page can make a browser send such lines, so the
/// connection ends before what follows them is looked at.
pub fn decode_request(line: &[u8]) -> std::result::Result<Request, Fault> {
    let request = match str::from_utf8(line) {
        Ok(line) => decode_words(line),
        Err(error) => Err(Fault::new(
            Code::Utf8,
            format!("the line is not UTF-8 from byte {} on", error.valid_up_to() + 1),
        )),
    };
    request.map_err(|fault| {
        if looks_like_http(line) {
            return Fault::new(Code::Http, "this is no web server; the connection ends");
        }
        fault
    })
}

/// Reads a line of UTF-8 as a request.
fn decode_words(line: &str) -> std::result::Result<Request, Fault> {
    let verb_len = line.bytes().position(is_blank).unwrap_or(line.len());
    let verb = &line[..verb_len];
    let mut tokens = Tokens::new(line, verb_len);
    let is = |name: &str| verb.eq_ignore_ascii_case(name);
    if is("GET") {
        words(&mut tokens, "GET key").map(|[key]| Request::Get { key })
    } else if is("SET") {
        words(&mut tokens, "SET key value").map(|[key, value]| Request::Set { key, value })
    } else if is("RM") {
        words(&mut tokens, "RM key").map(|[key]| Request::Remove { key })
    } else if is("AUTH") {
        words(&mut tokens, "AUTH token").map(|[token]| Request::Auth { token })
    } else if is("PING") {
        words(&mut tokens, "PING").map(|[]| Request::Ping)
    } else if is("STATS") {
        words(&mut tokens, "STATS").map(|[]| Request::Stats)
    } else if is("HELP") {
        words(&mut tokens, "HELP").map(|[]| Request::Help)
    } else if is("QUIT") {
        words(&mut tokens, "QUIT").map(|[]| Request::Quit)
    } else if is("SHUTDOWN") {
        words(&mut tokens, "SHUTDOWN").map(|[]| Request::Shutdown)
    } else {
        Err(unknown_verb(verb))
    }
}

/// Exactly `N` tokens, all that are left.
fn words<const N: usize>(
    tokens: &mut Tokens<'_>,
    usage: &str,
) -> std::result::Result<[String; N], Fault> {
    let syntax = |message| Fault::new(Code::Syntax, message);
    let wrong_count = || syntax(format!("usage: {usage}"));
    let mut words = [const { String::new() }; N];
    for word in &mut words {
        *word = tokens.next().map_err(syntax)?.ok_or_else(wrong_count)?;
    }
    match tokens.next().map_err(syntax)? {
        None => Ok(words),
        Some(_) => Err(wrong_count()),
    }
}

/// The fault for a line that begins with no verb.
fn unknown_verb(verb: &str) -> Fault {
    if verb.is_empty() {
        return Fault::new(Code::Syntax, "a line begins with a verb, not with a blank");
    }
    let shown: String = verb.chars().take(VERB_CHARS_MAX).collect();
    let message = format!("no verb is called '{}'; HELP lists them", shown.escape_debug());
    Fault::new(Code::UnknownVerb, message)
}

/// Whether a line that is no request is one that HTTP begins with.
fn looks_like_http(line: &[u8]) -> bool {
    let mut words = line.split(|byte| is_blank(*byte)).filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default();
    let last = words.next_back().unwrap_or(first);
    last.starts_with(b"HTTP/")
        || first.eq_ignore_ascii_case(b"POST")
        || first.eq_ignore_ascii_case(b"Host:")
}

/// Appends a request's line, ending included.
pub fn encode_request(request: &Request, out: &mut Vec<u8>) {
    let (verb, words): (&[u8], &[&String]) = match request {
        Request::Set { key, value } => (b"SET", &[key, value]),
        Request::Get { key } => (b"GET", &[key]),
        Request::Remove { key } => (b"RM", &[key]),
        Request::Auth { token } => (b"AUTH", &[token]),
        Request::Ping => (b"PING", &[]),
        Request::Stats => (b"STATS", &[]),
        Request::Help => (b"HELP", &[]),
        Request::Quit => (b"QUIT", &[]),
        Request::Shutdown => (b"SHUTDOWN", &[]),
    };
    out.extend_from_slice(verb);
    for word in words {
        out.push(b' ');
        push_token(out, word);
    }
    out.push(b'\n');
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
            Some(Reply::Value(value))
        }
        ("STATS", _) => {
            rest.split_whitespace().map(decode_stat).collect::<Option<_>>().map(Reply::Stats)
        }
        ("HELP", _) => Some(Reply::Help(rest.to_owned())),
        ("ERR", _) => decode_fault(rest).map(Reply::Error),
        _ => None,
    };
    reply.ok_or_else(|| {
        let shown: String = line.chars().take(VERB_CHARS_MAX).collect();
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

#[cfg(test)]
mod tests;
