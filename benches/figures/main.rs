//! Writes `docs/figures.md`, tables of what the other benches have measured, and
//! `docs/figures.svg`, the bars of three rows.
//!
//! `make bench` runs it after `engines` and `wire`, whose results are in the
//! target directory. It measures nothing.

mod svg;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use svg::Bar;

/// Any missing result ends the program.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The rows of `engines`. A missing one is an error.
const ENGINE_ROWS: [&str; 8] = [
    "set",
    "set, synced",
    "overwrite",
    "overwrite, synced",
    "remove",
    "get",
    "get, missing key",
    "open",
];
/// The columns of `engines`, and the directories that criterion keeps them in.
/// Only kvs is always there.
const ENGINES: [(&str, &str); 3] =
    [("kvs", "kvs/new"), ("baseline", "kvs/baseline"), ("sled", "sled/new")];
/// The rows of `wire` that become bars.
const BARS: [&str; 3] = ["SET always, 50 × 16", "SET everysec, 50 × 16", "GET, 50 × 16"];
/// The title of the bars.
const BARS_TITLE: &str = "Requests per second, 50 connections × 16 pipelined requests";

/// What the figures depend on, and the shell commands that print it.
const FACTS: [(&str, &str); 8] = [
    ("processor", "grep -m 1 'model name' /proc/cpuinfo || sysctl -n machdep.cpu.brand_string"),
    ("processors", "getconf _NPROCESSORS_ONLN"),
    ("system", "uname -srm"),
    ("compiler", "rustc --version"),
    ("Redis", "redis-server --version | sed 's/.* v=\\([^ ]*\\).*/\\1/'"),
    ("sled", "sed -n '/^name = \"sled\"/{n;s/.*\"\\(.*\\)\"/\\1/p;}' Cargo.lock"),
    ("baseline", "\"$KVS_BASELINE\" --version"),
    ("date", "date -u +%Y-%m-%d"),
];

/// The text above the tables.
const HEAD: &str = "\
# Figures

`make bench` writes this file. Measured on one machine; run it on yours.

![Bar chart: requests per second of kvs and Redis](figures.svg)

| | |
| --- | --- |
";
/// The text above the rows of servers.
const WIRE: &str = "
## kvs-server beside redis-server

All servers get the same requests over loopback with the same durability: `always` fsyncs before the reply, `everysec`
within a second after it. Redis has its append-only file, and keeps all values in memory. 50 × 16 are 50 connections
with 16 pipelined requests each. The cells show requests per second, then the latency (median, 99th percentile) of each
batch of pipelined requests. Keys are chosen uniformly. Values have 64 bytes, or 1,000 where the data exceeds the cache
of kvs.
";
/// The text above the rows about idle connections.
const IDLE: &str = "
## 1,000 idle connections beside the busy ones

Each server runs twice, without idle connections and with them. The loss follows from the two rates; below zero it is
noise.

| | server | alone | beside 1,000 idle | loss |
| --- | --- | ---: | ---: | ---: |
";
/// The text above the rows of engines.
const ENGINES_TEXT: &str = "
## kvs beside sled

The time of a call in one process, median of criterion, with 100,000 pairs and values of 100 bytes. `synced` rows sync
after each write. In the other rows kvs has passed a write to the system when the call returns; sled still holds it in
memory.
";

/// One line of `wire`: a row on one server.
struct Measure {
    /// The name of the row.
    row: String,
    /// The server.
    server: String,
    /// Its idle connections.
    idle: f64,
    /// Requests per second.
    rate: f64,
    /// Median latency of a batch, in microseconds.
    median: f64,
    /// 99th percentile of this latency.
    p99: f64,
}

impl Measure {
    /// Parses a line. The numbers in it have a unit.
    fn parse(line: &str) -> Option<Measure> {
        let cells: Vec<&str> = line.split('\t').map(str::trim).collect();
        let &[name, shape, server, idle, rate, median, p99] = &cells[..] else { return None };
        let shape: Vec<&str> = shape.split('x').map(str::trim).collect();
        let number = |cell: &str| cell.split(['/', ' ']).next()?.parse().ok();
        Some(Measure {
            row: format!("{name}, {}", shape.join(" × ")),
            server: server.to_owned(),
            idle: number(idle)?,
            rate: number(rate)?,
            median: number(median)?,
            p99: number(p99)?,
        })
    }
}

/// One cell of a table that compares kvs with others.
struct Cell {
    /// The name of the column.
    name: String,
    /// Calls per unit of time.
    speed: f64,
    /// The text.
    text: String,
}

/// A number with three digits, or all before the point.
fn short(number: f64) -> String {
    let digits = match number {
        _ if number < 10.0 => 2,
        _ if number < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.digits$}")
}

/// A rate of requests.
fn short_rate(rate: f64) -> String {
    if rate < 10_000.0 { format!("{rate:.0}/s") } else { format!("{} k/s", short(rate / 1e3)) }
}

/// A time in a suitable unit.
fn short_time(nanos: f64) -> String {
    match nanos {
        _ if nanos < 1e3 => format!("{} ns", short(nanos)),
        _ if nanos < 1e6 => format!("{} µs", short(nanos / 1e3)),
        _ => format!("{} ms", short(nanos / 1e6)),
    }
}

