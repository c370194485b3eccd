//! Clumsy and hostile peers over real sockets: none of them stops the server,
//! fills its memory, uses up its descriptors or delays the others.
//!
//! `KVS_TORTURE=n` sends `n` times as much. Figures of the server come from
//! `/proc`; without it, these parts of a test are skipped.

#[path = "simulation/random.rs"]
mod random;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use random::Random;
use support::{Server, await_that, server_command};

/// How many times as much is sent.
fn torture() -> usize {
    std::env::var("KVS_TORTURE").map_or(1, |text| text.parse().unwrap())
}

/// Clients at a time: as many as the usual limit of descriptors allows this
/// process in its short form, a thousand in the long one.
fn crowd() -> usize {
    if torture() > 1 { 1_000 } else { 300 }
}

/// Starts a server with a limit on its descriptors; errors alone are logged, so
/// that nobody has to read them.
fn start_with_descriptors(descriptors: usize, flags: &[&str]) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = server_command();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"")]);
    shell.arg(server.get_program()).env_remove("KVS_LOG").current_dir(dir.path());
    shell.args(["--addr", "127.0.0.1:0", "--fsync", "never"]).args(flags);
    (dir, Server::from_command(shell))
}

/// A server that many may connect to.
fn start(flags: &[&str]) -> (tempfile::TempDir, Server) {
    start_with_descriptors(crowd() + 100, flags)
}

/// A file of the server's in `/proc`.
fn proc_file(server: &Server, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{}/{name}", server.child.id())).ok();
    if text.is_none() {
        println!("no /proc here: not measured");
    }
    text
}

/// Bytes of the server's memory that are resident.
fn resident_bytes(server: &Server) -> Option<usize> {
    let status = proc_file(server, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    Some(line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024)
}

/// Hundredths of a second of processor time that the server has used.
fn processor_ticks(server: &Server) -> Option<u64> {
    let stat = proc_file(server, "stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    Some(fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap())
}

/// A figure that the server tells of itself.
fn stat(server: &Server, name: &str) -> u64 {
    let stats = server.talk(b"STATS\n");
    let word = stats.split_whitespace().find_map(|word| word.strip_prefix(&format!("{name}=")));
    word.unwrap().parse().unwrap()
}

/// Waits until the server executes nothing more for other clients.
fn await_rest(server: &Server) {
    let mut before = 0;
    await_that("rest", || {
        let requests = stat(server, "requests");
        std::mem::replace(&mut before, requests) + 1 == requests
    });
}

/// A bound on the memory of these clients, below what `ServerOptions` states.
fn memory_max(clients: usize, line: usize, read: usize, outbox: usize, reply: usize) -> usize {
    clients * (line + read + 2 * (outbox + reply))
}

/// Returns true if processes started here ignore SIGHUP, as they do under `nohup`.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|it| it & 1 == 1))
}

/// Reads one line.
fn read_line(stream: &mut TcpStream) -> String {
    let mut line = String::new();
    BufReader::with_capacity(1, stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn endless_lines_stay_within_the_stated_memory() {
    const LINE: usize = 32 << 10;
    let (_dir, server) = start(&["--max-line", "32K"]);
    let before = resident_bytes(&server);
    let endless = vec![b'x'; 8 * LINE];
    let mut clients: Vec<TcpStream> = (0..crowd()).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.write_all(&endless).unwrap());
    assert_eq!(server.talk(b"PING\n"), "PONG\n");
    let grown = resident_bytes(&server).zip(before).map(|(now, before)| now - before);
    for client in &mut clients {
        client.write_all(b"\r\n").unwrap();
        let reply = read_line(client);
        assert!(reply.starts_with("ERR too-long ") && reply.ends_with("\r\n"), "{reply}");
    }
    let Some(grown) = grown else { return };
    let most = memory_max(crowd(), LINE, 16 << 10, 0, 100);
    assert!(grown <= most, "grown by {grown} bytes, {most} are stated");
}

#[test]
fn unread_replies_stay_within_the_stated_memory() {
    const VALUE: usize = 100_000;
    let (_dir, server) = start(&[]);
    server.talk(format!("SET big {}\n", "v".repeat(VALUE)).as_bytes());
    let before = resident_bytes(&server);
    let requests = "GET big\n".repeat(100);
    let mut clients: Vec<TcpStream> = (0..crowd()).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.write_all(requests.as_bytes()).unwrap());
    await_rest(&server);
    let Some(grown) = resident_bytes(&server).zip(before).map(|(now, before)| now - before) else {
        return;
    };
    let most = memory_max(crowd(), 0, 16 << 10, 256 << 10, VALUE);
    assert!(grown <= most, "grown by {grown} bytes, {most} are stated");
}

#[test]
fn idle_clients_free_their_memory() {
    const LINE: usize = 900_000;
    const CLIENTS: usize = 64;
    let (_dir, server) = start(&[]);
    let line = format!("PING{}", " ".repeat(LINE));
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.write_all(line.as_bytes()).unwrap());
    // All lines end at once, so that no client is busy when another might cool.
    clients.iter_mut().for_each(|client| client.write_all(b"\n").unwrap());
    clients.iter_mut().for_each(|client| assert_eq!(read_line(client), "PONG\n"));
    // Nothing is asked meanwhile: nobody but the server itself wakes it.
    let is_little = || resident_bytes(&server).is_none_or(|now| now < CLIENTS * LINE / 4);
    await_that("a server that holds little", is_little);
}

