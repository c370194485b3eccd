//! What the figures hold for: the machine, the versions, the day, the command.

use std::process::Command;

/// A name, and what it was.
pub(crate) type Fact = (&'static str, String);

/// Packages as they were built in.
const LOCK: &str = include_str!("../../Cargo.lock");

/// All that the figures depend on and can be asked for.
pub(crate) fn environment(run: &str) -> Vec<Fact> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    vec![
        ("processor", cpu().unwrap_or_else(unknown)),
        ("cores", cores.to_string()),
        ("system", output("uname", &["-srm"]).unwrap_or_else(unknown)),
        ("rustc", output("rustc", &["--version"]).map_or_else(unknown, |text| word(&text, 1))),
        ("kvs", env!("CARGO_PKG_VERSION").to_owned()),
        ("Redis", redis().unwrap_or_else(|| "not installed".to_owned())),
        ("sled", sled().unwrap_or_else(unknown)),
        ("date", output("date", &["-u", "+%Y-%m-%d"]).unwrap_or_else(unknown)),
        ("command", "make bench".to_owned()),
        ("over the wire", format!("medians of {run}, servers in turn")),
        ("in one process", "medians of criterion".to_owned()),
    ]
}

/// Stands for what the system does not tell.
fn unknown() -> String {
    "unknown".to_owned()
}

/// What a command prints.
fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The word of a text with this index.
fn word(text: &str, index: usize) -> String {
    text.split_whitespace().nth(index).map_or_else(unknown, str::to_owned)
}

/// The processor, as Linux or macOS names it.
fn cpu() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(": ")).map(|(_, name)| name.to_owned());
    name.or_else(|| output("sysctl", &["-n", "machdep.cpu.brand_string"]))
}

/// The version in `Redis server v=7.0.15 sha=..`.
fn redis() -> Option<String> {
    let text = output("redis-server", &["--version"])?;
    Some(text.split_whitespace().find_map(|word| word.strip_prefix("v="))?.to_owned())
}

/// The version of sled that cargo has locked.
fn sled() -> Option<String> {
    let (_, rest) = LOCK.split_once("name = \"sled\"\nversion = \"")?;
    Some(rest.split_once('"')?.0.to_owned())
}
