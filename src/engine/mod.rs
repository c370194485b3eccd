//! The [`KvsEngine`] trait: what the server asks of a store.
//!
//! Not here: any implementation. [`KvStore`](crate::KvStore) is this crate's
//! own engine and [`SledKvStore`](crate::SledKvStore) wraps sled; one suite of
//! tests runs for both and against a map in memory (`tests/engines.rs`).

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
/// * A write becomes durable in three steps. After `set` or `remove` returns,
///   reads see it. After [`flush`](Self::flush) returns, it survives a crash of
///   the process. After [`sync`](Self::sync) returns, it survives a power
///   failure. An engine may take a step early, never late.
/// * A `set` or `remove` that fails changes nothing. Other calls still work.
/// * A `flush` or `sync` that fails is fatal: the state of the disk is unknown.
///   Every later call fails with [`KvsError::Failed`](crate::KvsError::Failed)
///   until the engine is opened again.
/// * Methods take `&self`. One thread uses an engine at a time.
pub trait KvsEngine {
    /// Sets the value of a key, whether or not it has one.
    fn set(&self, key: String, value: String) -> Result<()>;

    /// Returns the value of a key, or `None` if it has none.
    fn get(&self, key: String) -> Result<Option<String>>;

    /// Removes a key.
    ///
    /// # Errors
    ///
    /// [`KvsError::KeyNotFound`](crate::KvsError::KeyNotFound) if it has no value.
    fn remove(&self, key: String) -> Result<()>;

    /// Returns some keys, and the cursor of the next page. `None` starts a scan.
    ///
    /// A key that exists during the whole scan is listed at least once. A key
    /// that is set, removed or moved during the scan may be missing or repeated.
    /// Cursors are opaque, and valid while the engine is open.
    ///
    /// # Errors
    ///
    /// [`KvsError::BadCursor`](crate::KvsError::BadCursor) if no page has this cursor.
    fn scan(&self, cursor: Option<&str>) -> Result<Page>;

    /// Iterates over the keys by [`scan`](Self::scan), in no particular order. An error
    /// is the last item.
    fn keys(&self) -> impl Iterator<Item = Result<String>>
    where
        Self: Sized,
    {
        keys(|cursor| self.scan(cursor))
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

    /// Prepares for reads of these keys, which follow. Engines that look keys up
    /// together hide the waits for memory.
    #[doc(hidden)]
    fn prefetch(&self, _keys: &[&str]) {}

    /// Starts a [`sync`](Self::sync) of all flushed writes without waiting for
    /// it. A later call reports a failure. Engines without a background thread
    /// sync here.
    #[doc(hidden)]
    fn sync_in_background(&self) -> Result<()> {
        self.sync()
    }
}

/// Iterates over the keys of all pages of a scan. An error is the last item.
pub(crate) fn keys(
    mut scan: impl FnMut(Option<&str>) -> Result<Page>,
) -> impl Iterator<Item = Result<String>> {
    let mut page = Vec::new().into_iter();
    let mut cursor = Some(None);
    std::iter::from_fn(move || {
        loop {
            if let Some(key) = page.next() {
                return Some(Ok(key));
            }
            match scan(cursor.take()?.as_deref()) {
                Ok(next) => {
                    page = next.keys.into_iter();
                    cursor = next.next.map(Some);
                }
                Err(error) => return Some(Err(error)),
            }
        }
    })
}

impl<E: KvsEngine + ?Sized> KvsEngine for Box<E> {
    fn set(&self, key: String, value: String) -> Result<()> {
        (**self).set(key, value)
    }

    fn get(&self, key: String) -> Result<Option<String>> {
        (**self).get(key)
    }

    fn remove(&self, key: String) -> Result<()> {
        (**self).remove(key)
    }

    fn scan(&self, cursor: Option<&str>) -> Result<Page> {
        (**self).scan(cursor)
    }

    fn flush(&self) -> Result<()> {
        (**self).flush()
    }

    fn sync(&self) -> Result<()> {
        (**self).sync()
    }

    fn maintain(&self) -> Result<bool> {
        (**self).maintain()
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        (**self).stats()
    }

    fn set_str(&self, key: &str, value: &str) -> Result<()> {
        (**self).set_str(key, value)
    }

    fn prefetch(&self, keys: &[&str]) {
        (**self).prefetch(keys);
    }

    fn sync_in_background(&self) -> Result<()> {
        (**self).sync_in_background()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// An engine that notes its calls, and has of its own only what it must, or
    /// all where `ALL`.
    #[derive(Default)]
    struct Noting<const ALL: bool>(RefCell<Vec<String>>);

    impl<const ALL: bool> Noting<ALL> {
        fn note(&self, call: &str) {
            self.0.borrow_mut().push(call.to_owned());
        }
    }

    /// The methods that every engine has.
    macro_rules! required {
        () => {
            fn set(&self, key: String, value: String) -> Result<()> {
                self.note(&format!("set {key} {value}"));
                Ok(())
            }
            fn get(&self, key: String) -> Result<Option<String>> {
                self.note(&format!("get {key}"));
                Ok(Some("1".to_owned()))
            }
            fn remove(&self, key: String) -> Result<()> {
                self.note(&format!("remove {key}"));
                Ok(())
            }
            fn scan(&self, _: Option<&str>) -> Result<Page> {
                Ok(Page::default())
            }
            fn flush(&self) -> Result<()> {
                self.note("flush");
                Ok(())
            }
            fn sync(&self) -> Result<()> {
                self.note("sync");
                Ok(())
            }
        };
    }

    impl KvsEngine for Noting<false> {
        required!();
    }

    impl KvsEngine for Noting<true> {
        required!();

        fn set_str(&self, key: &str, value: &str) -> Result<()> {
            self.note(&format!("set_str {key} {value}"));
            Ok(())
        }

        fn maintain(&self) -> Result<bool> {
            self.note("maintain");
            Ok(true)
        }

        fn prefetch(&self, keys: &[&str]) {
            self.note(&format!("prefetch {}", keys.concat()));
        }

        fn stats(&self) -> Vec<(&'static str, u64)> {
            vec![("notes", 7)]
        }
    }

    #[test]
    fn what_an_engine_leaves_out_is_the_least() {
        let engine = Noting::<false>::default();
        engine.set_str("a", "1").unwrap();
        engine.prefetch(&["a"]);
        assert_eq!(*engine.0.borrow(), ["set a 1"]);
        assert!(!engine.maintain().unwrap() && engine.stats().is_empty());
    }

    #[test]
    fn a_box_passes_every_call_on() {
        let engine = Box::new(Noting::<true>::default());
        KvsEngine::set(&engine, "a".to_owned(), "1".to_owned()).unwrap();
        KvsEngine::set_str(&engine, "b", "2").unwrap();
        assert_eq!(KvsEngine::get(&engine, "c".to_owned()).unwrap().as_deref(), Some("1"));
        KvsEngine::remove(&engine, "d".to_owned()).unwrap();
        KvsEngine::prefetch(&engine, &["e"]);
        KvsEngine::flush(&engine).unwrap();
        KvsEngine::sync(&engine).unwrap();
        assert!(KvsEngine::maintain(&engine).unwrap());
        let calls = ["set a 1", "set_str b 2", "get c", "remove d", "prefetch e", "flush", "sync"];
        assert_eq!(engine.0.borrow()[..7], calls);
        assert_eq!(engine.0.borrow()[7..], ["maintain"]);
        assert_eq!(KvsEngine::stats(&engine), [("notes", 7)]);
    }
}
