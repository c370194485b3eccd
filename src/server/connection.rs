//! One client: reads bytes, executes lines, sends replies, and closes.
//!
//! Generic over the socket, so that tests need none. The event loop calls
//! [`send`](Connection::send) only after the commit of the iteration.
//!
//! A connection that ends is closed for writing and then *lingers*: it drops
//! input until the client closes too. A socket that is closed with unread input
//! is reset, and a reset can destroy replies that the client has not read
//! (`the_last_reply_survives_unread_input`).
//!
//! Invariants:
//! * Nothing is read while a line waits for execution, or while too many replies
//!   wait to be sent. So the buffers are bounded
//!   (`a_client_that_does_not_read_is_not_read`).
//! * In one iteration a connection is read at most `read_bytes_max` bytes. This
//!   limit makes the event loop fair (`an_iteration_reads_a_limited_share`).

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::ServerOptions;
use super::execute::{Action, Executor, UNAUTHENTICATED_LINE_BYTES_MAX};
use super::input::{Input, Line, Position};
use super::output::{Output, is_transient};
use crate::engine::KvsEngine;
use crate::protocol::{LineEnding, Reply, Request};

/// How long a connection lingers: some round trips of a slow network.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// How many bytes it drops meanwhile: more than can be in transit.
const LINGER_BYTES: usize = 4 << 20;
/// Number of lines that are decoded together, so that the engine can look up
/// their keys together.
const GROUP_LINES_MAX: usize = 32;

/// A socket that can be closed for writing only.
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
    /// Waits for the reply to `SHUTDOWN`, which will end like this.
    AwaitingShutdown(LineEnding),
    /// Everything is sent. Input is dropped until the client closes.
    Lingering { until: Instant, bytes_left: usize },
    /// To be removed.
    Closed,
}

use ConnectionState::{AwaitingShutdown, Closed, Closing, Lingering, Open};

/// One client.
#[derive(Debug)]
pub(super) struct Connection<S> {
    socket: S,
    pub(super) peer: SocketAddr,
    options: Rc<ServerOptions>,
    input: Input,
    output: Output,
    authenticated: bool,
    state: ConnectionState,
    /// Whether the last poll found input.
    is_readable: bool,
    /// Bytes that may still be read in this iteration.
    read_bytes_left: usize,
}

impl<S: Socket> Connection<S> {
    pub(super) fn new(socket: S, peer: SocketAddr, options: &Rc<ServerOptions>) -> Connection<S> {
        Connection {
            socket,
            peer,
            input: Input::default(),
            output: Output::default(),
            authenticated: options.secret.is_none(),
            state: Open,
            is_readable: false,
            read_bytes_left: options.read_bytes_max,
            options: Rc::clone(options),
        }
    }

    /// Notes what a poll found.
    pub(super) fn note_ready(&mut self, is_readable: bool, is_writable: bool) {
        self.is_readable = is_readable;
        self.output.is_blocked &= !is_writable;
    }

    /// Reads once if a poll found input. All connections share `buffer`.
    pub(super) fn read(&mut self, buffer: &mut [u8]) {
        if !std::mem::take(&mut self.is_readable) || !self.wants_read() {
            return;
        }
        let len = buffer.len().min(self.read_bytes_left);
        match self.socket.read(&mut buffer[..len]) {
            Ok(count) => self.receive(&buffer[..count]),
            Err(e) if is_transient(&e) => {}
            Err(_) => self.state = Closed,
        }
    }

    /// Takes in what was read. Nothing means that the input has ended.
    fn receive(&mut self, bytes: &[u8]) {
        match &mut self.state {
            Lingering { bytes_left, .. } if (1..=*bytes_left).contains(&bytes.len()) => {
                *bytes_left -= bytes.len();
            }
            Lingering { .. } => self.state = Closed,
            _ => {
                self.read_bytes_left -= bytes.len();
                self.input.append(bytes, self.line_bytes_max());
            }
        }
    }

