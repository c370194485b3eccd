//! An engine in memory for the server's tests. Its calls can be made to fail.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::engine::{KvsEngine, Page};
use crate::error::{KvsError, Result};

/// What a test changes and reads while a server owns the engine.
#[derive(Clone, Debug, Default)]
pub(super) struct Controls {
    /// Whether `flush` and `sync` fail.
    pub(super) fails_commits: Arc<AtomicBool>,
    /// Whether every call fails with `KvsError::Failed`.
    pub(super) has_failed: Arc<AtomicBool>,
    /// How many more calls of `maintain` return true.
    pub(super) steps: Arc<AtomicUsize>,
    pub(super) syncs: Arc<AtomicUsize>,
    pub(super) background_syncs: Arc<AtomicUsize>,
    pub(super) flushes: Arc<AtomicUsize>,
    pub(super) maintains: Arc<AtomicUsize>,
    /// Clients of which each call of `set` lets one send a request.
    pub(super) meanwhile: Arc<Mutex<Vec<TcpStream>>>,
    /// Set when the engine is dropped.
    pub(super) is_closed: Arc<AtomicBool>,
}

impl Controls {
    /// The value of a counter.
    pub(super) fn count(counter: &AtomicUsize) -> usize {
        counter.load(Ordering::SeqCst)
    }

    /// Makes `flush` and `sync` fail.
    pub(super) fn fail_commits(&self) {
        self.fails_commits.store(true, Ordering::SeqCst);
    }
}

/// A map. `set` fails for the key `full`.
#[derive(Debug, Default)]
pub(super) struct MemoryEngine {
    map: RefCell<BTreeMap<String, String>>,
    prefetched: RefCell<Vec<String>>,
    pub(super) controls: Controls,
}

impl MemoryEngine {
    /// An empty map.
    pub(super) fn new(controls: Controls) -> MemoryEngine {
        MemoryEngine { map: RefCell::default(), prefetched: RefCell::default(), controls }
    }

    /// The arguments of `prefetch`.
    pub(super) fn prefetched(&self) -> Vec<String> {
        self.prefetched.borrow().clone()
    }

    /// Fails if the engine has failed.
    fn check(&self) -> Result<()> {
        match self.controls.has_failed.load(Ordering::SeqCst) {
            true => Err(KvsError::Failed { cause: "a fault".to_owned() }),
            false => Ok(()),
        }
    }

    fn commit(&self) -> Result<()> {
        self.check()?;
        match self.controls.fails_commits.load(Ordering::SeqCst) {
            true => Err(KvsError::io("cannot sync")(io::Error::other("the disk is broken"))),
            false => Ok(()),
        }
    }
}

impl Drop for MemoryEngine {
    fn drop(&mut self) {
        self.controls.is_closed.store(true, Ordering::SeqCst);
    }
}

impl KvsEngine for MemoryEngine {
    fn set(&self, key: String, value: String) -> Result<()> {
        self.check()?;
        if key == "full" {
            return Err(KvsError::io("cannot append")(io::Error::other("the disk is full")));
        }
        if let Some(mut client) = self.controls.meanwhile.lock().unwrap().pop() {
            client.write_all(b"SET a 1\n").unwrap();
        }
        self.map.borrow_mut().insert(key, value);
        Ok(())
    }

    fn get(&self, key: String) -> Result<Option<String>> {
        self.check()?;
        Ok(self.map.borrow().get(&key).cloned())
    }

    fn remove(&self, key: String) -> Result<()> {
        self.check()?;
        self.map.borrow_mut().remove(&key).map(drop).ok_or(KvsError::KeyNotFound)
    }

    /// Pages of two keys. The cursor is the first key of the page.
    fn scan(&self, cursor: Option<&str>) -> Result<Page> {
        let map = self.map.borrow();
        if let Some(cursor) = cursor
            && !map.contains_key(cursor)
        {
            return Err(KvsError::BadCursor(cursor.to_owned()));
        }
        let mut keys = map.range(cursor.unwrap_or_default().to_owned()..).map(|(key, _)| key);
        let page = keys.by_ref().take(2).cloned().collect();
        Ok(Page { keys: page, next: keys.next().cloned() })
    }

    fn flush(&self) -> Result<()> {
        self.controls.flushes.fetch_add(1, Ordering::SeqCst);
        self.commit()
    }

    fn sync(&self) -> Result<()> {
        self.controls.syncs.fetch_add(1, Ordering::SeqCst);
        self.commit()
    }

    fn sync_in_background(&self) -> Result<()> {
        self.controls.background_syncs.fetch_add(1, Ordering::SeqCst);
        self.commit()
    }

    fn maintain(&self) -> Result<bool> {
        self.controls.maintains.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        let steps = &self.controls.steps;
        Ok(steps.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok())
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        vec![("keys", self.map.borrow().len() as u64)]
    }

    fn prefetch(&self, keys: &[&str]) {
        self.prefetched.borrow_mut().extend(keys.iter().map(|key| (*key).to_owned()));
    }
}
