//! A persistent key/value store.

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
#[doc(hidden)]
pub use engine::store::disk;
pub use engine::store::{
    COMPACT_THRESHOLD_BYTES_MIN, KvStore, Options, Repair, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
};
pub use error::{KvsError, Result, ServerMessage};

/// The specification's other name of [`KvStore`].
pub type KvsStore = KvStore;
