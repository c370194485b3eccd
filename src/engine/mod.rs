//! The [`KvsEngine`] trait: what the server asks of a store.
//!
//! One suite of tests runs for all engines, against a map in memory (`tests/engines.rs`).

pub mod choice;
#[cfg(feature = "sled")]
pub(crate) mod sled;
pub(crate) mod store;

use crate::error::Result;

/// Some keys of an engine, and where the scan goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// Keys that have a value. May be empty although more pages follow.
    pub keys: Vec<String>,
    /// The cursor of the next page; `None` when this page is the last one.
    pub next: Option<String>,
}

/// A persistent map from strings to strings.
///
/// # Contract
///
/// * Calls take effect in the order in which they are made. A `get` sees every
///   earlier `set` and `remove`.
/// * A write becomes durable in steps: [`flush`](Self::flush), then
///   [`sync`](Self::sync). An engine may take a step early, never late.
/// * A `set` or `remove` that fails changes nothing, and other calls still work, unless the
///   engine had to write to the disk: then the failure may be fatal. With sled, it always is.
/// * A `flush`, `sync` or `maintain` that fails is fatal: the state of the disk is
///   unknown. Every later call fails with [`KvsError::Failed`](crate::KvsError::Failed)
///   until the engine is opened again.
/// * Methods take `&self`. One thread uses an engine at a time.
pub trait KvsEngine {
    /// Sets the value of a key. Replaces an earlier value.
    fn set(&self, key: String, value: String) -> Result<()>;

    /// Returns the value of a key, or `None` if it has none.
    fn get(&self, key: String) -> Result<Option<String>>;

    /// Removes a key. [`KeyNotFound`](crate::KvsError::KeyNotFound) if it has no value.
    fn remove(&self, key: String) -> Result<()>;

    /// Returns some keys, and the cursor of the next page. `None` starts a scan.
    ///
    /// A key that exists during the whole scan is listed at least once, also if it is set
    /// again. A key that is created or removed during the scan may be missing.
    /// Cursors are opaque, and valid while the engine is open.
    /// [`BadCursor`](crate::KvsError::BadCursor) if no page has this cursor.
    fn scan(&self, cursor: Option<&str>) -> Result<Page>;

    /// All keys by [`scan`](Self::scan), in no particular order. An error is the last item.
    fn keys(&self) -> Box<dyn Iterator<Item = Result<String>> + '_> {
        Box::new(keys(|cursor| self.scan(cursor)))
    }

    /// Makes all writes so far survive a crash of the process.
    fn flush(&self) -> Result<()>;

    /// Makes all writes so far survive a power failure.
    fn sync(&self) -> Result<()>;

    /// Does one bounded step of compaction or other housekeeping, and returns
    /// true if there is more to do.
    fn maintain(&self) -> Result<bool> {
        Ok(false)
    }

    /// Figures for an operator: names and numbers.
    fn stats(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// [`set`](Self::set) with borrowed arguments, for the server's speed.
    #[doc(hidden)]
    fn set_str(&self, key: &str, value: &str) -> Result<()> {
        self.set(key.to_owned(), value.to_owned())
    }

    /// [`get`](Self::get) with a borrowed key, for the server's speed.
    #[doc(hidden)]
    fn get_str(&self, key: &str) -> Result<Option<String>> {
        self.get(key.to_owned())
    }

    /// Prefetches these keys, which the caller reads next. Their cache misses overlap.
    #[doc(hidden)]
    fn prefetch(&self, _keys: &[&str]) {}

    /// Starts a [`sync`](Self::sync) of all flushed writes without waiting for it. A
    /// later call reports a failure. Engines without a background thread sync here.
    #[doc(hidden)]
    fn sync_in_background(&self) -> Result<()> {
        self.sync()
    }
}

/// The keys of all pages of a scan. An error is the last item.
pub(crate) fn keys(
    mut scan: impl FnMut(Option<&str>) -> Result<Page>,
) -> impl Iterator<Item = Result<String>> {
    // The cursor of the next page, `Some(None)` for the first one.
    let mut next = Some(None);
    let pages = std::iter::from_fn(move || {
        let cursor: Option<String> = next.take()?;
        Some(match scan(cursor.as_deref()) {
            Ok(page) => {
                next = page.next.map(Some);
                page.keys.into_iter().map(Ok).collect()
            }
            Err(error) => vec![Err(error)],
        })
    });
    pages.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// An engine that records its calls, and implements only the required methods.
    #[derive(Default)]
    struct MinimalEngine(RefCell<Vec<String>>);

    impl KvsEngine for MinimalEngine {
        fn set(&self, key: String, value: String) -> Result<()> {
            self.0.borrow_mut().push(format!("set {key} {value}"));
            Ok(())
        }

        fn get(&self, _: String) -> Result<Option<String>> {
            Ok(None)
        }

        fn remove(&self, _: String) -> Result<()> {
            Ok(())
        }

        fn scan(&self, _: Option<&str>) -> Result<Page> {
            Ok(Page::default())
        }

        fn flush(&self) -> Result<()> {
            Ok(())
        }

        fn sync(&self) -> Result<()> {
            self.0.borrow_mut().push("sync".to_owned());
            Ok(())
        }
    }

    #[test]
    fn default_methods_do_the_minimum() {
        let engine = MinimalEngine::default();
        engine.set_str("a", "1").unwrap();
        engine.prefetch(&["a"]);
        engine.sync_in_background().unwrap();
        assert_eq!(*engine.0.borrow(), ["set a 1", "sync"]);
        assert!(!engine.maintain().unwrap() && engine.stats().is_empty());
    }
}