#[test]
fn a_huge_line_is_skipped_in_constant_memory() {
    let (_dir, server) = start(&["--max-line", "1M"]);
    let mut stream = server.connect();
    let before = resident_bytes(&server);
    let chunk = vec![b'x'; 1 << 20];
    // A gibibyte in the long form.
    for _ in 0..if torture() > 1 { 1_024 } else { 64 } {
        stream.write_all(&chunk).unwrap();
    }
    stream.write_all(b"\nPING\n").unwrap();
    let mut replies = BufReader::new(stream).lines();
    assert!(replies.next().unwrap().unwrap().starts_with("ERR too-long "));
    assert_eq!(replies.next().unwrap().unwrap(), "PONG");
    if let (Some(before), Some(now)) = (before, resident_bytes(&server)) {
        assert!(now < before + (6 << 20), "grown from {before} to {now} bytes");
    }
}

#[test]
fn without_descriptors_connected_clients_are_served() {
    let (_dir, server) = start_with_descriptors(40, &[]);
    let mut clients: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"PING\n").unwrap());
    assert_eq!(read_line(&mut clients[0]), "PONG\n");
    let before = processor_ticks(&server);
    // A server that spins gets a part of this time, however busy the machine is.
    std::thread::sleep(Duration::from_millis(600));
    if let (Some(before), Some(now)) = (before, processor_ticks(&server)) {
        assert!(now - before <= 10, "{} hundredths of a second of 60", now - before);
    }
    for client in &mut clients[1..8] {
        assert_eq!(read_line(client), "PONG\n");
    }
    // As clients leave, those that wait are served.
    for mut client in clients.drain(..).skip(8).collect::<Vec<_>>() {
        assert_eq!(read_line(&mut client), "PONG\n");
    }
}

/// A line of junk: random, or a request with a random edit, or what terminals
/// and other programs send. Never one that ends the connection.
fn junk_line(random: &mut Random) -> Vec<u8> {
    const SEEDS: [&[u8]; 8] = [
        b"SET key value",
        b"GET key",
        b"RM \"a \\u00e9 b\"",
        b"SET \"\" \"\\ud83d\\ude00\\n\"",
        b"\xff\xfb\x01\xff\xfd\x03",
        b"\xff\xfeG\0E\0T\0 \0a\0",
        b"STATS",
        b"AUTH h\xc3\xa9",
    ];
    let mut line = match random.below(4) {
        0 => (0..random.below(30)).map(|_| random.next() as u8).collect(),
        _ => random.pick(&SEEDS).to_vec(),
    };
    for _ in 0..random.below(4) {
        let at = random.below(line.len() as u64 + 1) as usize;
        match random.below(3) {
            0 => line.insert(at, random.next() as u8),
            1 => line.truncate(at),
            _ => line.insert(at, random.pick(b" \t\"\\\r\0\x1b\x9b")),
        }
    }
    line.retain(|byte| *byte != b'\n');
    line.extend_from_slice(random.pick(&[&b"\n"[..], b"\r\n"]));
    line
}

