//! The clients, and what `poll` is asked about them.
//!
//! The cost of `poll` grows with the descriptors it is given, so a thousand
//! idle clients would slow down every turn of a busy one. Clients that did
//! something lately, the warm ones, stand first, and as long as one of them is
//! ready only they are asked, but for once in [`FULL_POLL_INTERVAL`].
//!
//! Not here: what clients send. Invariants: `clients[i]` is asked about in
//! `polls[FIXED + i]`, and the first `warm` clients are the warm ones
//! (`who_is_ready_stays_warm_also_where_not_all_are_asked`).

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::poll::{self, PollFd};

/// Places in front of the clients': the stop pipe and the listener.
const FIXED: usize = 2;
/// The stop pipe's place.
const STOP: usize = 0;
/// The listener's place.
const LISTENER: usize = 1;
/// How long an idle client can be left out: what its first request may have to
/// wait, and the turn that is under way then.
const FULL_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long a client that does nothing stays warm. Clients in a conversation
/// are quicker, and people at a terminal do not notice the interval above.
const WARM_MAX: Duration = Duration::from_millis(100);

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    /// Its bytes.
    pub(super) connection: Connection<TcpStream>,
    /// Its address, for messages.
    pub(super) peer: SocketAddr,
    /// Whether it is only told that there are too many.
    pub(super) is_refused: bool,
    /// Its socket.
    pub(super) fd: RawFd,
    /// When it was last ready.
    pub(super) last_ready: Instant,
}

/// All clients.
#[derive(Debug)]
pub(super) struct Table {
    /// The clients, warm ones first.
    clients: Vec<Client>,
    /// What is asked, in the same order.
    polls: Vec<PollFd>,
    /// How many are warm.
    warm: usize,
    /// When all were last asked.
    last_full_poll: Instant,
}

impl Table {
    /// No clients; `stop` and `listener` are asked about each time.
    pub(super) fn new(stop: Option<RawFd>, listener: RawFd) -> Table {
        let stop = stop.map_or(PollFd::nothing(), PollFd::reading);
        Table {
            clients: Vec::new(),
            polls: vec![stop, PollFd::reading(listener)],
            warm: 0,
            last_full_poll: Instant::now(),
        }
    }

    /// Waits until something is ready or `timeout` is over, from `now` on: where the
    /// idle clients can be left out for the warm ones, and for all if none of those
    /// is ready.
    pub(super) fn wait(&mut self, timeout: Option<Duration>, now: Instant) -> io::Result<usize> {
        if let Some(time_left) = self.can_leave_out_idle(now) {
            let ready =
                self.wait_for_warm(timeout.map_or(time_left, |it| it.min(time_left)), now)?;
            if ready > 0 || timeout == Some(Duration::ZERO) {
                return Ok(ready);
            }
        }
        let ready = self.wait_for_all(self.until_cool(timeout))?;
        // It may have been a long wait.
        self.sort(Instant::now());
        Ok(ready)
    }

    /// How long there are clients to leave out, and others to ask, until all are to
    /// be asked; `None` when that is now.
    fn can_leave_out_idle(&self, now: Instant) -> Option<Duration> {
        let is_any = (1..self.clients.len()).contains(&self.warm);
        let time_left = FULL_POLL_INTERVAL.checked_sub(now.duration_since(self.last_full_poll));
        time_left.filter(|left| is_any && !left.is_zero())
    }

    /// Waits for the warm clients, no longer than the others can be left out. It is
    /// so short that when it began will do for when they were ready.
    fn wait_for_warm(&mut self, timeout: Duration, now: Instant) -> io::Result<usize> {
        let ready = poll::wait(&mut self.polls[..FIXED + self.warm], Some(timeout))?;
        self.note_ready(now);
        Ok(ready)
    }

    /// How long all may be waited for: while a client is warm no longer than it
    /// takes to cool, as only then it gives back what it holds. A server whose
    /// clients are all cool is not woken.
    fn until_cool(&self, timeout: Option<Duration>) -> Option<Duration> {
        let cooling = (self.warm > 0).then_some(WARM_MAX);
        timeout.into_iter().chain(cooling).min()
    }

    /// Notes when each warm client that is ready was so.
    fn note_ready(&mut self, now: Instant) {
        for (client, _) in self.warm_polls().filter(|(_, poll)| poll.is_ready()) {
            client.last_ready = now;
        }
    }

