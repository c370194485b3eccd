//! One client: bytes in, lines executed, bytes out, and its end.
//!
//! Generic over the socket, so that everything here is tested without one.
//! Not here: what a request does, when writes are safe, other clients.
//!
//! A turn is a transaction: nothing that it executes is final, and none of its
//! replies is sent, before [`commit`](Connection::commit). When the engine
//! could not keep the turn's writes, [`rollback`](Connection::rollback) has the
//! same lines executed once more.
//!
//! After the last line, what is left is sent; then it lingers ([`life`](super::life)).

use std::time::Instant;

use super::group::{Asked, keys, take_group};
use super::inbox::{Inbox, Place};
use super::life::{FAREWELL_READS_MAX, Life, Phase, Socket, State};
use super::options::ServerOptions;
use super::outbox::{Outbox, is_transient};
use super::outcome::{Answer, Outcome, outcome_of};
use super::secret::Trust;
use crate::protocol::Reply;

/// One client.
#[derive(Debug)]
pub(super) struct Connection<S> {
    /// What it is connected by.
    socket: S,
    /// What it sent.
    inbox: Inbox,
    /// What it is to be sent.
    outbox: Outbox,
    /// Bytes of waiting replies above which no line is executed.
    outbox_bytes_max: usize,
    /// Bytes of a line, for the message that says it is too long.
    line_bytes_max: usize,
    /// As this turn's lines have left it. Whether to read and to execute goes by
    /// this: a line is executed in view of those before it.
    state: State,
    /// As of the last commit. What the peer gets to see goes by this, its last
    /// reply and the end: a rollback may still undo the other.
    committed: State,
    /// What can still be done with the socket.
    life: Life,
}

impl<S: Socket> Connection<S> {
    /// A new client.
    pub(super) fn new(socket: S, options: &ServerOptions) -> Connection<S> {
        let trust = Trust::of_new(options.secret.as_ref());
        let state = State { phase: Phase::Serving, trust };
        Connection {
            socket,
            inbox: Inbox::new(options.line_bytes_max),
            outbox: Outbox::default(),
            outbox_bytes_max: options.outbox_bytes_max,
            line_bytes_max: options.line_bytes_max,
            state,
            committed: state,
            life: Life::Open,
        }
    }

    /// Reads once, at most as much as `scratch` holds, which all clients share.
    pub(super) fn fill(&mut self, scratch: &mut [u8]) {
        match self.socket.read(scratch) {
            Ok(0) => self.end_input(),
            Ok(count) => self.take_in(&scratch[..count]),
            Err(e) if is_transient(&e) => {}
            Err(_) => self.life = Life::Dead,
        }
    }

    /// No more input comes. What has come is still executed and answered.
    fn end_input(&mut self) {
        self.inbox.end();
        if self.is_lingering() {
            self.life = Life::Dead;
        }
    }

    /// Keeps what was read, or drops it when nothing is executed any more.
    fn take_in(&mut self, bytes: &[u8]) {
        if self.life.is_open() {
            self.inbox.take_in(bytes);
        } else {
            self.life = self.life.after_dropping(bytes.len());
        }
    }

    /// Executes lines until there are no whole ones, `bytes_max` of input have been,
    /// the answerer is full, or too many replies wait. Returns the bytes executed.
    pub(super) fn execute(&mut self, bytes_max: usize, answerer: &mut impl Answer) -> usize {
        // Out of the connection, as requests borrow from it.
        let mut inbox = std::mem::take(&mut self.inbox);
        let start = inbox.executed();
        let end = start.saturating_add(bytes_max);
        while inbox.is_pending() && self.goes_on(inbox.executed(), end, answerer) {
            let group = take_group(&mut inbox);
            let rest = self.execute_group(group, end, answerer);
            rest.into_iter().for_each(|place| inbox.go_back(place));
        }
        self.inbox = inbox;
        self.inbox.executed() - start
    }

    /// Whether the line that begins at `executed` is executed in this turn.
    fn goes_on(&self, executed: usize, end: usize, answerer: &impl Answer) -> bool {
        self.may_execute() && executed < end && !answerer.is_full()
    }

