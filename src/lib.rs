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
pub mod protocol;
mod server;

pub use client::{KvsClient, TIMEOUT};
pub use engine::KvsEngine;
pub use engine::choice;
#[cfg(feature = "sled")]
pub use engine::sled::SledKvStore;
#[doc(hidden)]
pub use engine::store::disk;
pub use engine::store::{
    COMPACT_THRESHOLD_BYTES_MIN, KvStore, Options, Repair, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
};
pub use error::{KvsError, Result, ServerMessage};
pub use server::{Fsync, KvsServer, Secret, ServerOptions, Stop, StopHandle, UnknownFsync};

/// The specification's other name of [`KvStore`].
pub type KvsStore = KvStore;

/// The later name of [`SledKvStore`] in the specification's course.
#[cfg(feature = "sled")]
pub type SledKvsEngine = SledKvStore;
