//! A persistent key/value store: a library, a server and a client.
//!
//! * [`KvStore`] is a log-structured storage engine in one directory.
//!   `SledKvStore` wraps sled; without the feature `sled` the crate has no
//!   dependencies. Both implement [`KvsEngine`].
//! * [`KvsServer`] serves an engine to many clients in one thread. The
//!   [`protocol`] is lines of text that a person can type into netcat.
//! * [`KvsClient`] is a client of the server.
//!
//! ```
//! use kvs::{KvStore, KvsEngine}; // the trait has the methods
//!
//! # let directory = tempfile::tempdir().unwrap();
//! let store = KvStore::open(directory.path().join("data"))?; // creates the directory
//! store.set("key".to_owned(), "value".to_owned())?; // survives a crash of the process
//! store.sync()?; // survives a power failure
//! assert_eq!(store.get("key".to_owned())?.as_deref(), Some("value"));
//! # kvs::Result::Ok(())
//! ```
//!
//! `README.md` shows how to use the programs. `docs/design.md` explains the design with
//! pictures. `docs/specification.md` traces each sentence of the specification to code
//! and tests.
//!
//! # The path of a request
//!
//! 1. `server/event_loop.rs` finds a socket readable, on which `SET key value` arrived.
//! 2. `server/connection.rs` reads at most 16 KiB into the input buffer.
//! 3. `server/input.rs` splits the buffer into lines.
//! 4. [`protocol`] decodes a line to a request.
//! 5. `server/execute.rs` passes the request to the engine.
//! 6. `engine/store/log.rs` makes sure of disk space, and stages a record in the batch.
//! 7. `engine/store/mod.rs` queues the update of the index. Queued updates are applied
//!    together, before the next read at the latest.
//! 8. `server/execute.rs` puts the reply into the output buffer, where it waits.
//! 9. `server/event_loop.rs` commits once for all lines of the iteration.
//! 10. `engine/store/log.rs` writes the batch, and `engine/store/sync.rs` fsyncs it.
//! 11. `server/connection.rs` sends the reply.
//!
//! # Map
//!
//! Imports go one way: each module imports from those above it only.
//!
//! | module | contents |
//! | --- | --- |
//! | `error.rs` | [`KvsError`]: what can fail, with the file, address or limit |
//! | `poll.rs` | the system call `poll` |
//! | `logger.rs` | messages on stderr, which never block |
//! | `args.rs` | splits the command line into flags and arguments |
//! | `protocol/` | requests, replies and tokens, and their grammar |
//! | `engine/mod.rs` | [`KvsEngine`]: the contract of an engine |
//! | `engine/store/` | [`KvStore`]; `mod.rs` names its parts in reading order |
//! | `engine/sled.rs` | `SledKvStore` |
//! | `engine/choice.rs` | [`choice`]: which engine a directory holds |
//! | `server/` | [`KvsServer`]; `mod.rs` names its parts in reading order |
//! | `client.rs` | [`KvsClient`] |
//! | `bin/` | flags, output and exit statuses of the two programs |
//!
//! # Glossary
//!
//! | term | meaning |
//! | --- | --- |
//! | segment, active segment | one file of the log, and the newest one |
//! | record, tombstone | an entry of the log, and one that removes a key |
//! | log position | a segment and an offset in it |
//! | index | maps each key to the location of its newest record |
//! | fingerprint | a 96-bit hash that stands for a key in the index |
//! | live, dead bytes | bytes of the records that the index points to, and all others |
//! | block cache | blocks of 4 KiB of segments in memory |
//! | batch | records that are staged in memory and not yet written |
//! | commit | writing the batch, and under `always` the fsync |
//! | iteration | one pass of the server's event loop |
//! | checkpoint | a record that says up to where the log is on disk |
//! | rotation | beginning a new active segment |
//! | preallocated space | zeros after the last record of the active segment |
//! | reserve | disk space for removals and cleaning when the disk is full |
//! | compaction | giving back disk space by cleaning one segment after another |
//! | cleaning | copying the live records of the oldest segment, to remove its file |
//! | helper thread | does fsyncs in the background, and removes files |
//! | recovery | reading the log when a store is opened |
//! | torn tail | the end of the log that a power failure left incomplete |
//! | corruption | damage to a part of the log that had been on disk |
//! | salt | a random number that the checksums of a segment start from |

#![cfg_attr(not(test), warn(clippy::expect_used, clippy::panic, clippy::unwrap_used))]
#![cfg_attr(not(test), warn(clippy::print_stderr, clippy::print_stdout))]

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

/// Another name of [`KvStore`]; `docs/specification.md` says where it is from.
pub type KvsStore = KvStore;

/// Another name of [`SledKvStore`].
#[cfg(feature = "sled")]
pub type SledKvsEngine = SledKvStore;

/// Compiles the Rust code in README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
