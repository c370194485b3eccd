//! How a server is asked to shut down, and how it does so.
//!
//! A byte in a pipe asks it, since a flag would not end a poll that has begun. A
//! [`StopHandle`] or a signal handler writes the byte.
//!
//! Shutdown syncs, sends the replies, closes the listener and the engine, and then
//! replies to `SHUTDOWN`: port and directory are free (`shutdown_is_answered_last`).

use std::ffi::{c_int, c_void};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use super::clients::Clients;
use super::connection::ConnectionState::AwaitingShutdown;
use super::listener::Listener;
use crate::engine::KvsEngine;
use crate::error::Result;
use crate::poll::PollFd;
use crate::protocol::{Fault, Reply};

/// How long shutdown waits for clients to receive their last replies.
const SEND_TIME: Duration = Duration::from_secs(2);

const SIGHUP: c_int = 1;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
/// A file has reached its size limit. If it is ignored, the write fails instead.
const SIGXFSZ: c_int = 25;
const SIG_IGN: usize = 1;

/// What the first signal writes to; -1 before the handler is installed, and later.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// What a server polls to learn that it should shut down.
#[derive(Debug)]
pub struct Stop {
    /// Becomes readable; `None` never does.
    pipe: Option<UnixStream>,
}

impl Stop {
    /// Only a client's `SHUTDOWN` stops the server.
    pub fn never() -> Stop {
        Stop { pipe: None }
    }

    /// A handle that stops the server. Fails if there are no file descriptors left.
    pub fn pair() -> io::Result<(StopHandle, Stop)> {
        let (write_end, read_end) = UnixStream::pair()?;
        write_end.set_nonblocking(true)?;
        Ok((StopHandle { pipe: write_end }, Stop { pipe: Some(read_end) }))
    }

    /// SIGHUP, SIGINT and SIGTERM stop the server. A second signal ends the process
    /// at once. This changes the whole process, so only a binary should call it, and
    /// once: a second call takes the signals from the first. Fails if the system refuses.
    pub fn on_signals() -> io::Result<Stop> {
        let (handle, stop) = Stop::pair()?;
        // Both ends stay open, so the handler never writes to a reused descriptor.
        std::mem::forget(stop.pipe.as_ref().map(UnixStream::try_clone).transpose()?);
        PIPE.store(handle.pipe.into_raw_fd(), Ordering::SeqCst);
        let handler: extern "C" fn(c_int) = on_signal;
        // A shell that starts a server in the background ignores SIGINT for it, which
        // must stop it nevertheless. Only `nohup` ignores SIGHUP, and is obeyed.
        set_handler(SIGINT, handler as usize)?;
        set_handler(SIGTERM, handler as usize)?;
        if set_handler(SIGHUP, handler as usize)? == SIG_IGN {
            set_handler(SIGHUP, SIG_IGN)?;
        }
        set_handler(SIGXFSZ, SIG_IGN)?;
        Ok(stop)
    }

    /// What to poll.
    pub(super) fn poll_fd(&self) -> PollFd {
        self.pipe.as_ref().map_or(PollFd::none(), |it| PollFd::new(it.as_raw_fd(), true, false))
    }
}

/// Stops a server, from any thread. Dropping it stops the server too.
#[derive(Debug)]
pub struct StopHandle {
    pipe: UnixStream,
}

impl StopHandle {
    /// Makes the server shut down after its current iteration.
    pub fn stop(&self) {
        // If the pipe is full, the server was asked already. If it is closed, the
        // server has ended.
        let _ = (&self.pipe).write(&[1]);
    }
}

/// Sets the handler of a signal, and returns the previous one. (The struct of
/// `sigaction` differs between C libraries. `signal` keeps the handler installed.)
#[expect(unsafe_code, reason = "std has no signals")]
fn set_handler(number: c_int, handler: usize) -> io::Result<usize> {
    unsafe extern "C" {
        fn signal(number: c_int, handler: usize) -> usize;
    }
    // SAFETY: the handler is `SIG_IGN` or a function with the type that `signal`
    // expects. It exists as long as the program, and is async-signal-safe.
    match unsafe { signal(number, handler) } {
        usize::MAX => Err(io::Error::last_os_error()),
        previous => Ok(previous),
    }
}

/// Runs between any two instructions of the program, so it may use only atomics,
/// `write` and `_exit`.
#[expect(unsafe_code, reason = "std's write is not documented to be async-signal-safe")]
extern "C" fn on_signal(number: c_int) {
    unsafe extern "C" {
        safe fn _exit(status: c_int) -> !;
        fn write(fd: c_int, bytes: *const c_void, count: usize) -> isize;
    }
    let pipe = PIPE.swap(-1, Ordering::SeqCst);
    if pipe == -1 {
        _exit(128 + number);
    }
    // SAFETY: the pointer is to one byte, which outlives the call. It is the only
    // byte that is ever written to this pipe, so the call neither blocks nor fails,
    // and leaves `errno` unchanged.
    unsafe { write(pipe, (&raw const *b"!").cast(), 1) };
}

/// Shuts down in order. Fails if the last sync does, or `poll`.
pub(super) fn shut_down<E: KvsEngine + ?Sized>(
    engine: Box<E>,
    listener: Listener,
    mut clients: Clients,
    buffer: &mut [u8],
) -> Result<()> {
    let synced = engine.sync();
    clients.iter_mut().for_each(|client| client.close());
    send_all(&mut clients, buffer)?;
    clients.retain(|state| matches!(state, AwaitingShutdown(_)));
    drop((listener, engine));
    let reply = synced.as_ref().map_or_else(|e| Reply::Error(Fault::from(e)), |()| Reply::Ok);
    for client in clients.iter_mut() {
        if let AwaitingShutdown(ending) = client.state {
            client.close_with(&reply, ending);
        }
    }
    send_all(&mut clients, buffer)?;
    synced
}

/// Sends all replies, and closes the connections that are closing, for at most
/// [`SEND_TIME`].
fn send_all(clients: &mut Clients, buffer: &mut [u8]) -> Result<()> {
    let deadline = Instant::now() + SEND_TIME;
    loop {
        let now = Instant::now();
        let mut is_sent = true;
        for client in clients.iter_mut() {
            client.send(now);
            client.stop_lingering(buffer);
            is_sent &= !client.wants_write();
        }
        let left = deadline.saturating_duration_since(now);
        if is_sent || left.is_zero() {
            return Ok(());
        }
        clients.poll([PollFd::none(); 2], Some(left))?;
    }
}

#[cfg(test)]
#[path = "shutdown_tests.rs"]
mod tests;
