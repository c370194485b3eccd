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
    Set(Cow<'a, str>, Cow<'a, str>),
    /// `GET key`
    Get(Cow<'a, str>),
    /// `RM key`
    Remove(Cow<'a, str>),
    /// `SCAN [cursor]`; without a cursor, the first page of a scan
    Scan(Option<Cow<'a, str>>),
    /// `AUTH token`
    Auth(Cow<'a, str>),
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

type Decoded<'a> = std::result::Result<Request<'a>, Fault>;
type Decode = for<'a> fn(&mut Tokens<'a>) -> Decoded<'a>;

/// The verbs, and how their tokens are decoded. The most frequent ones come first.
const VERBS: [(&str, Decode); 10] = [
    ("GET", |tokens| words(tokens, "GET key").map(|[key]| Request::Get(key))),
    ("SET", |tokens| words(tokens, "SET key value").map(|[key, value]| Request::Set(key, value))),
    ("RM", |tokens| words(tokens, "RM key").map(|[key]| Request::Remove(key))),
    ("SCAN", |tokens| match tokens.is_at_end() {
        true => Ok(Request::Scan(None)),
        false => words(tokens, "SCAN [cursor]").map(|[cursor]| Request::Scan(Some(cursor))),
    }),
    ("AUTH", |tokens| words(tokens, "AUTH token").map(|[token]| Request::Auth(token))),
    ("PING", |tokens| words(tokens, "PING").map(|[]| Request::Ping)),
    ("STATS", |tokens| words(tokens, "STATS").map(|[]| Request::Stats)),
    ("HELP", |tokens| words(tokens, "HELP").map(|[]| Request::Help)),
    ("QUIT", |tokens| words(tokens, "QUIT").map(|[]| Request::Quit)),
    ("SHUTDOWN", |tokens| words(tokens, "SHUTDOWN").map(|[]| Request::Shutdown)),
];

impl Request<'_> {
    /// The verb, and its tokens.
    pub(crate) fn parts(&self) -> (&'static str, [Option<&str>; 2]) {
        match self {
            Request::Set(key, value) => ("SET", [Some(key), Some(value)]),
            Request::Get(key) => ("GET", [Some(key), None]),
            Request::Remove(key) => ("RM", [Some(key), None]),
            Request::Scan(cursor) => ("SCAN", [cursor.as_deref(), None]),
            Request::Auth(token) => ("AUTH", [Some(token), None]),
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
pub fn decode_request(line: &[u8]) -> Decoded<'_> {
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
    request.map_err(|fault| {
        let last = line.rsplit(|byte| is_blank(*byte)).find(|word| !word.is_empty());
        let ends_like_http = last.is_some_and(|last| last.starts_with(b"HTTP/"));
        if ends_like_http || begins_like_http(line) { Fault::http() } else { fault }
    })
}

/// Decodes a line of UTF-8 as a request.
fn decode_words(line: &str) -> Decoded<'_> {
    let start = line.bytes().take_while(|byte| is_blank(*byte)).count();
    let verb_len = line[start..].bytes().position(is_blank).unwrap_or(line.len() - start);
    let verb = &line[start..start + verb_len];
    match VERBS.iter().find(|(name, _)| verb.eq_ignore_ascii_case(name)) {
        Some((_, decode)) => decode(&mut Tokens::new(line, start + verb_len)),
        None if verb.is_empty() => {
            Err(Fault::new(Code::Syntax, "the line has no verb; HELP lists them"))
        }
        None => {
            let shown: String = verb.chars().take(SHOWN_CHARS_MAX).collect();
            let message = format!("no verb is called '{shown}'; HELP lists them");
            Err(Fault::new(Code::UnknownVerb, message))
        }
    }
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

/// Whether the first word of a line is one that HTTP sends before anything that a web
/// page can choose. Five bytes of the line are enough to tell.
pub(crate) fn begins_like_http(line: &[u8]) -> bool {
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
