//! Chooses the engine by the files in a directory, and opens it. There is no marker that
//! could disagree with them.
//!
//! Invariant: nothing is written before the engine is chosen
//! (`the_other_engine_is_refused_before_anything_is_written`).

use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use super::KvsEngine;
pub use super::store::directory::EngineName;
use super::store::directory::engine_in;
use super::store::fs::OsFs;
use super::store::{KvStore, Options};
use crate::error::{KvsError, Result};

impl FromStr for EngineName {
    type Err = KvsError;

    fn from_str(name: &str) -> Result<EngineName> {
        match name {
            "kvs" => Ok(EngineName::Kvs),
            "sled" => Ok(EngineName::Sled),
            _ => {
                let name = name.escape_debug();
                let reason = format!("no engine is called '{name}': use 'kvs' or 'sled'");
                Err(KvsError::EngineUnusable { reason })
            }
        }
    }
}

/// The engine to open in `directory`: the one whose files it holds, else the one `asked`
/// for, else [`EngineName::Kvs`]. Writes nothing.
///
/// # Errors
///
/// [`KvsError::WrongEngine`] if the files are not those of the engine asked for;
/// [`KvsError::EngineUnusable`] if the directory holds both engines' files;
/// [`KvsError::OtherVersion`] if version 0.1 wrote them.
pub fn choose(directory: &Path, asked: Option<EngineName>) -> Result<EngineName> {
    let found = engine_in(&OsFs::default(), directory, asked)?;
    Ok(found.or(asked).unwrap_or(EngineName::Kvs))
}

/// Opens an engine in `directory`, which is created if it is missing. `options` are
/// those of [`KvStore`]. [`KvsError::EngineUnusable`] if the build has no such engine.
pub fn open(
    directory: &Path,
    name: EngineName,
    options: &Options,
) -> Result<Box<dyn KvsEngine + Send>> {
    match name {
        EngineName::Kvs => Ok(Box::new(KvStore::open_with(directory, options.clone())?)),
        #[cfg(feature = "sled")]
        EngineName::Sled => Ok(Box::new(super::sled::SledKvStore::open(directory)?)),
        #[cfg(not(feature = "sled"))]
        EngineName::Sled => Err(sled_not_built()),
    }
}

/// Writes a `SET` line to `out` for each key of a store, damaged or not. Passes each loss
/// to `report`, and returns their number. A [`KvStore`] is only read. sled exports what it
/// can open, does not report pairs that it lost, and changes damaged files: copy them first.
///
/// # Errors
///
/// [`KvsError::InUse`] if a process has the directory open; [`KvsError::Io`] if it
/// cannot be read, or `out` cannot be written; [`KvsError::Engine`] if sled cannot open it.
pub fn export(directory: &Path, out: &mut dyn Write, report: &mut dyn FnMut(&str)) -> Result<u64> {
    match engine_in(&OsFs::default(), directory, None)? {
        #[cfg(feature = "sled")]
        Some(EngineName::Sled) => super::sled::SledKvStore::export(directory, out, report),
        #[cfg(not(feature = "sled"))]
        Some(EngineName::Sled) => Err(sled_not_built()),
        _ => KvStore::export(directory, out, report),
    }
}

#[cfg(not(feature = "sled"))]
fn sled_not_built() -> KvsError {
    let reason = "this kvs was built without sled: build it with `--features sled`".to_owned();
    KvsError::EngineUnusable { reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn in_use(directory: &Path) -> Result<Option<EngineName>> {
        engine_in(&OsFs::default(), directory, None)
    }

    #[test]
    fn the_first_run_chooses_and_later_ones_do_not() {
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
        fs::write(path.join("db"), "").unwrap();
        assert_eq!(in_use(&path).unwrap(), Some(EngineName::Kvs));
        fs::write(path.join("conf"), "").unwrap();
        assert!(matches!(in_use(&path).unwrap_err(), KvsError::EngineUnusable { .. }));
    }

    #[cfg(feature = "sled")]
    #[test]
    fn sled_is_found_again_and_kvs_refuses_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), EngineName::Sled, &Options::default()).unwrap());
        assert_eq!(choose(dir.path(), None).unwrap(), EngineName::Sled);
        for opened in [
            choose(dir.path(), Some(EngineName::Kvs)).map(drop),
            KvStore::open(dir.path()).map(drop),
        ] {
            assert!(matches!(opened, Err(KvsError::WrongEngine { .. })), "{opened:?}");
        }
    }

    /// Other files of sled may be lost. A new store beside them would be a surprise.
    #[test]
    fn two_of_sleds_files_are_a_database() {
        for files in [["conf", "blobs"], ["db", "blobs"], ["conf", "db"], ["db", "snap.0"]] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(files[0]), "").unwrap();
            assert_eq!(in_use(dir.path()).unwrap(), None);
            fs::write(dir.path().join(files[1]), "").unwrap();
            assert_eq!(choose(dir.path(), None).unwrap(), EngineName::Sled);
            let opened = KvStore::open(dir.path());
            assert!(matches!(opened, Err(KvsError::WrongEngine { .. })), "{files:?}");
        }
    }

    #[test]
    fn directories_of_version_0_1_are_refused() {
        for files in [&["00000001.seg"][..], &["kvs/00000001.seg"], &["sled/conf", "sled/db"]] {
            let dir = tempfile::tempdir().unwrap();
            for file in files {
                let path = dir.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            for error in [
                in_use(dir.path()).unwrap_err(),
                KvStore::open(dir.path()).unwrap_err(),
                KvStore::inspect(dir.path(), &mut Vec::new()).unwrap_err(),
            ] {
                let text = error.to_string();
                assert!(text.contains("was written by kvs 0.1"), "{text}");
            }
        }
    }

    #[test]
    fn names_of_engines_are_parsed() {
        for engine in [EngineName::Kvs, EngineName::Sled] {
            assert_eq!(engine.as_str().parse::<EngineName>().unwrap(), engine);
        }
        let error = "KVS".parse::<EngineName>().unwrap_err().to_string();
        assert_eq!(error, "no engine is called 'KVS': use 'kvs' or 'sled'");
    }
}
