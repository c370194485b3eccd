//! Which engine a data directory holds, and opening the right one.
//!
//! The data directory has a directory for each engine, `kvs/` or `sled/`: its
//! name says which engine is in use, so that no marker can disagree with the
//! data. Nothing is written before the choice has been made, and an engine that
//! cannot be opened for the first time leaves nothing that makes it.
//!
//! Not here: argv, sockets.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use super::private;
use super::store::{KvStore, Options, check_not_cut_off};
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};

/// The engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineName {
    /// [`KvStore`], this crate's own.
    Kvs,
    /// `SledKvStore`.
    Sled,
}

impl EngineName {
    /// The name on the command line and of the engine's directory.
    pub fn as_str(self) -> &'static str {
        match self {
            EngineName::Kvs => "kvs",
            EngineName::Sled => "sled",
        }
    }

    /// Whether the engine has data in `directory`, its own one.
    fn is_in(self, directory: &Path) -> Result<bool> {
        match self {
            EngineName::Kvs => KvStore::exists(directory),
            // The two files that sled cannot do without; a build without sled looks too.
            EngineName::Sled => ["conf", "db"].iter().try_fold(false, |is_in, name| {
                let path = directory.join(name);
                let context = format!("cannot look for {}", path.display());
                Ok(is_in || path.try_exists().map_err(KvsError::io(context))?)
            }),
        }
    }
}

impl FromStr for EngineName {
    type Err = KvsError;

    fn from_str(name: &str) -> Result<EngineName> {
        [EngineName::Kvs, EngineName::Sled]
            .into_iter()
            .find(|engine| engine.as_str() == name)
            .ok_or_else(|| KvsError::UnknownEngine(name.to_owned()))
    }
}

/// The engine whose data `directory` holds; `None` on the first run.
///
/// # Errors
///
/// [`KvsError::BothEngines`] when it holds the data of both;
/// [`KvsError::Corrupt`] when a repair was cut off, which may have left none of
/// the names that tell.
pub fn in_use(directory: &Path) -> Result<Option<EngineName>> {
    check_not_cut_off(&directory.join(EngineName::Kvs.as_str()))?;
    let has = |engine: EngineName| engine.is_in(&directory.join(engine.as_str()));
    match (has(EngineName::Kvs)?, has(EngineName::Sled)?) {
        (false, false) => Ok(None),
        (true, false) => Ok(Some(EngineName::Kvs)),
        (false, true) => Ok(Some(EngineName::Sled)),
        (true, true) => Err(KvsError::BothEngines { path: directory.to_owned() }),
    }
}

/// The engine to open in `directory`: the one in use, else the one `asked` for,
/// else [`EngineName::Kvs`]. Writes nothing.
///
/// # Errors
///
/// [`KvsError::WrongEngine`] when another one is in use than is asked for, and
/// as for [`in_use`].
pub fn choose(directory: &Path, asked: Option<EngineName>) -> Result<EngineName> {
    let found = in_use(directory)?;
    match (found, asked) {
        (Some(found), Some(asked)) if found != asked => Err(KvsError::WrongEngine {
            path: directory.to_owned(),
            asked: asked.as_str(),
            found: found.as_str(),
        }),
        _ => Ok(found.or(asked).unwrap_or(EngineName::Kvs)),
    }
}

/// Opens the engine in its place below `directory`, which is created if it is
/// missing. `options` are the built-in engine's.
///
/// # Errors
///
/// [`KvsError::EngineNotBuilt`] for an engine that was left out of the build,
/// [`KvsError::Corrupt`] when a repair was cut off, and whatever the engine cannot be opened for.
pub fn open(directory: &Path, name: EngineName, options: &Options) -> Result<Box<dyn KvsEngine>> {
    check_not_cut_off(&directory.join(EngineName::Kvs.as_str()))?;
    if name == EngineName::Sled && !cfg!(feature = "sled") {
        return Err(KvsError::EngineNotBuilt(name.as_str()));
    }
    let is_new_directory = private::create(directory)?;
    let own = directory.join(name.as_str());
    let is_new_engine = private::create(&own)?;
    open_in(&own, name, options).inspect_err(|e| {
        // Who holds it may have created it between our look and our opening.
        if is_new_engine && !matches!(e, KvsError::InUse { .. }) {
            // What cannot be removed stays: the error is that of opening.
            let _ = fs::remove_dir_all(&own);
            let _ = is_new_directory.then(|| fs::remove_dir(directory));
        }
    })
}

/// Opens the engine in its own directory.
fn open_in(own: &Path, name: EngineName, options: &Options) -> Result<Box<dyn KvsEngine>> {
    match name {
        EngineName::Kvs => Ok(Box::new(KvStore::open_with(own, options.clone())?)),
        #[cfg(feature = "sled")]
        EngineName::Sled => Ok(Box::new(super::sled::SledKvStore::open(own)?)),
        #[cfg(not(feature = "sled"))]
        EngineName::Sled => Err(KvsError::EngineNotBuilt(name.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_run_has_the_choice_and_the_next_has_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/data");
        assert_eq!(choose(&path, None).unwrap(), EngineName::Kvs);
        assert_eq!(choose(&path, Some(EngineName::Sled)).unwrap(), EngineName::Sled);
        assert!(!path.exists());
        drop(open(&path, EngineName::Kvs, &Options::default()).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(choose(&path, None).unwrap(), EngineName::Kvs);
        let error = choose(&path, Some(EngineName::Sled)).unwrap_err();
        assert!(matches!(error, KvsError::WrongEngine { asked: "sled", found: "kvs", .. }));
        fs::create_dir(path.join("sled")).unwrap();
        assert_eq!(in_use(&path).unwrap(), Some(EngineName::Kvs));
        fs::write(path.join("sled/conf"), "").unwrap();
        assert!(matches!(in_use(&path).unwrap_err(), KvsError::BothEngines { .. }));
    }

    #[cfg(feature = "sled")]
    #[test]
    fn the_second_engine_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), EngineName::Sled, &Options::default()).unwrap());
        assert_eq!(choose(dir.path(), None).unwrap(), EngineName::Sled);
        assert!(choose(dir.path(), Some(EngineName::Kvs)).is_err());
    }

    #[test]
    fn an_engine_that_cannot_be_opened_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("kvs"), "a file").unwrap();
        assert!(open(dir.path(), EngineName::Kvs, &Options::default()).is_err());
        assert_eq!(in_use(dir.path()).unwrap(), None);
    }

    #[test]
    fn no_engine_is_begun_where_a_repair_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("kvs.repaired")).unwrap();
        for engine in [EngineName::Kvs, EngineName::Sled] {
            for error in [
                choose(dir.path(), Some(engine)).unwrap_err(),
                open(dir.path(), engine, &Options::default()).err().unwrap(),
            ] {
                assert!(error.to_string().contains("its repair was cut off"), "{error}");
            }
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn names_are_read_as_they_print() {
        for engine in [EngineName::Kvs, EngineName::Sled] {
            assert_eq!(engine.as_str().parse::<EngineName>().unwrap(), engine);
        }
        assert!(matches!("KVS".parse::<EngineName>(), Err(KvsError::UnknownEngine(_))));
    }
}
