//! What comes of a line: a reply, and whether the connection goes on.
//!
//! Here too are the errors that the server itself answers with; those of a
//! line's form are the protocol's.

use super::secret::Trust;
use crate::protocol::{Code, Fault, Reply, Request};

/// Who answers requests.
pub(super) trait Answer {
    /// Takes note that these keys will be read by the requests that follow.
    fn prefetch(&mut self, keys: &[&str]);
    /// Carries out a request of a client that is trusted or not, which it may become.
    fn answer(&mut self, request: Request<'_>, trust: &mut Trust) -> Outcome;
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The reply; the next line is due.
    Reply(Reply),
    /// The reply, after which the connection ends.
    Last(Reply),
    /// The reply comes when the server has ended, by `Connection::finish`.
    Later,
}

/// The answer to a line over the limit.
pub(super) fn too_long(max: usize) -> Reply {
    let message = format!("the line is longer than the limit of {max} bytes");
    Reply::Error(Fault::new(Code::TooLong, message))
}

/// The answer to a request of a client that has yet to say the secret.
pub(super) fn unauthorised() -> Reply {
    let message = "this server has a secret: say it first, with AUTH token";
    Reply::Error(Fault::new(Code::Auth, message))
}

/// The answer to a line without an end.
pub(super) fn cut_off() -> Reply {
    let message = "the input ended within this line, so it was not carried out";
    Reply::Error(Fault::new(Code::Incomplete, message))
}
