//! Requests: what a client asks, and the line of each.

use std::borrow::Cow;
use std::str::Utf8Error;

use super::reply::Fault;
use super::token::{BLANKS, Tokens, is_blank, push_token};
use super::{Code, shown};

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the comment of a variant names its fields")]
pub enum Request<'a> {
    /// `SET key value`
    Set { key: Cow<'a, str>, value: Cow<'a, str> },
    /// `GET key`
    Get { key: Cow<'a, str> },
    /// `RM key`
    Remove { key: Cow<'a, str> },
    /// `SCAN [cursor]`, without a cursor for the first page.
    Scan { cursor: Option<Cow<'a, str>> },
    /// `AUTH token`
    Auth { token: Cow<'a, str> },
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

/// Decodes one line, without its ending, as a request.
///
/// # Errors
///
/// The fault to reply with. [`Code::Http`] if the line is not a request and looks
/// like HTTP: a web page can make a browser send such lines, so the connection
/// closes before the lines after it are executed.
pub fn decode_request(line: &[u8]) -> Result<Request<'_>, Fault> {
    let not_utf8 = |error: Utf8Error| {
        let from = error.valid_up_to() + 1;
        let hint = "store binary data as text, such as base64";
        Fault::new(Code::Utf8, format!("the line is not UTF-8 from byte {from} on; {hint}"))
    };
    str::from_utf8(line).map_err(not_utf8).and_then(decode_utf8).map_err(|fault| {
        let last = line.rsplit(is_blank).find(|word| !word.is_empty());
        let is_http = last.is_some_and(|last| last.starts_with(b"HTTP/"));
        if is_http { Fault::http() } else { decode_beginning(line).unwrap_or(fault) }
    })
}

/// The fault for a line that begins with a word that HTTP sends before anything that a
/// web page can choose. The server also calls this with the beginning of a line over the
/// limit. Otherwise a web page could send such a line first to have later lines executed.
/// Five bytes are enough to tell. Under a smaller limit no request that changes data fits.
pub(crate) fn decode_beginning(line: &[u8]) -> Option<Fault> {
    let first = line.split(is_blank).find(|word| !word.is_empty())?;
    let is_http = first.eq_ignore_ascii_case(b"POST") || first.eq_ignore_ascii_case(b"Host:");
    is_http.then(Fault::http)
}

fn decode_utf8(line: &str) -> Result<Request<'_>, Fault> {
    let mut tokens = Tokens::new(line);
    let verb = tokens.next_until(BLANKS);
    let is = |name: &str| verb.eq_ignore_ascii_case(name);
    match verb {
        _ if is("GET") => words(tokens, "GET key").map(|[key]| Request::Get { key }),
        _ if is("SET") => {
            words(tokens, "SET key value").map(|[key, value]| Request::Set { key, value })
        }
        _ if is("RM") => words(tokens, "RM key").map(|[key]| Request::Remove { key }),
        _ if is("SCAN") && tokens.is_at_end() => Ok(Request::Scan { cursor: None }),
        _ if is("SCAN") => {
            words(tokens, "SCAN [cursor]").map(|[it]| Request::Scan { cursor: Some(it) })
        }
        _ if is("AUTH") => words(tokens, "AUTH token").map(|[token]| Request::Auth { token }),
        _ if is("PING") => words(tokens, "PING").map(|[]| Request::Ping),
        _ if is("STATS") => words(tokens, "STATS").map(|[]| Request::Stats),
        _ if is("HELP") => words(tokens, "HELP").map(|[]| Request::Help),
        _ if is("QUIT") => words(tokens, "QUIT").map(|[]| Request::Quit),
        _ if is("SHUTDOWN") => words(tokens, "SHUTDOWN").map(|[]| Request::Shutdown),
        _ if verb.is_empty() => {
            Err(Fault::new(Code::Syntax, "the line has no verb; HELP lists them"))
        }
        _ => {
            let message = format!("no verb is called '{}'; HELP lists them", shown(verb));
            Err(Fault::new(Code::UnknownVerb, message))
        }
    }
}

/// The remaining tokens, if there are exactly `N`.
fn words<'a, const N: usize>(
    mut tokens: Tokens<'a>,
    usage: &str,
) -> Result<[Cow<'a, str>; N], Fault> {
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
