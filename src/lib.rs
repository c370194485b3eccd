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

pub use engine::KvsEngine;
pub use engine::choice;
#[cfg(feature = "sled")]
pub use engine::sled::SledKvStore;
pub use engine::store::{KvStore, Options};
pub use error::{KvsError, Result, ServerMessage};
pub use server::{Fsync, KvsServer, ServerOptions, Stop, StopHandle, UnknownFsync};

/// The specification's other name of [`KvStore`].
pub type KvsStore = KvStore;

/// The later name of [`SledKvStore`] in the specification's course.
#[cfg(feature = "sled")]
pub type SledKvsEngine = SledKvStore;
