//! What the tests of the binaries share: a server that runs until it is
//! dropped, and a client that runs to its end.
//!
//! Waits are for events (a line on stderr, the end of a process), never for a
//! time; [`PATIENCE`] only bounds how long a test that fails hangs.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "each test file is a crate of its own")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A command of the server's binary, without its environment's say in levels.
pub fn server_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvs-server"));
    command.env_remove("KVS_LOG");
    command
}

/// A server on a free port.
pub struct Server {
    /// Its process.
    pub child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
    /// The lines that it wrote until it listened.
    pub start: String,
    /// What it writes from then on.
    stderr: BufReader<ChildStderr>,
}

impl Server {
    /// Starts a server on `directory` with these flags; it listens.
    pub fn start(directory: &Path, flags: &[&str]) -> Server {
        Server::start_at(directory, "127.0.0.1:0", flags)
    }

    /// The same, at this address.
    pub fn start_at(directory: &Path, addr: &str, flags: &[&str]) -> Server {
        let mut command = server_command();
        command.args(["--addr", addr]).args(flags).current_dir(directory);
        Server::from_command(command)
    }

    /// Starts this command, and waits until it says where it listens.
    #[expect(clippy::zombie_processes, reason = "a server that does not start fails the test")]
    pub fn from_command(mut command: Command) -> Server {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut start = String::new();
        loop {
            let before = start.len();
            assert!(stderr.read_line(&mut start).unwrap() > 0, "it did not start:\n{start}");
            if let Some((_, rest)) = start[before..].split_once(" listening on ") {
                let addr = rest.split(',').next().unwrap().parse().unwrap();
                return Server { child, addr, start, stderr };
            }
        }
    }

    /// Connects, with a bound on how long a read may take.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends all of `bytes`, ends the input, and reads to the end of the replies.
    pub fn talk(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let mut sender = stream.try_clone().unwrap();
        let bytes = bytes.to_vec();
        let sender = std::thread::spawn(move || {
            // The server may close before it has read all.
            let _ = sender.write_all(&bytes);
            let _ = sender.shutdown(std::net::Shutdown::Write);
        });
        let mut replies = Vec::new();
        let _ = stream.read_to_end(&mut replies);
        sender.join().unwrap();
        String::from_utf8(replies).unwrap()
    }

    /// Runs the client with these arguments, separated by blanks.
    pub fn client(&self, args: &str) -> Ran {
        let addr = self.addr.to_string();
        client(&args.split_whitespace().chain(["--addr", &addr]).collect::<Vec<_>>())
    }

    /// Waits for its end; its status and the rest of its stderr.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }

    /// Waits for its end before reading its stderr, which may be full.
    pub fn wait_unread(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.wait().1)
    }

    /// Ends it as a power loss would, but for what the system still holds.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal by its name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process that has ended printed.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its exit status.
    pub status: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran {
            status: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// What a success that prints this looks like.
pub fn printed(stdout: &str) -> Ran {
    Ran { status: 0, stdout: stdout.to_owned(), stderr: String::new() }
}

/// What a failure that complains so looks like.
pub fn failed(status: i32, stderr: &str) -> Ran {
    Ran { status, stdout: String::new(), stderr: stderr.to_owned() }
}

/// Runs the client to its end.
pub fn client(args: &[&str]) -> Ran {
    client_with(args, b"")
}

/// Runs the client to its end, with this on its stdin.
pub fn client_with(args: &[&str], stdin: &[u8]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvs-client"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut to_child, stdin) = (child.stdin.take().unwrap(), stdin.to_vec());
    // Beside it: the client may wait for its output to be read.
    std::thread::spawn(move || to_child.write_all(&stdin));
    child.wait_with_output().unwrap().into()
}

/// Runs the server to its end, which these arguments bring at once.
pub fn server(directory: &Path, args: &[&str]) -> Ran {
    let mut command = server_command();
    command.args(args).current_dir(directory).output().unwrap().into()
}

/// Waits until something is so.
pub fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        std::thread::yield_now();
    }
}
