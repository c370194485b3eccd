//! The shape of the project, as its documents state it: which way imports go,
//! what every file begins with and how long it is, and that the tests which the
//! documents name exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, from the innermost to the outermost. A file may import from its
/// own layer and from those before it, and from nothing behind.
const LAYERS: [&[&str]; 7] = [
    &["error", "poll", "logger", "args"],
    &["protocol"],
    &["engine"],
    &["server"],
    &["client"],
    &["lib"],
    &["bin"],
];

/// Every file below a directory that ends so.
fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(path.to_str().unwrap(), extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

/// The number of the layer with this module; `None` for what is no module.
fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The module of a file in `src`: the first part of its path.
fn module(path: &Path) -> String {
    let path = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    path.iter().next().unwrap().to_str().unwrap().split(['.', '_']).next().unwrap().to_owned()
}

#[test]
fn imports_point_one_way() {
    for path in files("src", "rs") {
        let own =
            layer(&module(&path)).unwrap_or_else(|| panic!("{} has no layer", path.display()));
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code.take_while(|line| !line.starts_with("#[cfg(test)]")) {
            for import in line.split("crate::").skip(1) {
                let name = import.split(|char: char| !char.is_alphanumeric() && char != '_').next();
                let wrong = layer(name.unwrap()).is_some_and(|imported| imported > own);
                assert!(!wrong, "{} imports outwards: {line}", path.display());
            }
        }
    }
}

#[test]
fn every_file_begins_with_what_it_is() {
    for directory in ["src", "tests", "benches", "examples"] {
        for path in files(directory, "rs") {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("//! "), "{} does not say what it is", path.display());
            let (lines, most) = (text.lines().count(), 520);
            assert!(lines <= most, "{} has {lines} lines", path.display());
        }
    }
}

/// The names in backticks that read like those of tests: several words.
fn names_of_tests(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|name| {
        let is_name =
            |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
        name.chars().all(is_name) && name.matches('_').count() >= 3
    })
}

#[test]
fn every_test_that_a_document_names_exists() {
    let sources: Vec<String> = ["src", "tests"]
        .iter()
        .flat_map(|directory| files(directory, "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let functions: BTreeSet<&str> = sources
        .iter()
        .flat_map(|text| text.split("fn ").skip(1))
        .filter_map(|rest| rest.split(['(', '<']).next())
        .collect();
    let comments = |text: &String| {
        let docs = text.lines().filter(|line| line.trim_start().starts_with("//"));
        docs.collect::<Vec<_>>().join("\n")
    };
    let mut texts: Vec<String> = sources.iter().map(comments).collect();
    texts.extend(files("docs", "md").iter().map(|path| fs::read_to_string(path).unwrap()));
    let mut named = 0;
    for text in &texts {
        for name in names_of_tests(text) {
            assert!(functions.contains(name), "no test is called {name}");
            named += 1;
        }
    }
    assert!(named > 20, "only {named} tests are named");
}
