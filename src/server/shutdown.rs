//! How a server is asked to shut down, and how it does so.
//!
//! A flag would not end a poll that has begun. So a [`StopHandle`] or a signal handler
//! shuts down a pair of sockets, of which the server polls one.
//!
//! Shutdown syncs, sends the replies, closes the listener and the engine, and then
//! replies to `SHUTDOWN`: port and directory are free (`shutdown_is_answered_last`).

use std::ffi::c_int;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use super::KvsServer;
use super::clients::{Client, Clients};
use super::connection::ConnectionState::AwaitingShutdown;
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

/// The socket that the first signal shuts down; -1 before the handler is installed, and
/// after the first signal. The socket stays open, so that its descriptor is never that of
/// another file.
static SOCKET: AtomicI32 = AtomicI32::new(-1);

/// What a server polls to learn that it should shut down.
#[derive(Debug)]
pub struct Stop {
    /// Becomes readable; `None` never does.
    socket: Option<UnixStream>,
}

impl Stop {
    /// Only a client's `SHUTDOWN` stops the server.
    pub fn never() -> Stop {
        Stop { socket: None }
    }

    /// A handle that stops the server. Fails if there are no file descriptors left.
    pub fn pair() -> io::Result<(StopHandle, Stop)> {
        let (handle, socket) = UnixStream::pair()?;
        Ok((StopHandle { socket: handle }, Stop { socket: Some(socket) }))
    }

    /// SIGHUP, SIGINT and SIGTERM stop the server. A second signal ends the process
    /// at once. This changes the whole process, so only a binary should call it, and
    /// once: a second call takes the signals from the first. Fails if the system refuses.
    pub fn on_signals() -> io::Result<Stop> {
        let (handle, stop) = Stop::pair()?;
        SOCKET.store(handle.socket.into_raw_fd(), Ordering::SeqCst);
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
        // `poll` ignores -1.
        PollFd::new(self.socket.as_ref().map_or(-1, UnixStream::as_raw_fd), true, false)
    }
}

/// Stops a server, from any thread. Dropping it stops the server too.
#[derive(Debug)]
pub struct StopHandle {
    socket: UnixStream,
}

impl StopHandle {
    /// Makes the server shut down after its current iteration.
    pub fn stop(&self) {
        // It can fail only if the server has ended.
        let _ = self.socket.shutdown(Shutdown::Both);
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

/// Runs between any two instructions of the program, so it may use only atomics and
/// system calls. Its calls fail only when the server has ended.
#[expect(unsafe_code, reason = "std does not document its shutdown as async-signal-safe")]
extern "C" fn on_signal(number: c_int) {
    // SAFETY: both take numbers only, and POSIX lists both as async-signal-safe.
    unsafe extern "C" {
        safe fn _exit(status: c_int) -> !;
        safe fn shutdown(socket: c_int, how: c_int) -> c_int;
    }
    const SHUT_RDWR: c_int = 2;
    match SOCKET.swap(-1, Ordering::SeqCst) {
        -1 => _exit(128 + number),
        socket => shutdown(socket, SHUT_RDWR),
    };
}

impl<E: KvsEngine + ?Sized> KvsServer<E> {
    /// Shuts down in order. Fails if the last sync does, or `poll`.
    pub(super) fn shut_down(mut self) -> Result<()> {
        let synced = self.executor.engine.sync();
        let deadline = Instant::now() + SEND_TIME;
        self.clients.all().iter_mut().for_each(Client::close);
        send_all(&mut self.clients, deadline)?;
        drop((self.listener, self.executor));
        let reply = synced.as_ref().map_or_else(|e| Reply::Error(Fault::from(e)), |()| Reply::Ok);
        for client in self.clients.all() {
            if let AwaitingShutdown(ending) = client.state {
                client.close_with(&reply, ending);
            }
        }
        send_all(&mut self.clients, deadline)?;
        synced
    }
}

/// Sends all replies, and closes the connections that are closing. Clients that do not
/// read theirs are waited for until `deadline`.
fn send_all(clients: &mut Clients, deadline: Instant) -> Result<()> {
    loop {
        let now = Instant::now();
        let mut is_sent = true;
        for client in clients.all() {
            client.send();
            client.stop_lingering();
            is_sent &= !client.wants_write();
        }
        let left = deadline.saturating_duration_since(now);
        if is_sent || left.is_zero() {
            return Ok(());
        }
        clients.poll(&mut [], left)?;
    }
}

#[cfg(test)]
#[path = "shutdown_tests.rs"]
mod tests;