/// How many replies these bytes are to get: one for each line that is not empty.
fn replies_due(bytes: &[u8]) -> usize {
    let lines = bytes.split(|byte| *byte == b'\n');
    lines.filter(|line| !line.strip_suffix(b"\r").unwrap_or(line).is_empty()).count()
}

#[test]
fn every_line_gets_one_reply() {
    const LINES: usize = 500;
    let (_dir, server) = start(&["--no-shutdown"]);
    let mut random = Random::new(1);
    let mut sent = 0;
    // A million in the long form.
    for _ in 0..if torture() > 1 { 2_000 } else { 20 } {
        let mut bytes: Vec<u8> = (0..LINES).flat_map(|_| junk_line(&mut random)).collect();
        bytes.truncate(bytes.len() - random.below(3) as usize);
        let mut stream = server.connect();
        let replies = stream.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            BufReader::new(replies).lines().map(|line| line.unwrap()).collect::<Vec<_>>()
        });
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(random.between(1, 9_000).min(rest.len()));
            stream.write_all(head).unwrap();
            rest = tail;
        }
        stream.shutdown(Shutdown::Write).unwrap();
        let replies = reader.join().unwrap();
        assert_eq!(replies.len(), replies_due(&bytes), "{}", bytes.escape_ascii());
        assert!(!replies.iter().any(|reply| reply.contains(char::is_control)));
        sent += LINES;
    }
    println!("{sent} lines were answered");
}

#[test]
fn no_way_of_leaving_leaves_anything_behind() {
    let (_dir, server) = start(&[]);
    let descriptors =
        || fs::read_dir(format!("/proc/{}/fd", server.child.id())).map(Iterator::count);
    let is_alone = || stat(&server, "clients") == 1;
    let mut at_first = None;
    for round in 0..1_000 * torture().min(10) {
        let mut stream = server.connect();
        match round % 4 {
            0 => {}
            1 => stream.write_all(b"SET a 1\nGET").unwrap(),
            // Closing with replies unread resets the connection.
            2 => stream.write_all(&b"PING\n".repeat(50)).unwrap(),
            _ => stream.shutdown(Shutdown::Write).unwrap(),
        }
        drop(stream);
        if round == 200 {
            await_that("the end of the first clients", is_alone);
            at_first = descriptors().ok().zip(resident_bytes(&server));
        }
    }
    await_that("the end of all other clients", is_alone);
    if let Some((open, memory)) = at_first {
        assert!(descriptors().unwrap() <= open);
        let now = resident_bytes(&server).unwrap();
        assert!(now < memory + (4 << 20), "grown from {memory} to {now} bytes");
    }
}

/// Sends the heaviest load that there is until it is told to stop; how many
/// batches were answered.
fn flood(server: &Server, stop: &AtomicBool) -> usize {
    let requests = "SET flood 0123456789\n".repeat(2_000);
    let mut streams: Vec<TcpStream> = (0..8).map(|_| server.connect()).collect();
    let mut replies = vec![0; 3 * 2_000];
    let mut batches = 0;
    while !stop.load(Ordering::Relaxed) {
        streams.iter_mut().for_each(|stream| stream.write_all(requests.as_bytes()).unwrap());
        for stream in &mut streams {
            stream.read_exact(&mut replies).unwrap();
            assert!(replies.chunks(3).all(|reply| reply == b"OK\n"));
            batches += 1;
        }
    }
    batches
}

/// Sends one request at a time; returns the latencies, sorted.
fn ask_politely(server: &Server, times: usize) -> Vec<Duration> {
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    let mut latencies = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        stream.write_all(b"GET polite\n").unwrap();
        assert_eq!(read_line(&mut stream), "VALUE yes\n");
        latencies.push(begun.elapsed());
    }
    latencies.sort();
    latencies
}

