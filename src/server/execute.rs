//! What each request does: the only `match` over [`Request`] in the server.
//!
//! Not here: lines, sockets, when writes are safe.

use super::counters::Counters;
use super::options::ServerOptions;
use super::outcome::{Answer, Outcome};
use super::secret::Trust;
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use crate::protocol::{Code, Fault, HELP, Reply, Request};

/// Carries out the requests of one turn.
pub(super) struct Executor<'a, E: ?Sized> {
    /// Where keys and values are.
    engine: &'a E,
    /// What `STATS` shows of the server.
    counters: &'a Counters,
    /// What clients may ask for.
    options: &'a ServerOptions,
    /// Why writes are refused, when they are.
    refusal: Option<&'a KvsError>,
    /// Requests after which it is full.
    requests_max: u64,
    /// Whether the engine has taken a write.
    wrote: bool,
    /// Requests carried out.
    requests: u64,
    /// What the engine failed with last.
    failure: Option<KvsError>,
    /// Whether a write failed after others had succeeded.
    is_broken: bool,
}

/// What an executor has done.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Whether there is something to commit.
    pub(super) wrote: bool,
    /// Requests carried out.
    pub(super) requests: u64,
    /// What the engine failed with last.
    pub(super) failure: Option<KvsError>,
    /// Whether that was a write after others had succeeded. The engine may have
    /// had to undo those too: its buffer is theirs as well.
    pub(super) is_broken: bool,
}

impl<'a, E: KvsEngine + ?Sized> Executor<'a, E> {
    /// Carries out everything.
    pub(super) fn new(
        engine: &'a E,
        counters: &'a Counters,
        options: &'a ServerOptions,
    ) -> Executor<'a, E> {
        Executor {
            engine,
            counters,
            options,
            refusal: None,
            requests_max: u64::MAX,
            wrote: false,
            requests: 0,
            failure: None,
            is_broken: false,
        }
    }

    /// Goes on after what is `done` already.
    pub(super) fn after(self, done: Done) -> Executor<'a, E> {
        let Done { wrote, requests, failure, is_broken } = done;
        Executor { wrote, requests, failure, is_broken, ..self }
    }

    /// Is full after so many requests, those that were done before included.
    pub(super) fn up_to(self, requests_max: u64) -> Executor<'a, E> {
        Executor { requests_max, ..self }
    }

    /// Carries out reads, and answers writes with why they could not be kept.
    pub(super) fn refusing_writes(self, why: &'a KvsError) -> Executor<'a, E> {
        Executor { refusal: Some(why), ..self }
    }

    /// What has been done, when all is.
    pub(super) fn done(self) -> Done {
        let Executor { wrote, requests, failure, is_broken, .. } = self;
        Done { wrote, requests, failure, is_broken }
    }

    /// Trusts a client that says the secret.
    fn authenticate(&self, token: &str, trust: &mut Trust) -> Reply {
        match &self.options.secret {
            None => fault(Code::Auth, "this server has no secret: everything is done without"),
            Some(secret) if secret.is(token) => {
                *trust = Trust::Trusted;
                Reply::Ok
            }
            Some(_) => fault(Code::Auth, "that is not the secret"),
        }
    }

    /// Lets the engine write, unless writes are refused.
    fn write(&mut self, write: impl FnOnce(&E) -> Result<()>) -> Reply {
        if let Some(why) = self.refusal {
            return storage_error(why);
        }
        match write(self.engine) {
            Ok(()) => {
                self.wrote = true;
                Reply::Ok
            }
            Err(KvsError::KeyNotFound) => Reply::NotFound,
            // The request's fault; the engine is as it was.
            Err(e @ KvsError::TooLarge { .. }) => storage_error(&e),
            Err(e) => {
                self.is_broken |= self.wrote;
                self.fail(e)
            }
        }
    }

    /// Reads one value.
    fn get(&mut self, key: String) -> Reply {
        match self.engine.get(key) {
            Ok(Some(value)) => Reply::Value(value),
            Ok(None) => Reply::NotFound,
            Err(e) => self.fail(e),
        }
    }

    /// Answers an error of the engine, and keeps it for the logger.
    fn fail(&mut self, e: KvsError) -> Reply {
        let reply = storage_error(&e);
        self.failure = Some(e);
        reply
    }

    /// The server's figures, then the engine's.
    fn stats(&self) -> Reply {
        let engine = self.engine.stats().into_iter();
        let all = self.counters.figures().into_iter().chain(engine);
        Reply::Stats(all.map(|(name, figure)| (name.to_owned(), figure.to_string())).collect())
    }
}

impl<E: KvsEngine + ?Sized> Answer for Executor<'_, E> {
    fn prefetch(&mut self, keys: &[&str]) {
        self.engine.prefetch(keys);
    }

    fn is_full(&self) -> bool {
        self.requests >= self.requests_max
    }

    fn answer(&mut self, request: Request<'_>, trust: &mut Trust) -> Outcome {
        self.requests += 1;
        Outcome::Reply(match request {
            Request::Set { key, value } => self.write(|engine| engine.set_str(&key, &value)),
            Request::Remove { key } => self.write(|engine| engine.remove(key.into_owned())),
            Request::Get { key } => self.get(key.into_owned()),
            Request::Scan { cursor } => match self.engine.scan(cursor.as_deref()) {
                Ok(page) => Reply::Keys { next: page.next, keys: page.keys },
                Err(e) => storage_error(&e),
            },
            Request::Auth { token } => self.authenticate(&token, trust),
            Request::Ping => Reply::Pong,
            Request::Stats => self.stats(),
            Request::Help => Reply::Help(HELP.to_owned()),
            Request::Quit => return Outcome::Last(Reply::Ok),
            Request::Shutdown if self.options.allows_shutdown => return Outcome::Later,
            Request::Shutdown => fault(Code::Forbidden, "this server ends by a signal only"),
        })
    }
}

/// An engine's error as it goes over the wire, with its causes.
pub(super) fn storage_error(e: &KvsError) -> Reply {
    Reply::Error(Fault::from(e))
}

/// The reply to a client that is one too many.
pub(super) fn busy(clients_max: usize) -> Reply {
    let message = format!("the server serves {clients_max} clients, which is its limit");
    fault(Code::Busy, message)
}

/// An error that the server itself answers with.
fn fault(code: Code, message: impl Into<String>) -> Reply {
    Reply::Error(Fault::new(code, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::testing::MemoryEngine;

    #[test]
    fn the_engine_is_told_of_the_keys_that_will_be_read() {
        let (engine, options) = (MemoryEngine::default(), ServerOptions::default());
        Executor::new(&engine, &Counters::new(), &options).prefetch(&["a", "b"]);
        assert_eq!(engine.prefetched(), ["a", "b"]);
    }

    #[test]
    fn who_goes_on_after_others_counts_what_they_have_done() {
        let (engine, options) = (MemoryEngine::default(), ServerOptions::default());
        let counters = Counters::new();
        let after = |done| Executor::new(&engine, &counters, &options).after(done);
        let carry_out = |done, line| {
            let mut executor = after(done);
            let request = crate::protocol::decode_request(line).unwrap();
            executor.answer(request, &mut Trust::Trusted);
            executor.done()
        };
        let done = carry_out(Done::default(), b"SET a 1");
        let done = carry_out(carry_out(done, b"SET full 1"), b"PING");
        assert!(done.requests == 3 && done.wrote && done.is_broken && done.failure.is_some());
    }
}
