//! What comes of a line: a reply, and whether the connection goes on.
//!
//! Here too are the errors that the server itself answers with; those of a
//! line's form are the protocol's.

use super::group::Asked;
use super::secret::Trust;
use crate::protocol::{Code, Fault, Reply, Request};

/// Who answers requests.
pub(super) trait Answer {
    /// Takes note that these keys will be read by the requests that follow.
    fn prefetch(&mut self, keys: &[&str]);
    /// Whether the turn has had its share, so that lines have to wait for the next.
    fn is_full(&self) -> bool {
        false
    }
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
    /// No reply: the connection ends.
    End,
    /// The reply comes when the server has ended, by `Connection::finish`.
    Later,
}

/// What comes of what a line asks of a client that is trusted or not.
pub(super) fn outcome_of(
    asked: Asked<'_>,
    line_bytes_max: usize,
    trust: &mut Trust,
    answerer: &mut impl Answer,
) -> Outcome {
    match asked {
        Asked::Request(request) if !trust.covers(&request) => Outcome::Reply(unauthorised()),
        Asked::Request(request) => answerer.answer(request, trust),
        // Nothing after it is looked at: a web page must not drive the server.
        Asked::Fault(fault) if fault.closes() => Outcome::Last(Reply::Error(fault)),
        Asked::Fault(fault) => Outcome::Reply(Reply::Error(fault)),
        Asked::TooLong => Outcome::Reply(too_long(line_bytes_max)),
        Asked::CutOff => Outcome::Last(cut_off()),
        Asked::End => Outcome::End,
    }
}

/// The answer to a line over the limit.
fn too_long(max: usize) -> Reply {
    let message = format!("the line is longer than the limit of {max} bytes");
    Reply::Error(Fault::new(Code::TooLong, message))
}

/// The answer to a request of a client that has yet to say the secret.
fn unauthorised() -> Reply {
    let message = "this server has a secret: say it first, with AUTH token";
    Reply::Error(Fault::new(Code::Auth, message))
}

/// The answer to a line without an end.
fn cut_off() -> Reply {
    let message = "the input ended within this line, so it was not carried out";
    Reply::Error(Fault::new(Code::Incomplete, message))
}
