//! Executes requests: the only `match` over [`Request`] in the server.
//!
//! Lines and sockets belong to [`connection`](super::connection), commits to
//! [`event_loop`](super::event_loop).

use std::fmt;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::ServerOptions;
use crate::engine::KvsEngine;
use crate::error::KvsError;
use crate::logger::{Level, trace, write_limited};
use crate::protocol::{Code, Fault, HELP, Reply, Request};

/// Limit on a line, a read, and the replies that wait to be sent before `AUTH`. Without
/// it, unknown peers could each fill as much memory as a trusted client.
pub(super) const UNAUTHENTICATED_BYTES_MAX: usize = 1 << 10;

/// What clients must send with `AUTH` before other requests.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret, or `None` if the token is empty.
    pub fn new(token: String) -> Option<Secret> {
        (!token.is_empty()).then(|| Secret(token.into_bytes()))
    }

    /// Whether `token` is the secret. The time depends only on the length of `token`.
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

/// Figures for `STATS`. `iterations` are those that executed a request.
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

/// Executes requests.
#[derive(Debug)]
pub(super) struct Executor<E: ?Sized> {
    pub(super) options: Arc<ServerOptions>,
    started: Instant,
    pub(super) counters: Counters,
    /// Whether the iteration must be committed: the engine accepted a write, or failed.
    /// Then the commit shows whether it still works.
    pub(super) needs_commit: bool,
    pub(super) engine: Box<E>,
}

impl<E: KvsEngine + ?Sized> Executor<E> {
    pub(super) fn new(engine: Box<E>, options: &Arc<ServerOptions>) -> Executor<E> {
        Executor {
            options: Arc::clone(options),
            started: Instant::now(),
            counters: Counters::default(),
            needs_commit: false,
            engine,
        }
    }

    /// Executes a request of `peer`. `AUTH` may set `authenticated`.
    pub(super) fn execute(
        &mut self,
        request: Request<'_>,
        peer: SocketAddr,
        authenticated: &mut bool,
    ) -> Action {
        trace!("{peer}: {}", request.parts().0);
        self.counters.requests += 1;
        let result = match request {
            Request::Quit => return Action::ReplyAndClose(Reply::Ok),
            Request::Ping => Ok(Reply::Pong),
            Request::Help => Ok(Reply::Help(HELP.to_owned())),
            Request::Auth { token } => {
                return Action::Reply(self.authenticate(&token, authenticated));
            }
            _ if !*authenticated => {
                Ok(fault(Code::Auth, "this server has a secret; send it first with AUTH token"))
            }
            Request::Get { key } => {
                let value = self.engine.get_str(&key);
                value.map(|value| value.map_or(Reply::NotFound, Reply::Value))
            }
            Request::Set { key, value } => self.engine.set_str(&key, &value).map(|()| Reply::Ok),
            Request::Remove { key } => self.engine.remove(key.into_owned()).map(|()| Reply::Ok),
            Request::Scan { cursor } => {
                let page = self.engine.scan(cursor.as_deref());
                page.map(|page| Reply::Keys { next: page.next, keys: page.keys })
            }
            Request::Stats => Ok(self.stats()),
            Request::Shutdown if self.options.allows_shutdown => return Action::AwaitShutdown,
            Request::Shutdown => Ok(fault(Code::Forbidden, "this server stops only by a signal")),
        };
        let reply = result.unwrap_or_else(|e| error_reply(&e));
        self.needs_commit |=
            matches!(&reply, Reply::Ok | Reply::Error(Fault { code: Code::Storage, .. }));
        Action::Reply(reply)
    }

    /// The reply to `AUTH`.
    fn authenticate(&self, token: &str, authenticated: &mut bool) -> Reply {
        match &self.options.secret {
            None => fault(Code::Auth, "this server has no secret, so AUTH is not needed"),
            Some(secret) if !secret.matches(token) => fault(Code::Auth, "that is not the secret"),
            Some(_) => {
                *authenticated = true;
                Reply::Ok
            }
        }
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

/// The reply for an error of the engine.
fn error_reply(e: &KvsError) -> Reply {
    if let KvsError::KeyNotFound = e {
        return Reply::NotFound;
    }
    let fault = Fault::from(e);
    if fault.code == Code::Storage {
        let causes = fault.messages.join(": ");
        write_limited(Level::Error, format_args!("a request failed: {causes}"));
    }
    Reply::Error(fault)
}

/// An error that the server itself replies with.
pub(super) fn fault(code: Code, message: impl Into<String>) -> Reply {
    Reply::Error(Fault::new(code, message))
}

#[cfg(test)]
#[path = "execute_tests.rs"]
mod tests;
