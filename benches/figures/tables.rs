//! Writes all numbers as tables of Markdown.

use crate::environment::Fact;
use crate::results::{EngineRow, Measure, Wire, WireRow};
use crate::{short, short_rate, short_time};

/// What stands above all.
const HEAD: &str = "\
# Figures

`make bench` writes this file. The figures hold for one machine; run it on yours.

![Bars of how many times as fast kvs is as Redis and sled](figures.svg)
";
/// What the rows of servers mean.
const WIRE: &str = "
## kvs-server beside redis-server

Both are asked the same over loopback, at the same durability: `always` syncs before a write is answered, `everysec`
within a second after. Redis has its append-only file. 50 × 16 are 50 connections with 16 pipelined requests each;
latencies, median and 99th percentile, are of the 16 together. Keys are chosen all alike, and values have 64 bytes, 1000
where the data is more than the cache of kvs holds. Redis keeps all values in memory.

| | connections × requests | kvs | latency | Redis | latency | kvs ÷ Redis |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
";
/// What the rows about idle connections mean.
const IDLE: &str = "
## 1,000 idle connections beside 50 busy ones

Each server runs twice, without idle connections and with. The loss is the median over pairs of rounds, one right after
the other; one below zero is noise.

| | busy connections × requests | kvs | beside idle | loss | Redis | beside idle | loss |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |
";
/// What the rows of engines mean.
const ENGINES: &str = "
## kvs beside sled

The time of a call in one process, with 100,000 keys and values of 100 bytes. `unsynced`: nothing is done after the call;
kvs has handed the write to the system by then, sled and kvs buffered have it in memory. `handed over`: it survives the
end of the process. `synced`: it survives a loss of power.

| | kvs | kvs buffered | sled | sled's time ÷ kvs' |
| --- | ---: | ---: | ---: | ---: |
";

/// The whole file.
pub(crate) fn write(wire: &Wire, engines: &[EngineRow], facts: &[Fact]) -> String {
    let (idle, busy): (Vec<_>, Vec<_>) = wire.rows.iter().partition(|row| !row.losses.is_empty());
    let fact = |(name, value): &Fact| format!("| {name} | {value} |\n");
    let mut text = HEAD.to_owned() + "\n| | |\n| --- | --- |\n";
    text.extend(facts.iter().map(fact));
    text += WIRE;
    text.extend(busy.into_iter().map(wire_line));
    if !idle.is_empty() {
        text += IDLE;
        text.extend(idle.into_iter().map(idle_line));
    }
    text += ENGINES;
    text.extend(engines.iter().map(engine_line));
    text
}

/// A line of a table.
fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// What is there, else nothing.
fn or_empty<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(String::new, show)
}

/// Both latencies.
fn latency(measure: Measure) -> String {
    format!("{}, {}", short_time(measure.median * 1e3), short_time(measure.p99 * 1e3))
}

/// A row of the servers.
fn wire_line(row: &WireRow) -> String {
    let rate = |measure: Measure| short_rate(measure.rate) + row.per_second();
    let ratio = row.redis().map(|redis| row.kvs().rate / redis.rate);
    line(&[
        row.name.clone(),
        row.shape.clone(),
        rate(row.kvs()),
        latency(row.kvs()),
        or_empty(row.redis(), rate),
        or_empty(row.redis(), latency),
        or_empty(ratio, short),
    ])
}

/// A row about idle connections.
fn idle_line(row: &WireRow) -> String {
    let mut cells = vec![row.name.clone(), row.shape.clone()];
    for (pair, loss) in row.servers.chunks(2).zip(&row.losses) {
        cells.extend(pair.iter().map(|measure| short_rate(measure.rate) + row.per_second()));
        cells.push(format!("{loss:.1} %"));
    }
    // Redis may be missing.
    cells.resize(8, String::new());
    line(&cells)
}

/// A row of the engines.
fn engine_line(row: &EngineRow) -> String {
    let time = |engine| or_empty(row.nanos(engine), short_time);
    let ratio = row.nanos("sled").zip(row.nanos("kvs")).map(|(sled, kvs)| sled / kvs);
    line(&[
        row.name.to_owned(),
        time("kvs"),
        time("kvs buffered"),
        time("sled"),
        or_empty(ratio, short),
    ])
}