/// A line of a table.
fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// A table of rows with the same columns, kvs first. Each other column adds one
/// that says how many times as fast kvs is.
fn table(rows: &[(String, Vec<Cell>)]) -> String {
    let Some((_, first)) = rows.first() else { return String::new() };
    let mut head = vec![String::new()];
    head.extend(first.iter().map(|cell| cell.name.clone()));
    head.extend(first.iter().skip(1).map(|cell| format!("speed-up over {}", cell.name)));
    let mut text = format!("\n{}", line(&head));
    text += &format!("| ---{} |\n", " | ---:".repeat(head.len() - 1));
    for (name, cells) in rows {
        let mut shown = vec![name.clone()];
        shown.extend(cells.iter().map(|cell| cell.text.clone()));
        shown.extend(cells.iter().skip(1).map(|cell| short(cells[0].speed / cell.speed)));
        text += &line(&shown);
    }
    text
}

/// The cells of a row of `wire`.
fn wire_row(measures: &[Measure]) -> (String, Vec<Cell>) {
    let cell = |of: &Measure| {
        let (median, p99) = (short_time(of.median * 1e3), short_time(of.p99 * 1e3));
        let text = format!("{} ({median}, {p99})", short_rate(of.rate));
        Cell { name: of.server.clone(), speed: of.rate, text }
    };
    (measures[0].row.clone(), measures.iter().map(cell).collect())
}

/// The lines of a row with idle connections: each server alone and beside them.
fn idle_lines(measures: &[Measure]) -> String {
    let pair = |pair: &[Measure]| {
        let (alone, beside) = (&pair[0], &pair[1]);
        let loss = format!("{:.1} %", 100.0 * (1.0 - beside.rate / alone.rate));
        let rates = [short_rate(alone.rate), short_rate(beside.rate)].join(" | ");
        line(&[alone.row.clone(), alone.server.clone(), rates, loss])
    };
    measures.chunks_exact(2).map(pair).collect()
}

/// The bars of a row.
fn bars((name, cells): &(String, Vec<Cell>)) -> Vec<Bar> {
    let bar = |cell: &Cell| Bar {
        label: format!("{name}, {}", cell.name),
        value: cell.speed,
        text: short_rate(cell.speed),
        is_kvs: cell.name == "kvs",
    };
    cells.iter().filter(|cell| cell.name != "baseline").map(bar).collect()
}

/// Reads a file in the target directory.
fn read(path: PathBuf) -> Result<String> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("..").join(path);
    let explain = |error| format!("{}: {error}; run `make bench`", path.display());
    Ok(std::fs::read_to_string(&path).map_err(explain)?)
}

/// The cells of a row of `engines`.
fn engine_row(row: &str) -> Result<(String, Vec<Cell>)> {
    let mut cells = Vec::new();
    for (name, directory) in ENGINES {
        let path = Path::new("criterion").join(row).join(directory).join("estimates.json");
        let json = match read(path) {
            Err(_) if name != "kvs" => continue,
            json => json?,
        };
        let nanos = median(&json).ok_or("an estimate of criterion has no median")?;
        cells.push(Cell { name: name.to_owned(), speed: 1.0 / nanos, text: short_time(nanos) });
    }
    Ok((row.to_owned(), cells))
}

/// The estimate of the median in the JSON of criterion.
fn median(json: &str) -> Option<f64> {
    let (_, rest) = json.split_once("\"median\"")?;
    let (_, rest) = rest.split_once("\"point_estimate\":")?;
    rest.split([',', '}']).next()?.trim().parse().ok()
}

/// A line of what a shell command prints, if it prints anything.
fn fact((name, command): (&str, &str)) -> Result<String> {
    let output = Command::new("sh").args(["-c", command]).output()?;
    let text = String::from_utf8(output.stdout)?;
    // /proc/cpuinfo has the name in front.
    let value = text.rsplit(": ").next().unwrap_or_default();
    let fact = [name.to_owned(), value.trim().to_owned()];
    Ok(if text.is_empty() { String::new() } else { line(&fact) })
}

fn main() -> Result<()> {
    // Without this flag it is a test run, which must not change a file.
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let wire = read("tmp/wire.tsv".into())?;
    let (run, lines) = wire.split_once('\n').ok_or("the results of `wire` are empty")?;
    let measures = lines.lines().map(Measure::parse).collect::<Option<Vec<_>>>();
    let measures = measures.ok_or("the results of `wire` have another format")?;
    let groups = measures.chunk_by(|a, b| a.row == b.row);
    let (idle, busy): (Vec<_>, Vec<_>) =
        groups.partition(|group| group.iter().any(|measure| measure.idle > 0.0));
    let rows: Vec<_> = busy.into_iter().map(wire_row).collect();
    let engines = ENGINE_ROWS.into_iter().map(engine_row).collect::<Result<Vec<_>>>()?;

    let mut text = HEAD.to_owned();
    text += &line(&["kvs".to_owned(), env!("CARGO_PKG_VERSION").to_owned()]);
    for each in FACTS {
        text += &fact(each)?;
    }
    text += &line(&["over the wire".to_owned(), format!("medians of {run}, servers by turns")]);
    text += &(WIRE.to_owned() + &table(&rows));
    if !idle.is_empty() {
        text += IDLE;
        text.extend(idle.into_iter().map(idle_lines));
    }
    text += &(ENGINES_TEXT.to_owned() + &table(&engines));

    let shown = rows.iter().filter(|(name, _)| BARS.contains(&name.as_str()));
    let bars: Vec<Bar> = shown.flat_map(bars).collect();
    std::fs::write("docs/figures.svg", svg::draw(BARS_TITLE, &bars))?;
    std::fs::write("docs/figures.md", text)?;
    println!("written: docs/figures.svg, docs/figures.md");
    Ok(())
}
