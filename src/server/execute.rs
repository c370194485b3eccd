//! Executes requests: the only `match` over [`Request`] in the server.
//!
//! Lines and sockets belong to [`connection`](super::connection), commits to
//! [`commit`](super::commit).

use std::fmt;
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use super::ServerOptions;
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use crate::logger::trace;
use crate::protocol::{Code, Fault, HELP, Reply, Request};

/// Maximum length of a line before `AUTH`. Without it, unknown peers could each
/// fill as much memory as a trusted client.
pub(super) const UNAUTHENTICATED_LINE_BYTES_MAX: usize = 1 << 10;

/// What clients must send with `AUTH` before other requests.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret, or `None` if the token is empty.
    pub fn new(token: String) -> Option<Secret> {
        (!token.is_empty()).then(|| Secret(token.into_bytes()))
    }

    /// Whether `token` is the secret. The time depends only on the length of
    /// `token`, so it reveals nothing about the secret.
    pub(super) fn matches(&self, token: &str) -> bool {
        let pairs = token.bytes().zip(self.0.iter().cycle());
        let differing = pairs.fold(0, |all, (a, b)| all | black_box(a ^ b));
        black_box(differing) == 0 && token.len() == self.0.len()
    }
}

/// Does not show the secret, so that no message can.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Whether a client must authenticate before this request.
pub(super) fn requires_auth(request: &Request<'_>) -> bool {
    !matches!(request, Request::Auth { .. } | Request::Help | Request::Ping | Request::Quit)
}

/// Figures for `STATS`, since the start of the server. `requests` divided by
/// `commits` shows the effect of group commit.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) clients: u64,
    pub(super) clients_accepted: u64,
    pub(super) clients_refused: u64,
    /// Iterations of the event loop that executed a request.
    pub(super) iterations: u64,
    pub(super) requests: u64,
    pub(super) commits: u64,
}

impl Counters {
    fn figures(&self) -> [(&'static str, u64); 6] {
        [
            ("clients", self.clients),
            ("clients_accepted", self.clients_accepted),
            ("clients_refused", self.clients_refused),
            ("iterations", self.iterations),
            ("requests", self.requests),
            ("commits", self.commits),
        ]
    }
}

/// What the connection does after a request.
#[derive(Debug)]
pub(super) enum Action {
    /// Replies, and continues.
    Reply(Reply),
    /// Replies, and closes.
    ReplyAndClose(Reply),
    /// Replies after the server has shut down.
    AwaitShutdown,
}

/// Executes the requests of one iteration.
pub(super) struct Executor<'a, E> {
    pub(super) engine: &'a E,
    pub(super) options: &'a ServerOptions,
    pub(super) started: Instant,
    pub(super) counters: &'a mut Counters,
    /// Whether the engine accepted a write, which must be committed.
    pub(super) wrote: bool,
    /// The last error of the engine, except errors of the request itself.
    pub(super) failure: Option<KvsError>,
}

impl<E: KvsEngine> Executor<'_, E> {
    /// Announces keys that the next requests read.
    pub(super) fn prefetch(&self, keys: &[&str]) {
        self.engine.prefetch(keys);
    }

    /// Executes a request of `peer`. `AUTH` may set `authenticated`.
    pub(super) fn execute(
        &mut self,
        request: Request<'_>,
        peer: SocketAddr,
        authenticated: &mut bool,
    ) -> Action {
        trace!("{peer}: {}", describe(&request));
        self.counters.requests += 1;
        if !*authenticated && requires_auth(&request) {
            let message = "this server has a secret; send it first with AUTH token";
            return Action::Reply(fault(Code::Auth, message));
        }
        Action::Reply(match request {
            Request::Set { key, value } => self.write(|engine| engine.set_str(&key, &value)),
            Request::Get { key } => self.get(key.into_owned()),
            Request::Remove { key } => self.write(|engine| engine.remove(key.into_owned())),
            Request::Scan { cursor } => self.scan(cursor.as_deref()),
            Request::Auth { token } => self.authenticate(&token, authenticated),
            Request::Ping => Reply::Pong,
            Request::Stats => self.stats(),
            Request::Help => Reply::Help(HELP.to_owned()),
            Request::Quit => return Action::ReplyAndClose(Reply::Ok),
            Request::Shutdown if self.options.allows_shutdown => return Action::AwaitShutdown,
            Request::Shutdown => fault(Code::Forbidden, "this server stops only by a signal"),
        })
    }

    fn write(&mut self, write: impl FnOnce(&E) -> Result<()>) -> Reply {
        match write(self.engine) {
            Ok(()) => {
                self.wrote = true;
                Reply::Ok
            }
            Err(KvsError::KeyNotFound) => Reply::NotFound,
            Err(e) => self.fail(e),
        }
    }

    fn get(&mut self, key: String) -> Reply {
        match self.engine.get(key) {
            Ok(Some(value)) => Reply::Value(value),
            Ok(None) => Reply::NotFound,
            Err(e) => self.fail(e),
        }
    }

    fn scan(&mut self, cursor: Option<&str>) -> Reply {
        match self.engine.scan(cursor) {
            Ok(page) => Reply::Keys { next: page.next, keys: page.keys },
            Err(e) => self.fail(e),
        }
    }

    fn authenticate(&self, token: &str, authenticated: &mut bool) -> Reply {
        match &self.options.secret {
            None => fault(Code::Auth, "this server has no secret, so AUTH is not needed"),
            Some(secret) if secret.matches(token) => {
                *authenticated = true;
                Reply::Ok
            }
            Some(_) => fault(Code::Auth, "that is not the secret"),
        }
    }

    /// The server's configuration and figures, then the engine's figures.
    fn stats(&self) -> Reply {
        let ServerOptions { engine, fsync, directory, .. } = self.options;
        let mut stats = vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("engine", engine.clone()),
            ("fsync", fsync.as_str().to_owned()),
            ("directory", directory.to_string_lossy().into_owned()),
            ("uptime_seconds", self.started.elapsed().as_secs().to_string()),
        ];
        let figures = self.counters.figures().into_iter().chain(self.engine.stats());
        stats.extend(figures.map(|(name, figure)| (name, figure.to_string())));
        Reply::Stats(stats.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Replies with an error of the engine. Keeps it, unless the request caused it.
    fn fail(&mut self, e: KvsError) -> Reply {
        let reply = Reply::Error(Fault::from(&e));
        if !matches!(e, KvsError::TooLarge { .. } | KvsError::BadCursor(_)) {
            self.failure = Some(e);
        }
        reply
    }
}

/// The verb of a request, and the lengths of its tokens.
fn describe(request: &Request<'_>) -> String {
    let (verb, tokens) = request.parts();
    let lengths = tokens.into_iter().flatten().map(|token| format!(" {}", token.len()));
    format!("{verb}{}", lengths.collect::<String>())
}

/// The reply to a client over the limit.
pub(super) fn busy(clients_max: usize) -> Reply {
    fault(Code::Busy, format!("the server has {clients_max} clients, which is its limit"))
}

/// An error that the server itself replies with.
fn fault(code: Code, message: impl Into<String>) -> Reply {
    Reply::Error(Fault::new(code, message))
}

#[cfg(test)]
#[path = "execute_tests.rs"]
mod tests;
