//! Executes requests: the only `match` over [`Request`] in the server.
//!
//! Lines and sockets belong to [`connection`](super::connection), commits to
//! [`commit`](super::commit).

use std::fmt;
use std::hint::black_box;
use std::net::SocketAddr;
use std::rc::Rc;
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
fn requires_auth(request: &Request<'_>) -> bool {
    !matches!(request, Request::Auth { .. } | Request::Help | Request::Ping | Request::Quit)
}

/// Figures for `STATS`. `requests` divided by `commits` shows the effect of group
/// commit. `iterations` are those of the event loop that executed a request.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) clients: u64,
    pub(super) clients_accepted: u64,
    pub(super) clients_refused: u64,
    pub(super) iterations: u64,
    pub(super) requests: u64,
    pub(super) commits: u64,
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

/// Executes requests, and remembers what the iteration must do about them.
pub(super) struct Executor<E> {
    pub(super) engine: E,
    options: Rc<ServerOptions>,
    started: Instant,
    pub(super) counters: Counters,
    /// Whether the engine accepted a write, which must be committed.
    pub(super) wrote: bool,
    /// The last error of the engine that its request did not cause.
    pub(super) failure: Option<KvsError>,
}

impl<E: KvsEngine> Executor<E> {
    pub(super) fn new(engine: E, options: &Rc<ServerOptions>) -> Executor<E> {
        let (options, counters) = (Rc::clone(options), Counters::default());
        Executor { engine, options, started: Instant::now(), counters, wrote: false, failure: None }
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
        match request {
            Request::Quit => Action::ReplyAndClose(Reply::Ok),
            Request::Shutdown if self.options.allows_shutdown => Action::AwaitShutdown,
            request => Action::Reply(
                self.reply(request, authenticated).unwrap_or_else(|e| self.error_reply(e)),
            ),
        }
    }

    fn reply(&mut self, request: Request<'_>, authenticated: &mut bool) -> Result<Reply> {
        Ok(match request {
            Request::Set { key, value } => {
                self.engine.set_str(&key, &value)?;
                self.wrote = true;
                Reply::Ok
            }
            Request::Get { key } => {
                self.engine.get(key.into_owned())?.map_or(Reply::NotFound, Reply::Value)
            }
            Request::Remove { key } => {
                self.engine.remove(key.into_owned())?;
                self.wrote = true;
                Reply::Ok
            }
            Request::Scan { cursor } => {
                let page = self.engine.scan(cursor.as_deref())?;
                Reply::Keys { next: page.next, keys: page.keys }
            }
            Request::Auth { token } => match &self.options.secret {
                None => fault(Code::Auth, "this server has no secret, so AUTH is not needed"),
                Some(secret) if !secret.matches(&token) => {
                    fault(Code::Auth, "that is not the secret")
                }
                Some(_) => {
                    *authenticated = true;
                    Reply::Ok
                }
            },
            Request::Ping => Reply::Pong,
            Request::Stats => self.stats(),
            Request::Help => Reply::Help(HELP.to_owned()),
            Request::Quit => Reply::Ok,
            Request::Shutdown => fault(Code::Forbidden, "this server stops only by a signal"),
        })
    }

    /// The reply for an error of the engine.
    fn error_reply(&mut self, e: KvsError) -> Reply {
        let reply = Reply::Error(Fault::from(&e));
        match e {
            KvsError::KeyNotFound => return Reply::NotFound,
            KvsError::TooLarge { .. } | KvsError::BadCursor(_) => {}
            e => self.failure = Some(e),
        }
        reply
    }

    /// The server's configuration and figures, then the engine's figures.
    fn stats(&self) -> Reply {
        let ServerOptions { engine, fsync, directory, .. } = &*self.options;
        let mut stats = vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("engine", engine.clone()),
            ("fsync", fsync.as_str().to_owned()),
            ("directory", directory.to_string_lossy().into_owned()),
        ];
        let figures = [
            ("uptime_seconds", self.started.elapsed().as_secs()),
            ("clients", self.counters.clients),
            ("clients_accepted", self.counters.clients_accepted),
            ("clients_refused", self.counters.clients_refused),
            ("iterations", self.counters.iterations),
            ("requests", self.counters.requests),
            ("commits", self.counters.commits),
        ];
        let figures = figures.into_iter().chain(self.engine.stats());
        stats.extend(figures.map(|(name, figure)| (name, figure.to_string())));
        Reply::Stats(stats.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
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
