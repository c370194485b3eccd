//! What a store has promised: the map that a sync has covered, and the writes
//! since, in order.
//!
//! The one rule: what is found is the synced map after some first part of those
//! writes, never a later one without an earlier. How long that part is at the
//! least depends on how the store ended.

use std::collections::BTreeMap;

/// A map of keys to values.
pub type Map = BTreeMap<String, String>;

/// A write: the key, and its value unless it was removed.
type Write = (String, Option<String>);

/// What a store has promised.
#[derive(Clone, Default)]
pub struct Model {
    /// The map that survives a loss of power.
    synced: Map,
    /// The writes since.
    writes: Vec<Write>,
    /// How many of those survive a kill.
    flushed: usize,
    /// How many of those reads show: all, but for the last ones after a failed sync.
    visible: usize,
}

impl Model {
    /// A write begins; reads will show it.
    pub fn begin(&mut self, key: &str, value: Option<&str>) {
        self.writes.push((key.to_owned(), value.map(str::to_owned)));
        self.visible = self.writes.len();
    }

    /// All writes so far have been handed to the system.
    pub fn flush(&mut self) {
        self.flushed = self.writes.len();
    }

    /// All writes so far are on the disk.
    pub fn sync(&mut self) {
        let map = self.after(self.writes.len());
        *self = Model { synced: map, ..Model::default() };
    }

    /// The last write was refused before it was anything.
    pub fn take_back_one(&mut self) {
        self.writes.pop();
        self.visible = self.writes.len();
        self.flushed = self.flushed.min(self.visible);
    }

    /// What was not handed to the system yet has failed, and is undone.
    pub fn take_back(&mut self) {
        self.writes.truncate(self.flushed);
        self.visible = self.flushed;
    }

    /// The same, and nobody knows whether that will be found.
    pub fn hide(&mut self) {
        self.visible = self.flushed;
    }

    /// Power was lost: what was only handed to the system may be gone.
    pub fn lose_power(&mut self) {
        self.flushed = 0;
    }

    /// The map that reads show.
    pub fn map(&self) -> Map {
        self.after(self.visible)
    }

    /// What a read of this key shows.
    pub fn get(&self, key: &str) -> Option<&String> {
        let newest = self.writes[..self.visible].iter().rev().find(|(written, _)| written == key);
        newest.map_or_else(|| self.synced.get(key), |(_, value)| value.as_ref())
    }

    /// Panics unless `found` is what may be; it is the synced map from then on,
    /// as a store syncs what it finds before it shows it.
    pub fn settle(&mut self, found: Map) {
        let first = self.flushed;
        let is_right = (first..=self.writes.len()).any(|count| self.after(count) == found);
        assert!(is_right, "{}", self.explain(&found));
        *self = Model { synced: found, ..Model::default() };
    }

    /// The synced map after this many writes.
    fn after(&self, count: usize) -> Map {
        let mut map = self.synced.clone();
        for (key, value) in &self.writes[..count] {
            match value {
                Some(value) => drop(map.insert(key.clone(), value.clone())),
                None => drop(map.remove(key)),
            }
        }
        map
    }

    /// What is wrong with what was found.
    fn explain(&self, found: &Map) -> String {
        let brief = |value: &Option<String>| value.as_ref().map(|value| brief(value));
        let mut lines = format!("{} writes, {} must be there:", self.writes.len(), self.flushed);
        for (key, value) in &self.writes {
            lines += &format!("\n  write {key} {:?}", brief(value));
        }
        let shown = |map: &Map| -> Vec<String> {
            map.iter().map(|(key, value)| format!("{key}={}", self::brief(value))).collect()
        };
        lines += &format!("\n  synced {:?}\n  found  {:?}", shown(&self.synced), shown(found));
        lines
    }
}

/// The serial number that a value begins with.
fn brief(value: &str) -> String {
    format!("{}({})", value.split(' ').next().unwrap_or_default(), value.len())
}
