//! A persistent key/value store: a library, a server and a client.
//!
//! * [`KvStore`] is a log-structured storage engine in one directory.
//!   `SledKvStore` wraps sled. Both implement [`KvsEngine`].
//! * [`KvsServer`] serves an engine to many clients in one thread. The
//!   [`protocol`] is lines of text that a person can type into netcat.
//! * [`KvsClient`] is a client of the server.
//!
//! ```
//! use kvs::{KvStore, KvsEngine}; // the trait has the methods
//!
//! # fn main() -> kvs::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let directory = directory.path().join("data");
//! let store = KvStore::open(&directory)?; // creates the directory
//! store.set("key".to_owned(), "value".to_owned())?; // survives a crash of the process
//! store.sync()?; // survives a power failure
//! assert_eq!(store.get("key".to_owned())?.as_deref(), Some("value"));
//! for key in store.keys() {
//!     assert_eq!(key?, "key");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `README.md` shows how to use the programs. `docs/design.md` explains the design
//! with pictures and numbers. `docs/specification.md` traces each sentence of the
//! specification to code and tests.
//!
//! # Features
//!
//! `sled` (on by default) builds the second engine. Without it the crate has no
//! dependencies.
//!
//! # The path of a request
//!
//! What happens to `SET key value`:
//!
//! 1. `server/event_loop.rs` polls all sockets and finds this one readable.
//! 2. `server/connection.rs` reads at most 16 KiB into the input buffer.
//! 3. `server/input.rs` splits the buffer into lines.
//! 4. [`protocol`] decodes a line to a request.
//! 5. `server/execute.rs` passes the request to the engine.
//! 6. `engine/store/log.rs` makes sure that there is disk space, and stages a record
//!    in the batch.
//! 7. `engine/store/index.rs` points the key to the record.
//! 8. `server/execute.rs` puts the reply into the output buffer, where it waits.
//! 9. `server/event_loop.rs` commits when all lines of the iteration are executed:
//!    `engine/store/log.rs` writes the batch into the active segment ..
//! 10. .. and `engine/store/sync.rs` fsyncs the segment, once for all clients.
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
//! | active segment | the newest segment, to which records are appended |
//! | batch | records that are staged in memory and not yet written |
//! | block cache | blocks of 4 KiB of segments in memory |
//! | checkpoint | a record that says up to where the log is on disk |
//! | cleaning | copying the live records of the oldest segment, to remove its file |
//! | commit | writing the batch, and under `always` the fsync |
//! | compaction | giving back disk space by cleaning one segment after another |
//! | connection | the server's side of one client |
//! | corruption | damage to a part of the log that had been on disk |
//! | dead bytes | bytes of the log that are not live |
//! | engine | what stores keys and values: [`KvStore`] or `SledKvStore` |
//! | event loop | the server's loop: poll, read, execute, commit, send |
//! | fingerprint | a 96-bit hash that stands for a key in the index |
//! | fsync | the system call after which data survives a power failure |
//! | helper thread | does fsyncs that nobody waits for, and removes files |
//! | idle | without requests, or without writes |
//! | index | maps each key to the location of its newest record |
//! | iteration | one pass of the event loop |
//! | live bytes | bytes of the records that the index points to |
//! | log | all records in the order in which they were written |
//! | log position | a segment and an offset in it |
//! | preallocated space | zeros behind the last record of the active segment |
//! | record | a set, a removal, or a note of the store itself, in the log |
//! | recovery | reading the log when a store is opened |
//! | reserve | disk space that is kept for removals and cleaning |
//! | rotation | beginning a new active segment |
//! | salt | a random number that the checksums of a segment start from |
//! | segment | one file of the log |
//! | tombstone | a record that removes a key |
//! | torn tail | the end of the log that a power failure left incomplete |

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

/// Compiles the Rust code in README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
