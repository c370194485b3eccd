//! Keeps a message that could come every turn to one a second.

use std::time::{Duration, Instant};

use crate::error::KvsError;
use crate::logger::error;

/// The time between two messages of a kind.
const INTERVAL: Duration = Duration::from_secs(1);

/// One kind of message.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the next may come.
    next: Option<Instant>,
}

impl Pace {
    /// Whether a message may come now; then none may for a while.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        let is_allowed = self.next.is_none_or(|next| next <= now);
        if is_allowed {
            self.next = Some(now + INTERVAL);
        }
        is_allowed
    }

    /// Logs an error, if a message may come now.
    pub(super) fn complain(&mut self, now: Instant, what: &str, e: &KvsError) {
        if self.allows(now) {
            error!("{what}: {}", e.chain().join(": "));
        }
    }
}

/// The errors of a server's turns. One that comes each turn hides none of another
/// kind.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    /// Of single requests, whose clients are told too.
    pub(super) requests: Pace,
    /// Of the commits that their writes shared.
    pub(super) commits: Pace,
    /// Of what nobody waits for.
    pub(super) housekeeping: Pace,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_one_through_each_interval() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!(pace.allows(now));
        assert!(!pace.allows(now + INTERVAL / 2));
        assert!(pace.allows(now + INTERVAL));
        assert!(!pace.allows(now + INTERVAL));
    }

    #[test]
    fn an_error_of_one_kind_does_not_hide_those_of_another() {
        let now = Instant::now();
        let mut complaints = Complaints::default();
        assert!(complaints.requests.allows(now) && !complaints.requests.allows(now));
        assert!(complaints.commits.allows(now) && complaints.housekeeping.allows(now));
    }
}
