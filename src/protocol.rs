//! The text protocol: requests, replies and their one-line forms.

use crate::error::{KvsError, Result};

/// Bytes a request line may have, its ending left out, unless set otherwise.
pub const LINE_BYTES_MAX: usize = 1 << 20;

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
    /// The server serves as many clients as it may.
    Busy,
}

impl Code {
    /// The code's word on the wire.
    pub fn as_str(self) -> &'static str {
        todo!()
    }
}

/// Reads one line, without its ending, as a request.
pub fn decode_request(_line: &[u8]) -> std::result::Result<Request, Fault> {
    todo!()
}

/// Appends a request's line, ending included.
pub fn encode_request(_request: &Request, _out: &mut Vec<u8>) {
    todo!()
}

/// Reads one line, without its ending, as a reply.
///
/// # Errors
///
/// [`KvsError::BadReply`] when it is none.
pub fn decode_reply(_line: &[u8]) -> Result<Reply> {
    Err(KvsError::BadReply { reason: String::new() })
}

/// Appends a reply's line, ending included.
pub fn encode_reply(_reply: &Reply, _out: &mut Vec<u8>) {
    todo!()
}