#[test]
fn a_flood_delays_others_by_few_iterations() {
    let (_dir, server) = start(&[]);
    server.talk(b"SET polite yes\n");
    let stop = AtomicBool::new(false);
    let alone = ask_politely(&server, 200);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&server, &stop));
        let before = stat(&server, "iterations");
        let during = ask_politely(&server, 200);
        let iterations = stat(&server, "iterations") - before;
        stop.store(true, Ordering::Relaxed);
        let batches = flood.join().unwrap();
        let show = |latencies: &[Duration]| format!("{:?}, {:?}", latencies[100], latencies[199]);
        println!(
            "median and worst latency: {}; during {batches} batches: {}",
            show(&alone),
            show(&during)
        );
        // A request that arrives during an iteration is executed in the next one.
        assert!(iterations <= 200 * 4, "200 requests took {iterations} iterations");
    });
}

/// Overwrites keys until the server ends; what was acknowledged, by key.
fn overwrite_until_the_end(server: &Server) -> Vec<u64> {
    let mut stream = server.connect();
    let mut replies = BufReader::new(stream.try_clone().unwrap());
    let mut acknowledged = vec![0; 50];
    for version in 1.. {
        let key = version as usize % acknowledged.len();
        let request = format!("SET key{key} {version}.{}\n", "x".repeat(300));
        let mut reply = String::new();
        let sent = stream.write_all(request.as_bytes());
        match sent.and_then(|()| replies.read_line(&mut reply)) {
            Ok(_) if reply == "OK\n" => acknowledged[key] = version,
            Ok(0) => break,
            Err(error) if error.kind() != ErrorKind::WouldBlock => break,
            other => panic!("{other:?}: {reply}"),
        }
    }
    acknowledged
}

#[test]
fn a_signal_under_load_loses_nothing_acknowledged() {
    for round in 0..4 * torture().min(20) {
        let signal = match ["TERM", "HUP", "INT"][round % 3] {
            "HUP" if is_hangup_ignored() => "TERM",
            signal => signal,
        };
        let dir = tempfile::tempdir().unwrap();
        let flags = ["--segment-size", "4K", "--compact-threshold", "4K"];
        let server = Server::start(dir.path(), &flags);
        let acknowledged = std::thread::scope(|scope| {
            let writer = scope.spawn(|| overwrite_until_the_end(&server));
            await_that("some writes", || stat(&server, "requests") > 100 * (1 + round as u64 % 4));
            server.signal(signal);
            writer.join().unwrap()
        });
        let (status, stderr) = server.wait();
        assert_eq!(status.code(), Some(0), "{stderr}");
        let server = Server::start(dir.path(), &flags);
        for (key, version) in acknowledged.iter().enumerate().filter(|(_, version)| **version > 0) {
            let reply = server.talk(format!("GET key{key}\n").as_bytes());
            let found: u64 = reply["VALUE ".len()..].split('.').next().unwrap().parse().unwrap();
            assert!(found >= *version, "key{key}: {found}, and {version} was acknowledged");
        }
    }
}

#[test]
fn a_signal_during_recovery_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--segment-size", "512", "--fsync", "never"];
    let server = Server::start(dir.path(), &flags);
    let sets: String = (0..3_000).map(|nth| format!("SET key{nth} value\n")).collect();
    server.talk(sets.as_bytes());
    server.kill();
    let mut statuses = Vec::new();
    for round in 0..30 {
        let mut command = server_command();
        command.args(["--addr", "127.0.0.1:0", "--log", "off"]).args(flags);
        let mut child = command.current_dir(dir.path()).spawn().unwrap();
        (0..round * 20_000).for_each(|nth| assert!(std::hint::black_box(nth) >= 0));
        let pid = child.id().to_string();
        std::process::Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap();
        let status = child.wait().unwrap();
        // Before it can have asked for signals, the signal itself ends it.
        statuses.push(status.code().unwrap_or(-1));
    }
    assert!(statuses.iter().all(|status| [0, -1].contains(status)), "{statuses:?}");
    let server = Server::start(dir.path(), &flags);
    assert_eq!(stat(&server, "keys"), 3_000);
}

