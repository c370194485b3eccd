//! Draws what the other benches have measured: `docs/figures.svg`, and all
//! numbers in `docs/figures.md`.
//!
//! `make bench` runs it after `engines` and `wire`, whose results are in the
//! target directory. It measures nothing.

mod environment;
mod results;
mod svg;
mod tables;

use std::error::Error;
use std::path::Path;

use environment::environment;
use results::{EngineRow, WireRow};
use svg::{Bar, Panel};

/// Whatever is missing ends it.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A multiple of a unit, with as many digits as say something.
fn short(number: f64) -> String {
    let digits = match number {
        _ if number < 10.0 => 2,
        _ if number < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.digits$}")
}

/// A rate of requests or megabytes, in thousands where there are as many.
fn short_rate(rate: f64) -> String {
    if rate < 10_000.0 { format!("{rate:.0}") } else { format!("{} k", short(rate / 1e3)) }
}

/// A time in the unit that suits it.
fn short_time(nanos: f64) -> String {
    match nanos {
        _ if nanos < 1e3 => format!("{} ns", short(nanos)),
        _ if nanos < 1e6 => format!("{} µs", short(nanos / 1e3)),
        _ => format!("{} ms", short(nanos / 1e6)),
    }
}

/// The bar of a row that Redis was there for.
fn wire_bar(row: &WireRow) -> Option<Bar> {
    let (kvs, redis) = (row.kvs(), row.redis()?);
    let rates = (short_rate(kvs.rate), short_rate(redis.rate));
    Some(Bar {
        label: format!("{}, {}", row.name, row.shape),
        ratio: kvs.rate / redis.rate,
        value: format!("{} : {}{}", rates.0, rates.1, row.per_second()),
    })
}

/// The bars of a row that sled was there for: one for each way to open kvs.
fn engine_bars(row: &EngineRow) -> Vec<Bar> {
    let Some(sled) = row.nanos("sled") else { return Vec::new() };
    let bar = |(engine, suffix)| {
        let kvs = row.nanos(engine)?;
        let value = format!("{} : {}", short_time(kvs), short_time(sled));
        Some(Bar { label: format!("{}{suffix}", row.name), ratio: sled / kvs, value })
    };
    [("kvs", ""), ("kvs buffered", " (buffered)")].into_iter().filter_map(bar).collect()
}

fn main() -> Result<()> {
    // Else it is `cargo test --all-targets`, which must not change a file.
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let wire = results::wire()?;
    let engines = results::engines()?;
    let facts = environment(&wire.run);
    let panels = [
        Panel {
            title: "kvs-server beside redis-server: throughput, kvs ÷ Redis",
            note: "connections × requests of each under way; kvs : Redis",
            bars: wire.rows.iter().filter_map(wire_bar).collect(),
        },
        Panel {
            title: "kvs beside sled, in one process: speed, kvs ÷ sled",
            note: "time of a call, kvs : sled; buffered: kvs holds writes in memory, as sled",
            bars: engines.iter().flat_map(engine_bars).collect(),
        },
    ];
    let docs = Path::new("docs");
    std::fs::create_dir_all(docs)?;
    std::fs::write(docs.join("figures.svg"), svg::draw(&panels, &facts))?;
    std::fs::write(docs.join("figures.md"), tables::write(&wire, &engines, &facts))?;
    println!("written: docs/figures.svg, docs/figures.md");
    Ok(())
}
