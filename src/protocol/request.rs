//! Requests: what a client asks, and the line that says it.
//!
//! Not here: replies ([`reply`](super::reply)), and words
//! ([`token`](super::token)).

use std::borrow::Cow;

use super::SHOWN_CHARS_MAX;
use super::reply::Fault;
use super::token::{Tokens, is_blank, push_token};
use crate::error::Code;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// `SET key value`
    Set {
        /// The key to set.
        key: Cow<'a, str>,
        /// Its new value.
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
    /// `AUTH token`
    Auth {
        /// What should be the server's secret.
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

/// Reads one line, without its ending, as a request.
///
/// # Errors
///
/// The fault to answer. A line that is no request and looks like HTTP gives
/// [`Code::Http`]: a web page can make a browser send such lines, so the
/// connection ends before what follows them is looked at.
pub fn decode_request(line: &[u8]) -> std::result::Result<Request<'_>, Fault> {
    let request = match str::from_utf8(line) {
        Ok(line) => decode_words(line),
        Err(error) => Err(Fault::new(
            Code::Utf8,
            format!("the line is not UTF-8 from byte {} on", error.valid_up_to() + 1),
        )),
    };
    request.map_err(|fault| if looks_like_http(line) { http_fault() } else { fault })
}

/// The fault for a line over the limit, given how it `begins`, if it is that of
/// HTTP: else a page would only have to make its lines long enough for what
/// follows them to be looked at. Five bytes tell, and a limit under four lets no
/// request through that changes anything.
pub(crate) fn decode_beginning(begins: &[u8]) -> Option<Fault> {
    begins_like_http(begins).then(http_fault)
}

/// Reads a line of UTF-8 as a request.
fn decode_words(line: &str) -> std::result::Result<Request<'_>, Fault> {
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

/// The fault for a line that begins with no verb.
fn unknown_verb(verb: &str) -> Fault {
    if verb.is_empty() {
        return Fault::new(Code::Syntax, "a line begins with a verb, not with a blank");
    }
    let shown: String = verb.chars().take(SHOWN_CHARS_MAX).collect();
    let message = format!("no verb is called '{}'; HELP lists them", shown.escape_debug());
    Fault::new(Code::UnknownVerb, message)
}

/// The fault that ends the connection.
fn http_fault() -> Fault {
    Fault::new(Code::Http, "this is no web server; the connection ends")
}

/// Whether a line that is no request is one that HTTP begins with.
fn looks_like_http(line: &[u8]) -> bool {
    let last = line.rsplit(|byte| is_blank(*byte)).find(|word| !word.is_empty());
    last.is_some_and(|last| last.starts_with(b"HTTP/")) || begins_like_http(line)
}

/// Whether the first word of a line is one of those that HTTP begins a line with
/// before it comes to what a web page has chosen.
fn begins_like_http(line: &[u8]) -> bool {
    let first = line.split(|byte| is_blank(*byte)).find(|word| !word.is_empty());
    first.is_some_and(|first| {
        first.eq_ignore_ascii_case(b"POST") || first.eq_ignore_ascii_case(b"Host:")
    })
}

/// Appends a request's line, ending included.
pub fn encode_request(request: &Request<'_>, out: &mut Vec<u8>) {
    let (verb, words): (&[u8], &[&str]) = match request {
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
