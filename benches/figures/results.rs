//! Reads what the other benches have left in the target directory.

use std::path::{Path, PathBuf};

use crate::Result;

/// The rows of `engines`, in the order of the report. One that was not measured
/// is an error, so that no old report passes for a new one.
const ENGINE_ROWS: &[&str] = &[
    "set",
    "set, synced",
    "overwrite",
    "overwrite, synced",
    "remove",
    "get",
    "get, missing key",
    "open",
];
/// What may have been measured in each of them; kvs always is.
const ENGINES: &[&str] = &["kvs", "kvs buffered", "sled"];

/// What one server has shown in one row.
#[derive(Clone, Copy)]
pub(crate) struct Measure {
    /// Requests or megabytes a second.
    pub(crate) rate: f64,
    /// The latency of a batch, median, in microseconds.
    pub(crate) median: f64,
    /// The latency of a batch that 99 of a hundred do not exceed.
    pub(crate) p99: f64,
}

/// A row of `wire`.
pub(crate) struct WireRow {
    /// What was asked.
    pub(crate) name: String,
    /// Connections × requests of each.
    pub(crate) shape: String,
    /// What the rates count.
    unit: String,
    /// Each server in turn; without and with idle connections, if there are losses.
    pub(crate) servers: Vec<Measure>,
    /// The percentage that each server lost with idle connections.
    pub(crate) losses: Vec<f64>,
}

impl WireRow {
    /// What kvs has shown, with idle connections where there were any.
    pub(crate) fn kvs(&self) -> Measure {
        self.servers[usize::from(!self.losses.is_empty())]
    }

    /// What Redis has shown in the same row.
    pub(crate) fn redis(&self) -> Option<Measure> {
        self.servers.get(if self.losses.is_empty() { 1 } else { 3 }).copied()
    }

    /// The unit of the rates, to stand behind a number.
    pub(crate) fn per_second(&self) -> &'static str {
        if self.unit == "MB" { " MB/s" } else { "/s" }
    }

    /// Reads a line: name, shape, unit, three numbers for each server, and then
    /// the losses, of which there are less than three.
    fn parse(line: &str) -> Option<WireRow> {
        let mut cells = line.split('\t');
        let mut text = || cells.next().map(str::to_owned);
        let (name, shape, unit) = (text()?, text()?.replace('x', "×"), text()?);
        let numbers: Vec<f64> = cells.map(|cell| cell.parse().ok()).collect::<Option<_>>()?;
        let (threes, losses) = numbers.split_at(numbers.len() / 3 * 3);
        let measure = |n: &[f64]| Measure { rate: n[0], median: n[1], p99: n[2] };
        let servers: Vec<Measure> = threes.chunks(3).map(measure).collect();
        let is_whole = servers.len() > usize::from(!losses.is_empty());
        is_whole.then(|| WireRow { name, shape, unit, servers, losses: losses.to_vec() })
    }
}

/// All of `wire`.
pub(crate) struct Wire {
    /// How often and how long each row ran.
    pub(crate) run: String,
    /// The rows.
    pub(crate) rows: Vec<WireRow>,
}

/// Where both benches and this one have their target directory.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("..")
}

/// A file that a bench has left.
fn read(path: &Path) -> Result<String> {
    let explain = |error| format!("{}: {error}; run `make bench`", path.display());
    Ok(std::fs::read_to_string(path).map_err(explain)?)
}

/// Reads what `wire` has kept.
pub(crate) fn wire() -> Result<Wire> {
    let path = target().join("tmp/wire.tsv");
    let text = read(&path)?;
    let (run, rows) = text.split_once('\n').unwrap_or_default();
    let rows: Option<Vec<WireRow>> = rows.lines().map(WireRow::parse).collect();
    let rows = rows.ok_or_else(|| format!("{} is not what wire writes", path.display()))?;
    Ok(Wire { run: run.to_owned(), rows })
}

/// A row of `engines`.
pub(crate) struct EngineRow {
    /// What was timed, and the durability of it.
    pub(crate) name: &'static str,
    /// The engines that were, and the median nanoseconds of a call.
    nanos: Vec<(&'static str, f64)>,
}

impl EngineRow {
    /// The median nanoseconds of a call of this engine.
    pub(crate) fn nanos(&self, engine: &str) -> Option<f64> {
        self.nanos.iter().find(|(name, _)| *name == engine).map(|(_, nanos)| *nanos)
    }

    /// Reads what criterion has kept of a row.
    fn read(name: &'static str) -> Result<EngineRow> {
        let mut nanos = Vec::new();
        for engine in ENGINES {
            let path = target().join("criterion").join(name).join(engine);
            let path = path.join("new/estimates.json");
            if *engine == "kvs" || path.exists() {
                let median = median(&read(&path)?);
                nanos.push((*engine, median.ok_or("an estimate of criterion is not as usual")?));
            }
        }
        Ok(EngineRow { name, nanos })
    }
}

/// Reads the medians that criterion has kept.
pub(crate) fn engines() -> Result<Vec<EngineRow>> {
    ENGINE_ROWS.iter().map(|name| EngineRow::read(name)).collect()
}

/// The estimate of the median in criterion's JSON, which has no text in which
/// these names could stand.
fn median(json: &str) -> Option<f64> {
    let (_, rest) = json.split_once("\"median\"")?;
    let (_, rest) = rest.split_once("\"point_estimate\":")?;
    let end = rest.find([',', '}'])?;
    rest[..end].trim().parse().ok()
}
