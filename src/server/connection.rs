//! One client: reads bytes, executes lines, sends replies, and closes.
//!
//! A connection that ends is closed for writing and then *lingers*: it drops
//! input until the client closes too, or for at most two seconds. Closing a socket
//! with unread input could destroy replies that the client has not read yet
//! (`the_last_reply_survives_unread_input`).
//!
//! Invariants:
//! * Nothing is read while a line waits for execution, or while too many replies
//!   wait to be sent. So the buffers are bounded
//!   (`a_client_that_does_not_read_is_not_read`).
//! * In an iteration a connection is read once, at most `read_bytes_max` bytes. This
//!   makes the event loop fair (`an_iteration_reads_a_limited_share`). It executes one
//!   `SCAN`, which reads many records for a short line (`an_iteration_executes_one_scan`).
//! * Every byte of a reply is sent exactly once (`a_slow_socket_gets_every_byte_once`).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ServerOptions;
use super::execute::{Action, Executor, UNAUTHENTICATED_BYTES_MAX};
use super::input::{Input, Line};
use crate::engine::KvsEngine;
use crate::protocol::{LineEnding, Reply, Request, encode_reply};

/// How many bytes are dropped at shutdown: more than a socket's buffers hold.
const DROPPED_BYTES_MAX: u64 = 4 << 20;
/// Lines that are decoded together, so that the engine looks up their keys together.
const GROUP_LINES_MAX: usize = 32;

/// A socket that can be closed for writing only. Tests replace it.
pub(super) trait Socket: Read + Write {
    fn close_output(&mut self) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn close_output(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// The stages of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionState {
    /// Executes requests.
    Open,
    /// Executes nothing more, and closes when all replies are sent.
    Closing,
    /// Waits for the reply to `SHUTDOWN`, whose line will have this ending.
    AwaitingShutdown(LineEnding),
    /// Everything is sent. Input is dropped until the client closes, or for at most two
    /// seconds.
    Lingering,
    /// To be removed.
    Closed,
}

use ConnectionState::{AwaitingShutdown, Closed, Closing, Lingering, Open};

/// One client.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) socket: S,
    pub(super) peer: SocketAddr,
    options: Arc<ServerOptions>,
    input: Input,
    /// Encoded replies, of which the first `sent` bytes were sent.
    output: Vec<u8>,
    sent: usize,
    /// Whether the socket takes no more output, so that it must be polled.
    is_blocked: bool,
    /// Whether the last poll found input.
    is_readable: bool,
    /// When a poll last found anything.
    last_ready: Instant,
    /// Whether it has had its share of this iteration.
    is_served: bool,
    is_authenticated: bool,
    pub(super) state: ConnectionState,
}

impl<S: Socket> Connection<S> {
    pub(super) fn new(socket: S, peer: SocketAddr, options: &Arc<ServerOptions>) -> Connection<S> {
        Connection {
            socket,
            peer,
            input: Input::default(),
            output: Vec::new(),
            sent: 0,
            is_blocked: false,
            is_readable: false,
            last_ready: Instant::now(),
            is_served: false,
            is_authenticated: options.secret.is_none(),
            state: Open,
            options: Arc::clone(options),
        }
    }

    /// Notes what a poll found.
    pub(super) fn note_ready(&mut self, is_readable: bool, is_writable: bool, now: Instant) {
        self.is_readable = is_readable;
        self.is_blocked &= !is_writable;
        if (is_readable || is_writable) && self.state != Lingering {
            self.last_ready = now;
        }
    }

    /// Reads once if a poll found input. All connections share `buffer`.
    pub(super) fn read(&mut self, buffer: &mut [u8]) {
        if !std::mem::take(&mut self.is_readable) || !self.wants_read() {
            return;
        }
        let len = self.limit(buffer.len());
        match (self.socket.read(&mut buffer[..len]), self.state) {
            (Err(e), _) if e.kind() == ErrorKind::WouldBlock => {}
            (Err(_), _) | (Ok(0), Lingering) => self.state = Closed,
            (Ok(_), Lingering) => {}
            (Ok(count), _) => self.input.append(&buffer[..count]),
        }
    }

    /// Executes the complete lines, until too many replies wait to be sent.
    pub(super) fn execute<E: KvsEngine + ?Sized>(&mut self, executor: &mut Executor<E>) {
        if !self.can_execute() {
            return;
        }
        // Taken out of `self`, because requests borrow from it.
        let mut input = std::mem::take(&mut self.input);
        while input.is_pending() && self.may_execute() {
            // `AUTH` changes the limit for the lines after it.
            let count = if self.is_authenticated { GROUP_LINES_MAX } else { 1 };
            let lines = input.next_lines(count, self.limit(self.options.line_bytes_max));
            if let Some(rest) = self.execute_lines(lines, executor) {
                input.rewind(rest);
            }
        }
        input.discard_consumed(self.limit(self.options.line_bytes_max));
        let is_over = input.is_ended && !input.is_pending();
        (self.input, self.is_served) = (input, true);
        if is_over || self.state != Open {
            self.close();
        }
    }

