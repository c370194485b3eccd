//! The one error type of the crate: what failed, to what, and why.
//!
//! A variant stands for what a caller may do about it, and its fields name the
//! thing that failed: the file, the offset, the address, the limit. Messages
//! are lower case, without a full stop, and without their cause, which
//! [`source`](std::error::Error::source) gives: whoever reports an error walks
//! that chain. Nothing here prints or exits.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What every fallible call of this crate returns.
pub type Result<T> = std::result::Result<T, KvsError>;

/// Everything that can go wrong, by what the caller may do about it.
#[derive(Debug)]
#[non_exhaustive]
pub enum KvsError {
    /// `remove` was asked for a key that is not there.
    KeyNotFound,
    /// The operating system refused a call.
    Io {
        /// What was being done, and to what.
        context: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds bytes that were not written so; nothing of it is served.
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in it, in bytes from its start.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// Another handle has the directory open, in this process or another.
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Another version of kvs wrote the file or directory.
    OtherVersion {
        /// The file or directory.
        path: PathBuf,
        /// Which version.
        version: String,
    },
    /// A length is beyond its limit; nothing was changed.
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How many bytes it has.
        len: u64,
        /// How many it may have.
        max: u64,
    },
    /// The engine failed earlier, and every call fails until it is opened again.
    Failed {
        /// The first failure, with its causes.
        cause: String,
    },
    /// No page of a scan has this cursor.
    BadCursor(String),
    /// The directory holds the data of another engine than the one asked for.
    WrongEngine {
        /// The data directory.
        path: PathBuf,
        /// The engine asked for.
        asked: &'static str,
        /// The engine whose data it holds.
        found: &'static str,
    },
    /// No engine can be opened: its name is unknown, it was left out of this build, or
    /// the directory holds the files of both engines.
    EngineUnusable {
        /// Which of these, and what to do.
        reason: String,
    },
    /// The second engine, or a dependency, failed.
    Engine {
        /// What was being done.
        context: String,
        /// What it said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server answered with an error.
    Server {
        /// Its code.
        code: Code,
        /// Its message and those of its causes, outermost first.
        messages: Vec<String>,
    },
    /// The server's answer is not one that the protocol allows here.
    BadReply {
        /// What is wrong with it.
        reason: String,
    },
}

impl KvsError {
    /// Gives a failed system call its context; made for `map_err`.
    pub(crate) fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> KvsError {
        |source| KvsError::Io { context: context.into(), source }
    }

    /// Says that a system call failed to do `action` to the file at `path`; made for
    /// `map_err`.
    pub(crate) fn cannot(action: &str, path: &Path) -> impl FnOnce(io::Error) -> KvsError {
        move |source| KvsError::Io {
            context: format!("cannot {action} {}", path.display()),
            source,
        }
    }

    /// As [`cannot`](Self::cannot), at an offset of the file.
    pub(crate) fn cannot_at(
        action: &str,
        path: &Path,
        offset: u64,
    ) -> impl FnOnce(io::Error) -> KvsError {
        let context = move || format!("cannot {action} {} at byte {offset}", path.display());
        move |source| KvsError::Io { context: context(), source }
    }

    /// Damage at `offset` of the file at `path`.
    pub(crate) fn corrupt(path: &Path, offset: u64, reason: impl Into<String>) -> KvsError {
        KvsError::Corrupt { path: path.to_owned(), offset, reason: reason.into() }
    }

    /// The error and its causes, outermost first, a message each.
    pub fn chain(&self) -> Vec<String> {
        let mut messages = vec![self.to_string()];
        let mut cause = self.source();
        while let Some(error) = cause {
            messages.push(error.to_string());
            cause = error.source();
        }
        messages
    }
}

impl fmt::Display for KvsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KvsError::KeyNotFound => write!(f, "Key not found"),
            KvsError::Io { context, .. } | KvsError::Engine { context, .. } => {
                write!(f, "{context}")
            }
            KvsError::Corrupt { path, offset, reason } => {
                write!(f, "{} is damaged at byte {offset}: {reason}", path.display())
            }
            KvsError::InUse { path } => {
                write!(f, "{} is in use by another process or handle", path.display())
            }
            KvsError::OtherVersion { path, version } => write!(
                f,
                "{} was written by {version}, which this version cannot read",
                path.display()
            ),
            KvsError::TooLarge { what, len, max } => {
                write!(f, "{what} of {len} bytes is over the limit of {max}")
            }
            KvsError::Failed { cause } => {
                write!(f, "the store failed and must be opened again: {cause}")
            }
            KvsError::BadCursor(cursor) => {
                write!(f, "no page has the cursor '{}'", cursor.escape_debug())
            }
            KvsError::WrongEngine { path, asked, found } => write!(
                f,
                "{} holds data of the engine '{found}', so the engine '{asked}' cannot open it",
                path.display()
            ),
            KvsError::EngineUnusable { reason } => write!(f, "{reason}"),
            KvsError::Server { code, messages } => {
                write!(f, "the server answered {}: {}", code.as_str(), messages.join(": "))
            }
            KvsError::BadReply { reason } => write!(f, "not a kvs server's answer: {reason}"),
        }
    }
}

impl Error for KvsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            KvsError::Io { source, .. } => Some(source),
            KvsError::Engine { source, .. } => Some(&**source),
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
    /// The server does not allow this request.
    Forbidden,
    /// The server has as many clients as it may have.
    Busy,
}

impl Code {
    /// Every code.
    pub(crate) const ALL: [Code; 10] = [
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

    /// The name of the code in a reply.
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

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
