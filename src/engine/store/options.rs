//! How a store behaves: [`Options`] and the limits of each.
//!
//! Not here: flags, which the binaries have.

/// Bytes a segment may be set to have at the least: a header and some records.
pub const SEGMENT_BYTES_MIN: u64 = 512;
/// Bytes a segment may be set to have at the most, so that offsets have 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The least compaction threshold: less would be spent on the bytes that
/// compaction itself writes.
pub const COMPACT_THRESHOLD_BYTES_MIN: u64 = 4 << 10;

/// How a store behaves. The default suits a store that is embedded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Bytes after which a segment is followed by the next one, or up to a quarter
    /// more where writes are not synced one by one, from
    /// [`SEGMENT_BYTES_MIN`] to [`SEGMENT_BYTES_MAX`]. Small ones give space
    /// back sooner, large ones make fewer files.
    pub segment_bytes: u64,
    /// Dead bytes below which nothing is compacted, at least
    /// [`COMPACT_THRESHOLD_BYTES_MIN`]. Above, compaction begins when half of
    /// all bytes are dead.
    pub compact_threshold_bytes: u64,
    /// Bytes of the read cache; 0 for none.
    pub cache_bytes: usize,
    /// Whether writes wait in memory for the next `flush` or `sync`, as a
    /// server wants that commits once for many clients. Else `set` and
    /// `remove` hand their record to the system before they return.
    pub buffered: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            segment_bytes: 8 << 20,
            compact_threshold_bytes: 1 << 20,
            cache_bytes: 64 << 20,
            buffered: false,
        }
    }
}

impl Options {
    /// The options, those that are outside their limits moved to the nearest.
    pub(super) fn within_limits(mut self) -> Options {
        self.segment_bytes = self.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        self.compact_threshold_bytes =
            self.compact_threshold_bytes.max(COMPACT_THRESHOLD_BYTES_MIN);
        self
    }
}
