//! An engine in memory for the server's tests, whose commits can be told to fail.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};

/// What a test changes and looks at while a server has the engine.
#[derive(Clone, Debug, Default)]
pub(super) struct Controls {
    /// Whether `flush` and `sync` fail.
    pub(super) is_failing: Arc<AtomicBool>,
    /// How often `sync` was called.
    pub(super) syncs: Arc<AtomicUsize>,
    /// How often `flush` was.
    pub(super) flushes: Arc<AtomicUsize>,
    /// Set when the engine is dropped.
    pub(super) is_closed: Arc<AtomicBool>,
}

/// A map with an undo.
#[derive(Debug, Default)]
pub(super) struct MemoryEngine {
    /// What reads see.
    map: RefCell<HashMap<String, String>>,
    /// What was there at the last commit.
    committed: RefCell<HashMap<String, String>>,
    /// Whether the next commit or step of housekeeping fails, once.
    fails_once: Cell<bool>,
    /// Whether it accepts no more writes and syncs.
    refuses: Cell<bool>,
    /// How often `maintain` was called.
    steps: Cell<usize>,
    /// The keys that it was told of.
    prefetched: RefCell<Vec<String>>,
    /// The test's hand in it.
    controls: Controls,
}

impl MemoryEngine {
    /// An empty one that a test keeps its hand in.
    pub(super) fn new(controls: Controls) -> MemoryEngine {
        MemoryEngine {
            map: RefCell::default(),
            committed: RefCell::default(),
            fails_once: Cell::default(),
            refuses: Cell::default(),
            steps: Cell::default(),
            prefetched: RefCell::default(),
            controls,
        }
    }

    /// How often `sync` was called.
    pub(super) fn syncs(&self) -> usize {
        self.controls.syncs.load(Ordering::SeqCst)
    }

    /// How often `flush` was called.
    pub(super) fn flushes(&self) -> usize {
        self.controls.flushes.load(Ordering::SeqCst)
    }

    /// How often `maintain` was called.
    pub(super) fn steps(&self) -> usize {
        self.steps.get()
    }

    /// The keys that it was told of.
    pub(super) fn prefetched(&self) -> Vec<String> {
        self.prefetched.borrow().clone()
    }

    /// Has the next commit or step of housekeeping fail.
    pub(super) fn fail_next(&self) {
        self.fails_once.set(true);
    }

    /// Has it refuse, as after a sync that lost something.
    pub(super) fn refuse_writes(&self, refuses: bool) {
        self.refuses.set(refuses);
    }

    /// Takes back what is not committed.
    fn undo(&self) {
        *self.map.borrow_mut() = self.committed.borrow().clone();
    }

    /// Fails if the test wants it.
    fn check(&self) -> Result<()> {
        if !self.fails_once.take() && !self.controls.is_failing.load(Ordering::SeqCst) {
            return Ok(());
        }
        let source = std::io::Error::other("the disk is full");
        Err(KvsError::Io { context: "cannot keep it".to_owned(), source })
    }

    /// Commits, or undoes and fails.
    fn commit(&self) -> Result<()> {
        if self.refuses.get() {
            return Err(KvsError::Failed { cause: "a sync failed".to_owned() });
        }
        self.check().inspect_err(|_| self.undo())?;
        *self.committed.borrow_mut() = self.map.borrow().clone();
        Ok(())
    }
}

impl Drop for MemoryEngine {
    fn drop(&mut self) {
        self.controls.is_closed.store(true, Ordering::SeqCst);
    }
}

impl KvsEngine for MemoryEngine {
    /// Fails for the key `full`, and as an engine does whose buffer could not be
    /// written then: with the writes before it.
    fn set(&self, key: String, value: String) -> Result<()> {
        if key == "full" {
            self.undo();
            return Err(KvsError::Failed { cause: "there is no room".to_owned() });
        }
        self.map.borrow_mut().insert(key, value);
        Ok(())
    }

    fn get(&self, key: String) -> Result<Option<String>> {
        Ok(self.map.borrow().get(&key).cloned())
    }

    fn remove(&self, key: String) -> Result<()> {
        self.map.borrow_mut().remove(&key).map(drop).ok_or(KvsError::KeyNotFound)
    }

    fn scan(&self, _: Option<&str>) -> Result<crate::engine::Page> {
        Ok(crate::engine::Page::default())
    }

    fn flush(&self) -> Result<()> {
        self.controls.flushes.fetch_add(1, Ordering::SeqCst);
        self.commit()
    }

    fn sync(&self) -> Result<()> {
        self.controls.syncs.fetch_add(1, Ordering::SeqCst);
        self.commit()
    }

    fn prefetch(&self, keys: &[&str]) {
        self.prefetched.borrow_mut().extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Has two steps to do.
    fn maintain(&self) -> Result<bool> {
        self.steps.set(self.steps.get() + 1);
        self.check()?;
        Ok(self.steps.get() < 2)
    }
}