    /// Warms the clients that are ready `now`, when all were asked, and lets the others
    /// cool.
    fn sort(&mut self, now: Instant) {
        self.last_full_poll = now;
        for index in self.warm..self.clients.len() {
            if self.polls[FIXED + index].is_ready() {
                self.swap(index, self.warm);
                self.warm += 1;
            }
        }
        self.note_ready(now);
        for index in (0..self.warm).rev() {
            let client = &mut self.clients[index];
            let is_quiet = now.duration_since(client.last_ready) > WARM_MAX;
            if is_quiet && !client.connection.is_busy() {
                client.connection.release();
                self.warm -= 1;
                self.swap(index, self.warm);
            }
        }
    }

    /// Has two clients change places.
    fn swap(&mut self, a: usize, b: usize) {
        self.clients.swap(a, b);
        self.polls.swap(FIXED + a, FIXED + b);
    }

    /// Adds a client, warm.
    pub(super) fn add(&mut self, client: Client) {
        self.polls.push(PollFd::reading(client.fd));
        self.clients.push(client);
        self.swap(self.clients.len() - 1, self.warm);
        self.warm += 1;
    }

    /// Drops the dead among the warm clients and hands each to `note`.
    pub(super) fn remove_dead_warm(&mut self, note: impl FnMut(&Client)) {
        self.remove_from(self.warm, |client| client.connection.is_dead(), note);
    }

    /// Drops the clients that are `unwanted` and hands each to `note`.
    pub(super) fn remove_all(
        &mut self,
        unwanted: impl Fn(&Client) -> bool,
        note: impl FnMut(&Client),
    ) {
        self.remove_from(self.clients.len(), unwanted, note);
    }

    /// Drops the `unwanted` among the first `count` clients. From the last on: a
    /// client that takes the place of a dropped one has been looked at.
    fn remove_from(
        &mut self,
        count: usize,
        unwanted: impl Fn(&Client) -> bool,
        mut note: impl FnMut(&Client),
    ) {
        for index in (0..count).rev() {
            if unwanted(&self.clients[index]) {
                note(&self.clients[index]);
                self.remove(index);
            }
        }
    }

    /// Drops one client.
    fn remove(&mut self, mut index: usize) {
        if index < self.warm {
            self.warm -= 1;
            self.swap(index, self.warm);
            index = self.warm;
        }
        self.clients.swap_remove(index);
        self.polls.swap_remove(FIXED + index);
    }

    /// The clients that may have something to do.
    pub(super) fn warm(&mut self) -> &mut [Client] {
        &mut self.clients[..self.warm]
    }

    /// All clients.
    pub(super) fn all(&mut self) -> &mut [Client] {
        &mut self.clients
    }

    /// The warm clients, each with what was found and will be asked of it.
    pub(super) fn warm_polls(&mut self) -> impl Iterator<Item = (&mut Client, &mut PollFd)> {
        self.clients[..self.warm].iter_mut().zip(&mut self.polls[FIXED..])
    }

    /// How many clients there are.
    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether the server is to stop.
    pub(super) fn is_stop_ready(&self) -> bool {
        self.polls[STOP].is_ready()
    }

    /// Whether somebody wants to connect.
    pub(super) fn is_listener_ready(&self) -> bool {
        self.polls[LISTENER].is_ready()
    }

    /// Whether it is asked from now on if somebody wants to connect.
    pub(super) fn listen(&mut self, is_asked: bool) {
        self.polls[LISTENER].ask(is_asked, false);
    }

    /// Asks about clients only from now on.
    pub(super) fn keep_clients_only(&mut self) {
        self.polls[..FIXED].fill(PollFd::nothing());
    }

    /// Asks the clients for room to write; says whether any waits for it.
    pub(super) fn ask_for_room(&mut self) -> bool {
        let mut is_any = false;
        for (client, poll) in self.clients.iter().zip(&mut self.polls[FIXED..]) {
            let is_blocked = client.connection.wants_write();
            *poll = if is_blocked { PollFd::reading(client.fd) } else { PollFd::nothing() };
            poll.ask(false, is_blocked);
            is_any |= is_blocked;
        }
        is_any
    }

    /// Waits for the clients, warm or not.
    pub(super) fn wait_for_all(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        poll::wait(&mut self.polls, timeout)
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