    /// Executes lines. If it must stop early, returns where the next line begins.
    fn execute_lines<E: KvsEngine + ?Sized>(
        &mut self,
        lines: Vec<Line<'_>>,
        executor: &mut Executor<E>,
    ) -> Option<usize> {
        // A single line gains nothing from prefetching.
        if lines.len() > 1 {
            let keys = lines.iter().filter_map(|line| match &line.request {
                Ok(Request::Get { key }) => Some(key.as_ref()),
                _ => None,
            });
            executor.engine.prefetch(&keys.collect::<Vec<_>>());
        }
        for Line { start, request, ending } in lines {
            if !self.may_execute() {
                return Some(start);
            }
            self.is_served = matches!(request, Ok(Request::Scan { .. }));
            let action = match request {
                Ok(request) => executor.execute(request, self.peer, &mut self.is_authenticated),
                // Lines after it are ignored: a web page must not control the server.
                Err(fault) if fault.closes() => Action::ReplyAndClose(Reply::Error(fault)),
                Err(fault) => Action::Reply(Reply::Error(fault)),
            };
            match action {
                Action::Reply(reply) => encode_reply(&reply, ending, &mut self.output),
                Action::ReplyAndClose(reply) => self.close_with(&reply, ending),
                Action::AwaitShutdown => self.state = AwaitingShutdown(ending),
            }
        }
        None
    }

    /// Sends replies, and closes if that is due. Ends the iteration.
    pub(super) fn send(&mut self) {
        self.is_served = false;
        if self.can_send() {
            self.write_output();
        }
        if self.state == Closing && self.unsent() == 0 {
            let is_over = self.input.is_ended || self.socket.close_output().is_err();
            self.state = if is_over { Closed } else { Lingering };
            self.last_ready = Instant::now();
        }
    }

    /// Writes as much as the socket takes at once.
    fn write_output(&mut self) {
        match self.socket.write(&self.output[self.sent..]) {
            Ok(count) => self.sent += count,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.state = Closed,
        }
        self.is_blocked = self.unsent() > 0;
        // Moving the rest only when it is the smaller part keeps the cost linear.
        if self.sent >= self.unsent() {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Executes nothing more. Closes once all replies are sent, unless the client
    /// awaits the reply to `SHUTDOWN`.
    pub(super) fn close(&mut self) {
        if self.state == Open {
            self.state = Closing;
        }
        self.input.clear();
    }

    /// As [`close`](Self::close), with a last reply.
    pub(super) fn close_with(&mut self, reply: &Reply, ending: LineEnding) {
        encode_reply(reply, ending, &mut self.output);
        self.state = Closing;
    }

    /// Drops the input that has arrived, and closes a lingering connection.
    pub(super) fn stop_lingering(&mut self) {
        if self.state == Lingering {
            // The copy ends with `WouldBlock` when nothing more has arrived.
            let _ = io::copy(&mut (&mut self.socket).take(DROPPED_BYTES_MAX), &mut io::sink());
            self.state = Closed;
        }
    }

    /// Returns false if the client is idle now: it has nothing to do, and was last
    /// ready longer ago than `active_time`. Then it frees unused memory, or closes if it
    /// lingers.
    pub(super) fn stay_active(&mut self, now: Instant, active_time: Duration) -> bool {
        if now.duration_since(self.last_ready) < active_time {
            return true;
        }
        if self.state == Lingering {
            self.state = Closed;
        }
        self.input.free_unused();
        self.output.shrink_to_fit();
        // One that is served now is active until its replies are sent.
        self.is_served || self.can_execute() || self.can_send() || self.state == Closed
    }

    /// A limit, which is lower before `AUTH`.
    fn limit(&self, max: usize) -> usize {
        if self.is_authenticated { max } else { max.min(UNAUTHENTICATED_BYTES_MAX) }
    }

    /// Bytes of replies that wait to be sent.
    fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    fn can_send(&self) -> bool {
        self.unsent() > 0 && !self.is_blocked
    }

    /// Whether a line may be executed.
    fn may_execute(&self) -> bool {
        let is_below = self.unsent() < self.limit(self.options.output_bytes_max);
        self.state == Open && is_below && !self.is_served
    }

    /// Whether there may be a line to execute, or the end of the input to handle.
    pub(super) fn can_execute(&self) -> bool {
        self.may_execute() && (self.input.is_pending() || self.input.is_ended)
    }

    pub(super) fn wants_read(&self) -> bool {
        let can_read = self.may_execute() && !self.can_execute();
        can_read || self.state == Lingering
    }

    pub(super) fn wants_write(&self) -> bool {
        self.is_blocked && self.state != Closed
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