#[test]
fn a_second_signal_ends_at_once() {
    let (_dir, server) = start(&["--max-line", "2M"]);
    // It does not read its reply, which the end waits for.
    let value = "v".repeat(1 << 20);
    let mut peer = server.connect();
    peer.write_all(format!("SET a {value}\n{}", "GET a\n".repeat(99)).as_bytes()).unwrap();
    // It has begun to answer. Then until no more fits into the socket's buffers.
    peer.read_exact(&mut [0; 100]).unwrap();
    await_rest(&server);
    server.signal("INT");
    server.signal("TERM");
    let (status, _) = server.wait();
    assert!(matches!(status.code(), Some(130 | 143)), "{status}");
}

#[test]
fn strangers_cannot_fill_the_memory() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "secret").unwrap();
    let (_dir, server) = start(&["--auth-file", secret.path().to_str().unwrap()]);
    let before = resident_bytes(&server);
    let endless = vec![b'x'; 1 << 20];
    let mut clients: Vec<TcpStream> = (0..crowd()).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.write_all(&endless).unwrap());
    assert_eq!(server.talk(b"PING\n"), "PONG\n");
    if let (Some(before), Some(now)) = (before, resident_bytes(&server)) {
        assert!(now < before + (8 << 20), "grown from {before} to {now} bytes");
    }
    clients[0].write_all(b"\nAUTH secret\nSET a 1\n").unwrap();
    assert!(read_line(&mut clients[0]).starts_with("ERR too-long "));
    assert_eq!(read_line(&mut clients[0]), "OK\n");
    assert_eq!(read_line(&mut clients[0]), "OK\n");
}

#[test]
fn descriptors_are_kept_for_the_store() {
    let flags = ["--segment-size", "64K", "--compact-threshold", "64K"];
    let (_dir, server) = start_with_descriptors(256, &flags);
    let mut clients: Vec<TcpStream> = (0..300).map(|_| server.connect()).collect();
    // Those that are not accepted yet wait in the system's queue.
    for round in 0..40 {
        for (nth, client) in clients.iter_mut().enumerate().take(100) {
            let value = "v".repeat(500);
            client.write_all(format!("SET key{nth} {round}{value}\n").as_bytes()).unwrap();
        }
        for client in &mut clients[..100] {
            assert_eq!(read_line(client), "OK\n");
        }
    }
    clients.drain(..100);
    // Now the last ones are accepted too.
    let mut last = clients.pop().unwrap();
    last.write_all(b"SET last 1\n").unwrap();
    assert_eq!(read_line(&mut last), "OK\n");
}

#[test]
fn a_full_stderr_does_not_stop_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = server_command();
    command.args(["--addr", "127.0.0.1:0", "--max-clients", "1", "--log", "trace"]);
    // Nobody reads its stderr after the first lines.
    let server = Server::from_command({
        command.current_dir(dir.path());
        command
    });
    let mut first = server.connect();
    for _ in 0..5_000 {
        first.write_all(b"PING\n").unwrap();
        assert_eq!(read_line(&mut first), "PONG\n");
    }
    for _ in 0..1_000 {
        assert!(read_line(&mut server.connect()).starts_with("ERR busy "));
    }
    first.write_all(b"SET a 1\n").unwrap();
    assert_eq!(read_line(&mut first), "OK\n");
    server.signal("TERM");
    let (status, stderr) = server.wait_unread();
    assert_eq!(status.code(), Some(0));
    assert!(stderr.contains(": PING\n"));
}

#[test]
fn a_hangup_ends_in_order() {
    if is_hangup_ignored() {
        println!("skipped: this process ignores SIGHUP, and so does its server");
        return;
    }
    let (_dir, server) = start(&[]);
    assert_eq!(server.talk(b"SET a 1\n"), "OK\n");
    server.signal("HUP");
    assert_eq!(server.wait().0.code(), Some(0));
}
