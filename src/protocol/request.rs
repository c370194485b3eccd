//! Requests: what a client asks, and the line of each.
//!
//! Replies are in [`reply`](super::reply), tokens in [`token`](super::token).

use std::borrow::Cow;

use super::SHOWN_CHARS_MAX;
use super::reply::Fault;
use super::token::{Tokens, is_blank, push_token};
use crate::error::Code;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request<'a> {
    /// `SET key value`
    Set {
        /// The key to set.
        key: Cow<'a, str>,
        /// The new value.
        value: Cow<'a, str>,
    },
    /// `GET key`
    Get {
        /// The key to read.
        key: Cow<'a, str>,
    },
    /// `RM key`
    Remove {
        /// The key to remove.
        key: Cow<'a, str>,
    },
    /// `SCAN [cursor]`
    Scan {
        /// The cursor of a page; `None` for the first page.
        cursor: Option<Cow<'a, str>>,
    },
    /// `AUTH token`
    Auth {
        /// The server's secret, if the client knows it.
        token: Cow<'a, str>,
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

impl Request<'_> {
    /// The verb, and its tokens.
    pub(crate) fn parts(&self) -> (&'static str, [Option<&str>; 2]) {
        match self {
            Request::Set { key, value } => ("SET", [Some(key), Some(value)]),
            Request::Get { key } => ("GET", [Some(key), None]),
            Request::Remove { key } => ("RM", [Some(key), None]),
            Request::Scan { cursor } => ("SCAN", [cursor.as_deref(), None]),
            Request::Auth { token } => ("AUTH", [Some(token), None]),
            Request::Ping => ("PING", [None, None]),
            Request::Stats => ("STATS", [None, None]),
            Request::Help => ("HELP", [None, None]),
            Request::Quit => ("QUIT", [None, None]),
            Request::Shutdown => ("SHUTDOWN", [None, None]),
        }
    }
}

/// Decodes one line, without its ending, as a request.
///
/// # Errors
///
/// The fault to answer. [`Code::Http`] if the line is not a request and looks
/// like HTTP: a web page can make a browser send such lines, so the connection
/// closes before the lines after it are executed.
pub fn decode_request(line: &[u8]) -> std::result::Result<Request<'_>, Fault> {
    let request = match str::from_utf8(line) {
        Ok(line) => decode_words(line),
        Err(error) => Err(Fault::new(
            Code::Utf8,
            format!(
                "the line is not UTF-8 from byte {} on; store binary data as text, such as base64",
                error.valid_up_to() + 1
            ),
        )),
    };
    request.map_err(|fault| if looks_like_http(line) { Fault::http() } else { fault })
}

/// The fault for a line over the limit that begins like HTTP. Without it, a web
/// page could send a long line first to have later lines executed. Five bytes
/// are enough to tell; under a smaller limit no request fits that changes data.
pub(crate) fn decode_beginning(begins: &[u8]) -> Option<Fault> {
    begins_like_http(begins).then(Fault::http)
}

/// Decodes a line of UTF-8 as a request.
fn decode_words(line: &str) -> std::result::Result<Request<'_>, Fault> {
    let start = line.bytes().take_while(|byte| is_blank(*byte)).count();
    let verb_len = line[start..].bytes().position(is_blank).unwrap_or(line.len() - start);
    let verb = &line[start..start + verb_len];
    let mut tokens = Tokens::new(line, start + verb_len);
    let is = |name: &str| verb.eq_ignore_ascii_case(name);
    if is("GET") {
        words(&mut tokens, "GET key").map(|[key]| Request::Get { key })
    } else if is("SET") {
        words(&mut tokens, "SET key value").map(|[key, value]| Request::Set { key, value })
    } else if is("RM") {
        words(&mut tokens, "RM key").map(|[key]| Request::Remove { key })
    } else if is("SCAN") {
        decode_scan(&mut tokens)
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

/// Decodes the optional token of `SCAN`.
fn decode_scan<'a>(tokens: &mut Tokens<'a>) -> std::result::Result<Request<'a>, Fault> {
    if tokens.is_at_end() {
        return Ok(Request::Scan { cursor: None });
    }
    words(tokens, "SCAN [cursor]").map(|[cursor]| Request::Scan { cursor: Some(cursor) })
}

/// The remaining tokens, if there are exactly `N`.
pub(super) fn words<'a, const N: usize>(
    tokens: &mut Tokens<'a>,
    usage: &str,
) -> std::result::Result<[Cow<'a, str>; N], Fault> {
    let syntax = |message| Fault::new(Code::Syntax, message);
    let wrong_count = || syntax(format!("usage: {usage}"));
    let mut words = [const { Cow::Borrowed("") }; N];
    for word in &mut words {
        *word = tokens.next().map_err(syntax)?.ok_or_else(wrong_count)?;
    }
    match tokens.next().map_err(syntax)? {
        None => Ok(words),
        Some(_) => Err(wrong_count()),
    }
}

/// The fault for a line that does not begin with a verb.
fn unknown_verb(verb: &str) -> Fault {
    if verb.is_empty() {
        return Fault::new(Code::Syntax, "the line has no verb; HELP lists them");
    }
    let shown: String = verb.chars().take(SHOWN_CHARS_MAX).collect();
    Fault::new(Code::UnknownVerb, format!("no verb is called '{shown}'; HELP lists them"))
}

/// Whether a line that is not a request looks like the first line of HTTP.
fn looks_like_http(line: &[u8]) -> bool {
    let last = line.rsplit(|byte| is_blank(*byte)).find(|word| !word.is_empty());
    last.is_some_and(|last| last.starts_with(b"HTTP/")) || begins_like_http(line)
}

/// Whether the first word is one that HTTP sends before anything that a web
/// page can choose.
fn begins_like_http(line: &[u8]) -> bool {
    let first = line.split(|byte| is_blank(*byte)).find(|word| !word.is_empty());
    first.is_some_and(|first| {
        first.eq_ignore_ascii_case(b"POST") || first.eq_ignore_ascii_case(b"Host:")
    })
}

/// Appends the line of a request. It ends with LF, and so does its reply.
pub fn encode_request(request: &Request<'_>, out: &mut Vec<u8>) {
    let (verb, words) = request.parts();
    out.extend_from_slice(verb.as_bytes());
    for word in words.into_iter().flatten() {
        out.push(b' ');
        push_token(out, word);
    }
    out.push(b'\n');
}
