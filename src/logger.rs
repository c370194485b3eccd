//! Messages on stderr: five macros and a level, one line each.
//!
//! The level is global, since messages come from everywhere. It is off until
//! [`init`] sets it. Only the binaries do, so an embedded store logs nothing.
//!
//! Invariants:
//! * A message is one line: control characters are escaped, so no peer can forge a
//!   line or control a terminal (`a_message_is_one_line`).
//! * Logging never blocks. A message that stderr cannot take at once is dropped,
//!   and the next one that fits tells how many were
//!   (`a_full_pipe_drops_messages_and_counts_them`). A pipe that `poll` reports as
//!   writable takes `MESSAGE_BYTES_MAX` bytes at once. Making stderr
//!   non-blocking would change it for all processes that share it.

use std::ffi::OsStr;
use std::fmt;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::poll::{self, PollFd};

/// How important a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// As a limit, it turns all messages off.
    Off,
    /// Something failed, and somebody has to look after it.
    Error,
    /// Something unusual was handled.
    Warn,
    /// What an operator wants to know about a healthy server.
    Info,
    /// Each connection.
    Debug,
    /// Each request.
    Trace,
}

/// Names of the levels, in their order.
const NAMES: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// Every level, in the same order.
const LEVELS: [Level; 6] =
    [Level::Off, Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
/// Terminal colours (ECMA-48 SGR) of the levels: red, yellow, green, blue, grey.
const COLOURS: [u8; 6] = [0, 31, 33, 32, 34, 90];
/// Maximum length of a line; the rest is cut off. It is `PIPE_BUF`: POSIX
/// guarantees that a writable pipe takes so many bytes at once.
const MESSAGE_BYTES_MAX: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// The least important level that is shown. `Relaxed` is enough, because no other
/// memory depends on it.
static MAX_LEVEL: AtomicU8 = AtomicU8::new(Level::Off as u8);
/// Whether level names are coloured.
static COLOUR: AtomicBool = AtomicBool::new(false);
/// Number of dropped messages. The lock is held from `poll` to `write`, so that no
/// other thread fills the pipe in between.
static DROPPED: Mutex<u64> = Mutex::new(0);

impl FromStr for Level {
    type Err = String;

    fn from_str(name: &str) -> Result<Level, String> {
        let at = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name));
        at.map(|at| LEVELS[at]).ok_or_else(|| {
            format!("no level is called '{}': use one of {}", name.escape_debug(), NAMES.join(", "))
        })
    }
}

/// Shows messages up to this level from now on.
pub fn init(max_level: Level, colour: bool) {
    MAX_LEVEL.store(max_level as u8, Ordering::Relaxed);
    COLOUR.store(colour, Ordering::Relaxed);
}

/// Whether level names are coloured: on a terminal, unless `NO_COLOR` is set.
pub fn is_coloured(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// Whether messages of this level are shown.
pub fn is_shown(level: Level) -> bool {
    level as u8 <= MAX_LEVEL.load(Ordering::Relaxed)
}

/// Writes a message. The macros call it if the level is shown.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    let stderr = std::io::stderr();
    let mut dropped = DROPPED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    write_to(&stderr, stderr.as_raw_fd(), level, &message.to_string(), &mut dropped);
}

/// Writes a message, after one about the messages that were dropped.
fn write_to(out: impl Write + Copy, fd: RawFd, level: Level, message: &str, dropped: &mut u64) {
    let (now, colour) = (SystemTime::now(), COLOUR.load(Ordering::Relaxed));
    if *dropped > 0 {
        let text = format!("{dropped} messages were dropped, because stderr was full");
        if write_line(out, fd, &line(now, Level::Warn, colour, &text)) {
            *dropped = 0;
        }
    }
    if !write_line(out, fd, &line(now, level, colour, message)) {
        *dropped += 1;
    }
}

/// Writes a line unless that would block. A write that fails counts as done: there
/// is nowhere to report it.
fn write_line(mut out: impl Write, fd: RawFd, line: &str) -> bool {
    let mut fds = [PollFd::new(fd, false, true)];
    let is_writable = poll::wait(&mut fds, Some(Duration::ZERO)).is_ok() && fds[0].is_writable();
    if is_writable {
        let _ = out.write_all(line.as_bytes());
    }
    is_writable
}

/// Limits messages that a peer, or a lasting error, can cause again and again.
#[derive(Debug)]
pub struct RateLimit {
    /// Messages in a second.
    max: u32,
    /// Messages that are left in this second.
    left: u32,
    second: Instant,
}

impl RateLimit {
    /// At most `max` messages in a second.
    pub fn new(max: u32) -> RateLimit {
        RateLimit { max, left: max, second: Instant::now() }
    }

    /// Calls `log`, unless there were too many messages.
    pub fn run(&mut self, log: impl FnOnce()) {
        if self.second.elapsed() >= Duration::from_secs(1) {
            (self.left, self.second) = (self.max, Instant::now());
        }
        if self.left > 0 {
            self.left -= 1;
            log();
        }
    }
}

/// The line of a message.
fn line(now: SystemTime, level: Level, colour: bool, message: &str) -> String {
    let name = NAMES[level as usize].to_uppercase();
    let name = match colour {
        true => format!("\x1b[{}m{name:5}\x1b[0m", COLOURS[level as usize]),
        false => format!("{name:5}"),
    };
    let mut line = format!("{} {name} ", timestamp(now));
    for char in message.chars() {
        match char.is_control() {
            true => line.extend(char.escape_default()),
            false => line.push(char),
        }
    }
    let end = (0..MESSAGE_BYTES_MAX).rev().find(|end| line.is_char_boundary(*end));
    line.truncate(end.unwrap_or_default());
    line.push('\n');
    line
}

/// A time as RFC 3339 has it, in UTC, with milliseconds.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`). Its years
/// begin in March, so that the leap day comes last.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_from_march + 2) / 5 + 1;
    let month = if months_from_march < 10 { months_from_march + 3 } else { months_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Shows a message if its level is wanted; its text is made only then.
#[doc(hidden)]
#[macro_export]
macro_rules! log_at {
    ($level:ident, $($message:tt)+) => {
        if $crate::logger::is_shown($crate::logger::Level::$level) {
            $crate::logger::write($crate::logger::Level::$level, format_args!($($message)+));
        }
    };
}

/// Shows a message of [`Level::Error`].
#[doc(hidden)]
#[macro_export]
macro_rules! log_error { ($($message:tt)+) => { $crate::log_at!(Error, $($message)+) } }
/// Shows a message of [`Level::Warn`].
#[doc(hidden)]
#[macro_export]
macro_rules! log_warn { ($($message:tt)+) => { $crate::log_at!(Warn, $($message)+) } }
/// Shows a message of [`Level::Info`].
#[doc(hidden)]
#[macro_export]
macro_rules! log_info { ($($message:tt)+) => { $crate::log_at!(Info, $($message)+) } }
/// Shows a message of [`Level::Debug`].
#[doc(hidden)]
#[macro_export]
macro_rules! log_debug { ($($message:tt)+) => { $crate::log_at!(Debug, $($message)+) } }
/// Shows a message of [`Level::Trace`].
#[doc(hidden)]
#[macro_export]
macro_rules! log_trace { ($($message:tt)+) => { $crate::log_at!(Trace, $($message)+) } }

pub use crate::{
    log_debug as debug, log_error as error, log_info as info, log_trace as trace, log_warn as warn,
};

#[cfg(test)]
#[path = "logger_tests.rs"]
mod tests;
