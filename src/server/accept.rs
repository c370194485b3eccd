//! The listener, and what becomes of those who connect.
//!
//! Not here: what clients send. A connection that cannot be accepted for want
//! of descriptors stays in the system's queue: the listener rests, since `poll`
//! would report it for ever, until a client has left or some time has passed.
//! Who is connected is served on; but what needs a file that is not open, such as
//! the next segment, is answered with an error as long as the want lasts.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::counters::Counters;
use super::execute::busy;
use super::options::ServerOptions;
use super::pace::Pace;
use super::table::{Client, Table};
use crate::logger::{debug, warn};

/// Connections accepted in a turn, so that a flood of them does not keep the
/// clients waiting.
const ACCEPTS_MAX: usize = 64;
/// Clients over the limit that are told so at a time; more wait in the queue.
const REFUSED_MAX: usize = 64;
/// How long the listener rests when no client leaves: somebody else in the
/// system may have given descriptors back.
const REST: Duration = Duration::from_millis(250);

/// The listener.
#[derive(Debug)]
pub(super) struct Acceptor {
    /// What accepts.
    listener: TcpListener,
    /// Until when it rests.
    rests_until: Option<Instant>,
    /// Clients that are only told that there are too many.
    refused: usize,
    /// Messages about a want of descriptors.
    complaints: Pace,
}

impl Acceptor {
    /// Accepts from `listener`, which must not block.
    pub(super) fn new(listener: TcpListener) -> Acceptor {
        Acceptor { listener, rests_until: None, refused: 0, complaints: Pace::default() }
    }

    /// Accepts those who wait, up to a turn's share.
    pub(super) fn accept(
        &mut self,
        table: &mut Table,
        options: &ServerOptions,
        counters: &mut Counters,
    ) {
        for _ in 0..ACCEPTS_MAX {
            if self.is_full(table, options) {
                return;
            }
            match self.listener.accept() {
                Ok((stream, peer)) => self.welcome(stream, peer, table, options, counters),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if is_of_one_connection(&e) => debug!("a connection was lost: {e}"),
                Err(e) => return self.rest(&e),
            }
        }
    }

    /// Adds a client, or one that is told that there are too many.
    fn welcome(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        table: &mut Table,
        options: &ServerOptions,
        counters: &mut Counters,
    ) {
        // Replies go out once a turn and in one piece: waiting to fill a packet
        // would only delay them. A socket without it is slower, not wrong.
        let _ = stream.set_nodelay(true);
        if let Err(e) = stream.set_nonblocking(true) {
            return warn!("{peer}: cannot be served: {e}");
        }
        let fd = stream.as_raw_fd();
        let mut connection = Connection::new(stream, options);
        let is_refused = table.len() - self.refused >= options.clients_max;
        if is_refused {
            warn!("{peer}: refused, {} clients are connected", options.clients_max);
            connection.finish(&busy(options.clients_max));
            self.refused += 1;
            counters.clients_refused += 1;
        } else {
            debug!("{peer}: connected");
            counters.clients_accepted += 1;
        }
        table.add(Client { connection, peer, is_refused, fd, last_ready: Instant::now() });
    }

    /// Stops accepting for a while.
    fn rest(&mut self, e: &io::Error) {
        let now = Instant::now();
        self.rests_until = Some(now + REST);
        if self.complaints.allows(now) {
            warn!("new connections wait, as one could not be accepted: {e}");
        }
    }

    /// Takes note that a client has left, and a descriptor with it.
    pub(super) fn note_departure(&mut self, client: &Client) {
        debug!("{}: disconnected", client.peer);
        self.rests_until = None;
        self.refused -= usize::from(client.is_refused);
    }

    /// Whether connections would be accepted now.
    pub(super) fn is_open(&mut self, table: &Table, options: &ServerOptions, now: Instant) -> bool {
        self.rests_until = self.rests_until.filter(|until| now < *until);
        self.rests_until.is_none() && !self.is_full(table, options)
    }

    /// Whether not even a refusal fits in.
    fn is_full(&self, table: &Table, options: &ServerOptions) -> bool {
        table.len() >= options.clients_max.saturating_add(REFUSED_MAX)
    }

    /// When the rest ends.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.rests_until
    }
}

/// Whether an error of `accept` is about the one connection that it took from
/// the queue, and the next may be fine.
fn is_of_one_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::Interrupted
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_descriptors_is_not_of_one_connection() {
        assert!(is_of_one_connection(&ErrorKind::ConnectionAborted.into()));
        assert!(is_of_one_connection(&ErrorKind::Interrupted.into()));
        // EMFILE: std has no kind for it.
        assert!(!is_of_one_connection(&io::Error::from_raw_os_error(24)));
        assert!(!is_of_one_connection(&ErrorKind::OutOfMemory.into()));
    }

    #[test]
    fn the_listener_rests_after_a_lack_and_not_when_all_are_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut table = Table::new(None, listener.as_raw_fd());
        let mut acceptor = Acceptor::new(listener);
        let options = ServerOptions::default();
        acceptor.accept(&mut table, &options, &mut Counters::new());
        assert_eq!(acceptor.rests_until(), None);
        let begun = Instant::now();
        acceptor.rest(&ErrorKind::OutOfMemory.into());
        let until = acceptor.rests_until().unwrap();
        assert!(until >= begun + REST);
        assert!(!acceptor.is_open(&table, &options, begun));
        assert!(acceptor.is_open(&table, &options, until));
    }
}
