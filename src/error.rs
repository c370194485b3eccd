//! The error type of the crate: what failed, to what, and why.
//!
//! A message does not repeat its cause, which is in [`source`](Error::source).
//! [`KvsError::chain`] lists both. Nothing here prints or exits.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of every fallible call of this crate.
pub type Result<T> = std::result::Result<T, KvsError>;

/// Everything that can fail. Callers can react differently to each variant.
#[derive(Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the comment of a variant explains its fields")]
pub enum KvsError {
    /// `remove` was called with a key that has no value.
    KeyNotFound,
    /// The operating system refused a call. The context names the call and its object.
    Io { context: String, source: io::Error },
    /// A file is damaged, `offset` bytes from its start. The damaged bytes are not used.
    Corrupt { path: PathBuf, offset: u64, reason: String },
    /// Another handle, in this process or another, has the directory open.
    InUse { path: PathBuf },
    /// Another version of kvs wrote the file or directory.
    OtherVersion { path: PathBuf, version: String },
    /// The length of `what` in bytes exceeds its limit. Nothing was changed.
    TooLarge { what: &'static str, len: u64, max: u64 },
    /// The engine failed earlier: `cause` is the first failure and its causes. Every call
    /// fails until the engine is opened again.
    Failed { cause: String },
    /// No page of a scan has this cursor.
    BadCursor(String),
    /// The directory holds the data of another engine than the one asked for.
    WrongEngine { path: PathBuf, asked: &'static str, found: &'static str },
    /// No engine can be opened: its name is unknown, it was left out of this build, or
    /// the directory holds the files of both engines.
    EngineUnusable { reason: String },
    /// sled failed. The context names the call.
    Engine { context: String, source: Box<dyn Error + Send + Sync> },
    /// The server answered with an error. The first message is the error's, and the
    /// others are those of its causes.
    Server { code: Code, messages: Vec<String> },
    /// The protocol does not allow the server's reply, or an earlier error has broken the
    /// connection.
    BadReply { reason: String },
}

impl KvsError {
    /// Adds a context to the error of a system call, for `map_err`.
    #[doc(hidden)]
    pub fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io { context: context.into(), source }
    }

    /// The context names a failed action on the file or directory at `path`.
    pub(crate) fn cannot(action: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::io(format!("cannot {action} {}", path.display()))(source)
    }

    /// As [`cannot`](Self::cannot), at an offset of the file.
    pub(crate) fn cannot_at(action: &str, path: &Path, at: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::io(format!("cannot {action} {} at byte {at}", path.display()))(source)
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, reason: impl Into<String>) -> KvsError {
        KvsError::Corrupt { path: path.to_owned(), offset, reason: reason.into() }
    }

    /// The messages of the error and of its causes, outermost first.
    pub fn chain(&self) -> Vec<String> {
        let errors = std::iter::successors(Some(self as &dyn Error), |&error| error.source());
        errors.map(ToString::to_string).collect()
    }
}

impl fmt::Display for KvsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyNotFound => write!(f, "Key not found"),
            Self::Io { context: text, .. }
            | Self::Engine { context: text, .. }
            | Self::EngineUnusable { reason: text } => write!(f, "{text}"),
            Self::Corrupt { path, offset, reason } => {
                write!(f, "{} is damaged at byte {offset}: {reason}", path.display())
            }
            Self::InUse { path } => {
                write!(f, "{} is in use by another process or handle", path.display())
            }
            Self::OtherVersion { path, version } => {
                let path = path.display();
                write!(f, "{path} was written by {version}, which this version cannot read")
            }
            Self::TooLarge { what, len, max } => {
                write!(f, "{what} of {len} bytes is over the limit of {max}")
            }
            Self::Failed { cause } => {
                write!(f, "the store failed and must be opened again: {cause}")
            }
            Self::BadCursor(cursor) => {
                write!(f, "no page has the cursor '{}'", cursor.escape_debug())
            }
            Self::WrongEngine { path, asked, found } => write!(
                f,
                "{} holds data of the engine '{found}', so the engine '{asked}' cannot open it",
                path.display()
            ),
            Self::Server { code, messages } => {
                write!(f, "the server answered {}: {}", code.as_str(), messages.join(": "))
            }
            Self::BadReply { reason } => write!(f, "no valid reply from a kvs server: {reason}"),
        }
    }
}

impl Error for KvsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Engine { source, .. } => Some(&**source),
            _ => None,
        }
    }
}

/// Why a request failed, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// The line does not match the grammar, or has the wrong number of tokens.
    Syntax,
    /// No verb has this name.
    UnknownVerb,
    /// The line, the key or the value exceeds its limit.
    TooLong,
    /// The line is not UTF-8.
    Utf8,
    /// The connection ended in the middle of the line.
    Incomplete,
    /// The client speaks HTTP. The connection closes.
    Http,
    /// The engine returned an error, such as a full disk.
    Storage,
    /// The secret is missing or wrong.
    Auth,
    /// The server does not allow this request.
    Forbidden,
    /// The server has its maximum number of clients.
    Busy,
}

impl Code {
    /// The names in a reply, in the order of the enum.
    pub(crate) const NAMES: [(Code, &str); 10] = [
        (Code::Syntax, "syntax"),
        (Code::UnknownVerb, "unknown-verb"),
        (Code::TooLong, "too-long"),
        (Code::Utf8, "utf8"),
        (Code::Incomplete, "incomplete"),
        (Code::Http, "http"),
        (Code::Storage, "storage"),
        (Code::Auth, "auth"),
        (Code::Forbidden, "forbidden"),
        (Code::Busy, "busy"),
    ];

    /// The name in a reply.
    pub fn as_str(self) -> &'static str {
        Code::NAMES[self as usize].1
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
