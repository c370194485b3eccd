//! How a server ends.
//!
//! In this order: what has been executed is on the disk, its replies are sent,
//! the listener and the engine are closed, and only then is `SHUTDOWN`
//! answered. Whoever has read that answer finds port and directory free.

use std::time::{Duration, Instant};

use super::execute::storage_error;
use super::table::Table;
use super::turn::Running;
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use crate::protocol::Reply;

/// How long the end waits for clients to take their last replies: some round
/// trips of a slow network, and no more for one that does not read.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

impl<E: KvsEngine> Running<E> {
    /// Ends the server; an error if the engine could not keep everything.
    pub(super) fn end(self) -> Result<()> {
        let Running { engine, acceptor, mut table, mut scratch, .. } = self;
        let synced = engine.sync();
        for client in table.all().iter_mut().filter(|client| !client.connection.awaits_end()) {
            client.connection.close();
        }
        say_farewell(&mut table, &mut scratch)?;
        table.remove_all(|client| !client.connection.awaits_end(), |_| ());
        drop(acceptor);
        drop(engine);
        let reply = synced.as_ref().map_or_else(storage_error, |()| Reply::Ok);
        for client in table.all() {
            client.connection.finish(&reply);
        }
        say_farewell(&mut table, &mut scratch)?;
        synced
    }
}

/// Sends what is due to all clients and drops those that are closing.
fn say_farewell(table: &mut Table, scratch: &mut [u8]) -> Result<()> {
    table.keep_clients_only();
    let deadline = Instant::now() + FAREWELL_MAX;
    loop {
        let now = Instant::now();
        for client in table.all() {
            client.connection.take_leave(now, scratch);
        }
        table.remove_all(|client| client.connection.is_dead(), |_| ());
        let time_left = deadline.saturating_duration_since(now);
        if !table.ask_for_room() || time_left.is_zero() {
            return Ok(());
        }
        table.wait_for_all(Some(time_left)).map_err(KvsError::io("cannot poll"))?;
        table.all().iter_mut().for_each(|client| client.connection.unblock());
    }
}
