//! `SledKvStore`: sled behind the engine trait.
