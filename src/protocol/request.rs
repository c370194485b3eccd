//! Requests: what a client asks, and the line of each.

use std::borrow::Cow;

use super::reply::Fault;
use super::token::{BLANKS, Tokens, push_token};
use crate::error::Code;

/// The text of the reply to `HELP`: how to use each verb.
pub const HELP: &str = "SET key value | GET key | RM key | SCAN [cursor] | AUTH token | PING | \
    STATS | HELP | QUIT | SHUTDOWN";

/// What a client asks. [`protocol`](super) has the line of each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the grammar of `protocol` explains each")]
pub enum Request<'a> {
    Set { key: Cow<'a, str>, value: Cow<'a, str> },
    Get { key: Cow<'a, str> },
    Remove { key: Cow<'a, str> },
    Scan { cursor: Option<Cow<'a, str>> },
    Auth { token: Cow<'a, str> },
    Ping,
    Stats,
    Help,
    Quit,
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
    let (verb, tokens) = request.parts();
    out.extend_from_slice(verb.as_bytes());
    for token in tokens.into_iter().flatten() {
        out.push(b' ');
        // At most two bytes longer than any token with this string. So a request that
        // fits into a line can be written again.
        push_token(out, token, |char| char < ' ');
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
    let text = str::from_utf8(line).map_err(|error| {
        let from = error.valid_up_to() + 1;
        let hint = "store binary data as text, such as base64";
        Fault::new(Code::Utf8, format!("the line is not UTF-8 from byte {from} on; {hint}"))
    });
    let request = text.and_then(decode_utf8);
    request.map_err(|fault| if is_http(line, true) { Fault::http() } else { fault })
}

/// Returns true if a line looks like HTTP: its last word is an HTTP version, or its first
/// word is `POST` or `Host:`. A browser sends these before any text that a web page chooses.
/// The server also calls this with the beginning of a line over the limit (`is_whole` is
/// false). Otherwise a web page could make its first lines too long, and later lines would
/// be executed. Five bytes are enough for the first word. Under a smaller
/// limit no request that changes data fits.
pub(crate) fn is_http(line: &[u8], is_whole: bool) -> bool {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default();
    let last = words.next_back().unwrap_or(first);
    let has_http_name = first.eq_ignore_ascii_case(b"POST") || first.eq_ignore_ascii_case(b"Host:");
    has_http_name || (is_whole && last.starts_with(b"HTTP/"))
}

fn decode_utf8(line: &str) -> Result<Request<'_>, Fault> {
    let text = line.trim_start_matches(BLANKS);
    let (verb, rest) = text.split_once(BLANKS).unwrap_or((text, ""));
    let mut tokens = Tokens { len: line.len(), rest };
    let is = |name: &str| verb.eq_ignore_ascii_case(name);
    let syntax = |message| Fault::new(Code::Syntax, message);
    let usage = || {
        let is_of_verb = |usage: &&str| usage.split(' ').next().is_some_and(is);
        let usage = HELP.split(" | ").find(is_of_verb).unwrap_or(HELP);
        syntax(format!("usage: {usage}"))
    };
    let mut word = || tokens.next().ok_or_else(usage)?.map_err(syntax);
    let request = match verb {
        _ if is("GET") => Request::Get { key: word()? },
        _ if is("SET") => Request::Set { key: word()?, value: word()? },
        _ if is("RM") => Request::Remove { key: word()? },
        _ if is("SCAN") => Request::Scan { cursor: tokens.next().transpose().map_err(syntax)? },
        _ if is("AUTH") => Request::Auth { token: word()? },
        _ if is("PING") => Request::Ping,
        _ if is("STATS") => Request::Stats,
        _ if is("HELP") => Request::Help,
        _ if is("QUIT") => Request::Quit,
        _ if is("SHUTDOWN") => Request::Shutdown,
        "" => return Err(syntax("the line has no verb; HELP lists them".to_owned())),
        _ => {
            let message = format!("no verb is called '{verb:.32}'; HELP lists them");
            return Err(Fault::new(Code::UnknownVerb, message));
        }
    };
    match tokens.next() {
        None => Ok(request),
        Some(Ok(_)) => Err(usage()),
        Some(Err(message)) => Err(syntax(message)),
    }
}