    /// Executes a group's lines that begin before `end`; where it stopped earlier.
    fn execute_group(
        &mut self,
        group: Vec<(Place, Asked<'_>)>,
        end: usize,
        answerer: &mut impl Answer,
    ) -> Option<Place> {
        answerer.prefetch(&keys(&group));
        for (place, asked) in group {
            if !self.goes_on(place.executed, end, answerer) {
                return Some(place);
            }
            self.execute_one(asked, answerer);
        }
        None
    }

    /// Executes what one line asks.
    fn execute_one(&mut self, asked: Asked<'_>, answerer: &mut impl Answer) {
        match outcome_of(asked, self.line_bytes_max, &mut self.state.trust, answerer) {
            Outcome::Reply(reply) => self.outbox.push(&reply),
            Outcome::Last(reply) => {
                self.outbox.push(&reply);
                self.state.phase = Phase::Closing;
            }
            Outcome::End => self.state.phase = Phase::Closing,
            Outcome::Later => self.state.phase = Phase::AwaitsEnd,
        }
    }

    /// Makes what this turn executed final: its replies may be sent.
    pub(super) fn commit(&mut self) {
        self.inbox.commit();
        self.outbox.commit();
        self.committed = self.state;
        if self.state.phase != Phase::Serving {
            self.inbox.clear();
        }
    }

    /// Takes back what this turn executed; the bytes of input that this was.
    /// Executing as many again executes the same lines, or the first of them where
    /// their replies are longer now: the others wait for a later turn.
    pub(super) fn rollback(&mut self) -> usize {
        self.outbox.rollback();
        self.state = self.committed;
        self.inbox.rollback()
    }

    /// Whether this turn has done anything that is not committed.
    pub(super) fn is_uncommitted(&self) -> bool {
        self.inbox.executed() > 0 || self.outbox.is_uncommitted() || self.state != self.committed
    }

    /// Writes once, and goes on to the end of the connection when that is due.
    pub(super) fn drain(&mut self, now: Instant) {
        if self.outbox.is_due() && self.outbox.write_to(&mut self.socket).is_err() {
            self.life = Life::Dead;
        }
        let is_last = self.committed.phase == Phase::Closing && self.outbox.waiting_bytes() == 0;
        if is_last && self.life.is_open() {
            self.life = self.after_last_reply(now);
        }
    }

    /// How a connection goes on that has sent its last reply.
    fn after_last_reply(&mut self, now: Instant) -> Life {
        if self.inbox.is_ended() || self.socket.end_writes().is_err() {
            return Life::Dead;
        }
        Life::lingering(now)
    }

    /// As [`drain`](Self::drain), but drops what has come instead of lingering.
    pub(super) fn take_leave(&mut self, now: Instant, scratch: &mut [u8]) {
        if self.can_drain() {
            self.drain(now);
        }
        for _ in 0..FAREWELL_READS_MAX {
            match self.is_lingering().then(|| self.socket.read(scratch)) {
                Some(Ok(1..)) => {}
                Some(_) => self.life = Life::Dead,
                None => return,
            }
        }
        self.life = Life::Dead;
    }

    /// Gives a last reply from outside of a turn, and begins to close.
    pub(super) fn finish(&mut self, reply: &Reply) {
        self.outbox.push(reply);
        self.close();
    }

    /// Begins to close: nothing more is executed, what has been is sent.
    pub(super) fn close(&mut self) {
        self.state.phase = Phase::Closing;
        self.commit();
    }

    /// Gives back the room that an idle client does not need.
    pub(super) fn release(&mut self) {
        self.inbox.release();
        self.outbox.release();
    }

    /// Takes note that the socket can be written to again.
    pub(super) fn unblock(&mut self) {
        self.outbox.unblock();
    }

    /// Ends a lingering that has lasted long enough.
    pub(super) fn expire(&mut self, now: Instant) {
        self.life = self.life.at(now);
    }

    /// Whether executing would get further.
    pub(super) fn can_execute(&self) -> bool {
        self.inbox.is_pending() && self.may_execute()
    }

    /// Whether this or the next turn has something to do for it.
    pub(super) fn is_busy(&self) -> bool {
        self.can_execute() || self.is_uncommitted()
    }

    /// Whether lines may be executed, if there are any.
    fn may_execute(&self) -> bool {
        self.state.phase == Phase::Serving && self.life.is_open() && self.has_room()
    }

    /// Whether a write would get further, or to the end of the connection.
    pub(super) fn can_drain(&self) -> bool {
        (self.outbox.is_due() || self.committed.phase == Phase::Closing)
            && !self.outbox.is_blocked()
            && self.life.is_open()
    }

    /// Whether more input is of use: only once what has come is executed, which
    /// bounds the inbox.
    pub(super) fn wants_read(&self) -> bool {
        let is_served = !self.inbox.is_ended()
            && !self.inbox.is_pending()
            && self.inbox.has_room()
            && self.state.phase == Phase::Serving
            && self.has_room();
        self.life.is_lingering() || (self.life.is_open() && is_served)
    }

    /// Whether something waits until the socket has room.
    pub(super) fn wants_write(&self) -> bool {
        self.outbox.is_blocked() && self.life.is_open()
    }

    /// Whether so few replies wait that there may be more.
    fn has_room(&self) -> bool {
        self.outbox.waiting_bytes() < self.outbox_bytes_max
    }

    /// Whether the client waits for the server's end.
    pub(super) fn awaits_end(&self) -> bool {
        self.committed.phase == Phase::AwaitsEnd && !self.is_dead()
    }

    /// Whether all is sent and only the peer's end is awaited.
    pub(super) fn is_lingering(&self) -> bool {
        self.life.is_lingering()
    }

    /// Whether the connection is to be dropped.
    pub(super) fn is_dead(&self) -> bool {
        self.life.is_dead()
    }

    /// Bytes of replies that wait.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.outbox.waiting_bytes()
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
