//! What a running server counts, for `STATS`.

use std::time::Instant;

/// Counts since the start.
#[derive(Debug)]
pub(super) struct Counters {
    /// When the server was made.
    pub(super) started: Instant,
    /// Clients connected now.
    pub(super) clients: u64,
    /// Clients ever connected.
    pub(super) clients_accepted: u64,
    /// Clients answered `ERR busy`.
    pub(super) clients_refused: u64,
    /// Turns that executed something.
    pub(super) turns: u64,
    /// Requests carried out; with `commits`, how many shared one.
    pub(super) requests: u64,
    /// Turns whose writes were handed to the engine's flush or sync.
    pub(super) commits: u64,
    /// Those that failed.
    pub(super) commits_failed: u64,
}

impl Counters {
    /// Nothing counted.
    pub(super) fn new() -> Counters {
        Counters {
            started: Instant::now(),
            clients: 0,
            clients_accepted: 0,
            clients_refused: 0,
            turns: 0,
            requests: 0,
            commits: 0,
            commits_failed: 0,
        }
    }

    /// All of them by name.
    pub(super) fn figures(&self) -> [(&'static str, u64); 8] {
        [
            ("uptime_seconds", self.started.elapsed().as_secs()),
            ("clients", self.clients),
            ("clients_accepted", self.clients_accepted),
            ("clients_refused", self.clients_refused),
            ("turns", self.turns),
            ("requests", self.requests),
            ("commits", self.commits),
            ("commits_failed", self.commits_failed),
        ]
    }
}