    /// Executes the complete lines, until too many replies wait to be sent.
    pub(super) fn execute<E: KvsEngine>(&mut self, executor: &mut Executor<E>) {
        if !self.can_execute() {
            return;
        }
        // Taken out of `self`, because requests borrow from it.
        let mut input = std::mem::take(&mut self.input);
        while input.is_pending() && self.may_execute() {
            // `AUTH` changes the limit for the lines after it.
            let count = if self.authenticated { GROUP_LINES_MAX } else { 1 };
            let lines = input.next_lines(count, self.line_bytes_max());
            if let Some(rest) = self.execute_lines(lines, executor) {
                input.rewind(rest);
            }
        }
        input.discard_consumed();
        let is_over = input.is_ended() && !input.is_pending();
        self.input = input;
        if is_over || self.state != Open {
            self.close();
        }
    }

    /// Executes lines. If it must stop early, returns where the next line begins.
    fn execute_lines<E: KvsEngine>(
        &mut self,
        lines: Vec<Line<'_>>,
        executor: &mut Executor<E>,
    ) -> Option<Position> {
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
            let action = match request {
                Ok(request) => executor.execute(request, self.peer, &mut self.authenticated),
                // Lines after it are ignored: a web page must not control the server.
                Err(fault) if fault.closes() => Action::ReplyAndClose(Reply::Error(fault)),
                Err(fault) => Action::Reply(Reply::Error(fault)),
            };
            match action {
                Action::Reply(reply) => self.output.push(&reply, ending),
                Action::ReplyAndClose(reply) => self.close_with(&reply, ending),
                Action::AwaitShutdown => self.state = AwaitingShutdown(ending),
            }
        }
        None
    }

    /// Sends replies, and closes if that is due. Ends the iteration.
    pub(super) fn send(&mut self, now: Instant) {
        self.read_bytes_left = self.options.read_bytes_max;
        if self.output.send(&mut self.socket).is_err() {
            self.state = Closed;
        }
        if self.state == Closing && self.output.len() == 0 {
            let is_over = self.input.is_ended() || self.socket.close_output().is_err();
            let lingering = Lingering { until: now + LINGER_TIME, bytes_left: LINGER_BYTES };
            self.state = if is_over { Closed } else { lingering };
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
        self.output.push(reply, ending);
        self.state = Closing;
    }

    /// Replies to `SHUTDOWN`.
    pub(super) fn finish_shutdown(&mut self, reply: &Reply) {
        if let AwaitingShutdown(ending) = self.state {
            self.close_with(reply, ending);
        }
    }

    /// Closes a lingering connection, after dropping the input that has arrived.
    pub(super) fn stop_lingering(&mut self, buffer: &mut [u8]) {
        while let Lingering { .. } = self.state {
            match self.socket.read(buffer) {
                Ok(count) => self.receive(&buffer[..count]),
                Err(_) => self.state = Closed,
            }
        }
    }

    /// Closes a connection that has lingered long enough.
    pub(super) fn expire(&mut self, now: Instant) {
        if matches!(self.state, Lingering { until, .. } if until <= now) {
            self.state = Closed;
        }
    }

    pub(super) fn free_unused(&mut self) {
        self.input.free_unused();
        self.output.free_unused();
    }

    /// Maximum length of a line.
    fn line_bytes_max(&self) -> usize {
        let max = if self.authenticated { usize::MAX } else { UNAUTHENTICATED_LINE_BYTES_MAX };
        self.options.line_bytes_max.min(max)
    }

    /// Whether a line may be executed.
    fn may_execute(&self) -> bool {
        self.state == Open && self.output.len() < self.options.output_bytes_max
    }

    /// Whether there may be a line to execute, or the end of the input to handle.
    pub(super) fn can_execute(&self) -> bool {
        self.may_execute() && (self.input.is_pending() || self.input.is_ended())
    }

    pub(super) fn wants_read(&self) -> bool {
        let can_read = self.may_execute() && !self.can_execute() && self.read_bytes_left > 0;
        can_read || matches!(self.state, Lingering { .. })
    }

    pub(super) fn wants_write(&self) -> bool {
        self.output.is_blocked && self.state != Closed
    }

    /// Whether there is something to do, even if the client sends nothing.
    pub(super) fn is_busy(&self) -> bool {
        self.can_execute() || matches!(self.state, Closing | Lingering { .. } | Closed)
    }

    pub(super) fn state(&self) -> ConnectionState {
        self.state
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
