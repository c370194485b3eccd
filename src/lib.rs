//! A persistent key/value store: a library, a server and a client.
//!
//! [`KvStore`] is a log-structured engine in one directory. [`KvsServer`] serves
//! it, or `SledKvStore`, or whatever implements [`KvsEngine`], to many clients
//! in one thread. [`KvsClient`] speaks to it, and so can a person with netcat:
//! the [`protocol`] is lines of text.
//!
//! # The way of a request
//!
//! ```text
//! poll -> connection -> inbox -> protocol -> execute -> KvsEngine -> batch -> segment -> index
//! poll <- connection <- outbox <- replies held until the engine has synced this turn's writes
//! ```
//!
//! The server goes in turns. In each it reads from every client that has sent
//! something, executes all whole lines, syncs the engine once for all of them,
//! and only then sends the replies. No layer is skipped, and each imports from
//! those to its right only.
//!
//! # The map, in reading order
//!
//! | place | what lives there | what to look for |
//! | --- | --- | --- |
//! | `error.rs` | [`KvsError`] | a variant is what a caller may do about it |
//! | `logger.rs`, `args.rs` | messages on stderr, an argv lexer | how little each needs |
//! | `protocol/` | requests, replies, tokens | every line is a request or a fault |
//! | `engine/mod.rs` | [`KvsEngine`] | the three steps in which a write is durable |
//! | `engine/store/` | [`KvStore`] | what is on the disk before what |
//! | `engine/sled.rs`, `engine/choice.rs` | the second engine, and which one to open | |
//! | `server/` | [`KvsServer`] | the order of a turn is the promise |
//! | `client.rs` | [`KvsClient`] | every wait ends |
//! | `bin/` | flags, output, exit status | nothing that a test would want to call |
//!
//! # The specification, and where it is kept
//!
//! | what it asks for | place | test |
//! | --- | --- | --- |
//! | a server: `--addr`, `--engine`, `-v` | `bin/kvs-server/flags.rs` | `wrong_command_lines_of_the_server_write_nothing`, `versions_and_help`, `both_ip_versions` |
//! | the engine in use is the default, another one an error | `engine/choice.rs` | `the_other_engine_is_refused_before_anything_is_written` |
//! | an error and a status for what cannot be bound or parsed | `bin/common/mod.rs` | `no_server_and_a_silent_one_are_errors` |
//! | a client: `set`, `get`, `rm`, `shutdown`, `-V` | `bin/kvs-client.rs` | `every_command_with_both_engines`, `wrong_command_lines_of_the_client` |
//! | shutdown waits until it is complete | `client.rs`, `server/end.rs` | `shutdown_returns_when_port_and_directory_are_free` |
//! | `KvsClient`, `KvsServer`, `KvsStore`, `SledKvStore` | here | `a_store_may_be_bound_either_way` |
//! | `KvsEngine`: `set`, `get`, `remove` | `engine/mod.rs` | `an_engine_does_what_a_map_does` |
//! | commands go to a log, in sequence | `engine/store/write.rs` | `whatever_fails_exactly_that_is_told_and_undone` |
//! | starting evaluates them into an index of file offsets | `engine/store/recover.rs` | `every_loss_of_power_leaves_what_was_synced` |
//! | `get` reads where the index points | `engine/store/read.rs` | `a_value_damaged_while_the_store_runs_is_refused_and_the_rest_goes_on` |
//! | compaction from a threshold on | `engine/store/compact.rs` | `the_directory_never_exceeds_its_bound` |
//! | a logger on the console, address and engine at the start | `logger.rs` | `the_start_is_told_with_version_address_and_engine` |
//! | a protocol of one's own, over `std::net` | `protocol/mod.rs` | `transcripts_match` |
//! | errors that are chained, and pass the wire | `error.rs` | `a_servers_error_comes_with_its_code` |
//! | benches of both engines | `benches/engines.rs` | `make bench` |
//! | shutdown by signal | `server/signal.rs` | `a_signal_is_an_orderly_end` |
//!
//! # What was chosen, and what was not
//!
//! * *`poll`, and neither threads nor `epoll`.* One thread needs no lock, and a
//!   turn of all clients is what one sync can be shared by. `poll` is one call
//!   that Linux and macOS both have; what it costs with many idle clients is
//!   paid seldom (`server/table.rs`). Other threads only spare that one a wait: a
//!   sync of writes that were not to be synced yet, giving back the blocks of a
//!   removed file (`engine/store/disk.rs`), half the work of opening
//!   (`engine/store/replay.rs`).
//! * *The reply waits for the sync.* Else a client is told of what a loss of
//!   power undoes. All writes of a turn share the sync, so that many clients
//!   do not wait for one another (`server/turn.rs`).
//! * *The oldest segment is cleaned first,* not the emptiest. It copies somewhat
//!   more, and in return replay order stays right and a tombstone can always be
//!   dropped (`engine/store/compact.rs`).
//! * *A salt in each segment.* Without it a client could store a value that holds
//!   a record, which whoever looks for records behind damage would believe:
//!   recovery, that a torn tail had been synced; repair, the record itself
//!   (`engine/store/record.rs`).
//! * *Lines of text, and no faster binary protocol beside them.* What a person can
//!   type is what a program sends: there is one decoder to get right. Scanning
//!   a line is a small part of a request (`protocol/token.rs`).
//! * *No hint files and no snapshot of the index.* They would be a second truth
//!   to keep; reading every record at the start checks it too
//!   (`engine/store/replay.rs`).

#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unwrap_used
    )
)]

#[doc(hidden)]
pub mod args;
mod client;
mod engine;
mod error;
#[doc(hidden)]
pub mod logger;
mod poll;
pub mod protocol;
mod server;

pub use client::{KvsClient, TIMEOUT};
pub use engine::choice;
#[cfg(feature = "sled")]
pub use engine::sled::SledKvStore;
#[doc(hidden)]
pub use engine::store::fs;
pub use engine::store::{KvStore, Options};
pub use engine::{KvsEngine, Page};
pub use error::{KvsError, Result};
pub use server::{Fsync, KvsServer, Secret, ServerOptions, Stop, StopHandle};

/// The specification's other name of [`KvStore`].
pub type KvsStore = KvStore;

/// The later name of [`SledKvStore`] in the specification's course.
#[cfg(feature = "sled")]
pub type SledKvsEngine = SledKvStore;
