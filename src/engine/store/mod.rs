//! `KvStore`: the log-structured engine.

use std::path::PathBuf;

use crate::engine::KvsEngine;
use crate::error::Result;

/// How a store behaves; `Options::default()` suits an embedded store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Bytes after which a new segment is begun.
    pub segment_bytes: u64,
    /// Dead bytes below which nothing is compacted.
    pub compact_threshold_bytes: u64,
    /// Bytes of the read cache.
    pub cache_bytes: usize,
    /// Whether writes wait in memory for the next `flush` or `sync`.
    pub buffered: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            segment_bytes: 32 << 20,
            compact_threshold_bytes: 1 << 20,
            cache_bytes: 64 << 20,
            buffered: false,
        }
    }
}

/// The log-structured engine.
#[derive(Debug)]
pub struct KvStore {}

impl KvStore {
    /// Opens the store in `directory`, which is created if it is missing.
    pub fn open(directory: impl Into<PathBuf>) -> Result<KvStore> {
        KvStore::open_with(directory, Options::default())
    }

    /// Opens the store in `directory` with these options.
    pub fn open_with(_directory: impl Into<PathBuf>, _options: Options) -> Result<KvStore> {
        todo!()
    }

    /// Whether `directory` holds a store's segments.
    pub fn exists(_directory: &std::path::Path) -> Result<bool> {
        todo!()
    }
}

impl KvsEngine for KvStore {
    fn set(&self, _key: String, _value: String) -> Result<()> {
        todo!()
    }
    fn get(&self, _key: String) -> Result<Option<String>> {
        todo!()
    }
    fn remove(&self, _key: String) -> Result<()> {
        todo!()
    }
    fn flush(&self) -> Result<()> {
        todo!()
    }
    fn sync(&self) -> Result<()> {
        todo!()
    }
}
