//! A persistent key/value store.

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
pub use server::{Fsync, KvsServer, ServerOptions, Stop, StopHandle, UnknownFsync};

/// The specification's other name of [`KvStore`].
pub type KvsStore = KvStore;

/// The later name of [`SledKvStore`] in the specification's course.
#[cfg(feature = "sled")]
pub type SledKvsEngine = SledKvStore;
