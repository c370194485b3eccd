//! The [`KvsEngine`] trait: what the server asks of a store.
//!
//! Not here: any implementation. [`KvStore`](crate::KvStore) is this crate's
//! own engine and [`SledKvStore`](crate::SledKvStore) wraps sled; one suite of
//! tests runs for both and against a map in memory (`tests/engines.rs`).

pub mod choice;
mod private;
#[cfg(feature = "sled")]
pub(crate) mod sled;
pub(crate) mod store;

use crate::error::Result;

/// A persistent map from strings to strings.
///
/// # Contract
///
/// * Calls take effect in the order in which they are made, and a `get` sees
///   every `set` and `remove` before it.
/// * A write is durable in three steps. Once `set` or `remove` has returned,
///   reads see it. Once [`flush`](Self::flush) has, it survives the end of the
///   process, however it ends. Once [`sync`](Self::sync) has, it survives a
///   loss of power. An engine may take a step early, never late.
/// * When `flush` or `sync` fails, the writes since the last one that
///   succeeded are undone: reads no longer see them. So they are when a `set`
///   or `remove` fails that had to commit them to make room, as it does when
///   they are many. What a `flush`, or making room, had committed before stays,
///   and the next `sync` covers it. An engine that cannot undo, as sled, or
///   cannot tell what is on the disk after a failure, refuses all writes from
///   then on, and `flush` and `sync` with them, with
///   [`KvsError::WritesRefused`](crate::KvsError::WritesRefused).
/// * Methods take `&self`, and one thread uses an engine at a time: inside is
///   one cell, not a lock.
pub trait KvsEngine {
    /// Sets the value of a key, whether or not it has one.
    fn set(&self, key: String, value: String) -> Result<()>;

    /// [`set`](Self::set) for a caller that keeps key and value: an engine that
    /// copies them anyway spares it two more copies.
    fn set_str(&self, key: &str, value: &str) -> Result<()> {
        self.set(key.to_owned(), value.to_owned())
    }

    /// The value of a key; `None` when it has none.
    fn get(&self, key: String) -> Result<Option<String>>;

    /// Removes a key.
    ///
    /// # Errors
    ///
    /// [`KvsError::KeyNotFound`](crate::KvsError::KeyNotFound) when there is none.
    fn remove(&self, key: String) -> Result<()>;

    /// Hands every write so far to the operating system.
    fn flush(&self) -> Result<()>;

    /// Puts every write so far on the disk.
    fn sync(&self) -> Result<()>;

    /// Does one bounded step of housekeeping; `true` while there is more to do.
    fn maintain(&self) -> Result<bool> {
        Ok(false)
    }

    /// Takes note that these keys will be read next: an engine that looks them up
    /// together may be faster than one after the other. Changes nothing else.
    fn prefetch(&self, _keys: &[&str]) {}

    /// Figures to show to an operator, each a name and a number.
    fn stats(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

impl<E: KvsEngine + ?Sized> KvsEngine for Box<E> {
    fn set(&self, key: String, value: String) -> Result<()> {
        (**self).set(key, value)
    }

    fn set_str(&self, key: &str, value: &str) -> Result<()> {
        (**self).set_str(key, value)
    }

    fn get(&self, key: String) -> Result<Option<String>> {
        (**self).get(key)
    }

    fn remove(&self, key: String) -> Result<()> {
        (**self).remove(key)
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

    fn prefetch(&self, keys: &[&str]) {
        (**self).prefetch(keys);
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        (**self).stats()
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
