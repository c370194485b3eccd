//! Messages on stderr, one line each: a level, and a macro for each level.
//!
//! The level is global, because messages come from everywhere. It is off until
//! [`init`] sets it, so an embedded store logs nothing.
//!
//! Invariants:
//! * A message is one line: control characters are escaped, so no peer can forge a
//!   line or control a terminal (`a_message_is_one_line`).
//! * Logging never blocks. A message that stderr cannot take at once is dropped, and
//!   the next message that fits is preceded by the number of dropped ones
//!   (`a_full_pipe_drops_messages_and_counts_them`). Making stderr non-blocking
//!   would not do: it would change stderr for all processes that share it.

use std::fmt;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::poll::{self, PollFd};

/// How important a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As a limit, it turns all messages off.
    Off,
    /// Something failed, and somebody has to look after it.
    Error,
    /// Something unusual was handled.
    Warn,
    /// What an operator wants to know about a healthy server.
    Info,
    /// Clients that connect and disconnect, at most ten messages a second.
    Debug,
    /// Each request.
    Trace,
}

const LEVELS: [Level; 6] =
    [Level::Off, Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
/// Maximum length of a message; the rest is cut off. It is `PIPE_BUF`: POSIX
/// guarantees that a writable pipe takes that many bytes at once.
const TEXT_BYTES_MAX: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// Maximum number of messages of a level in a second that [`write_limited`] writes.
const LIMITED_MAX: u32 = 10;
/// The last second with such a message, and their number in it.
type Limit = (AtomicU64, AtomicU32);

static MAX_LEVEL: AtomicU8 = AtomicU8::new(Level::Off as u8);
/// Number of messages that were dropped since the last one that was written.
static DROPPED: AtomicU64 = AtomicU64::new(0);
static LIMITS: [Limit; LEVELS.len()] =
    [const { (AtomicU64::new(0), AtomicU32::new(0)) }; LEVELS.len()];

impl FromStr for Level {
    type Err = String;

    fn from_str(name: &str) -> Result<Level, String> {
        let is_named = |level: &Level| format!("{level:?}").eq_ignore_ascii_case(name);
        LEVELS.into_iter().find(is_named).ok_or_else(|| {
            let names = "off, error, warn, info, debug, trace";
            format!("no level is called '{}': use one of {names}", name.escape_debug())
        })
    }
}

/// Shows messages up to this level from now on.
pub fn init(max_level: Level) {
    MAX_LEVEL.store(max_level as u8, Relaxed);
}

/// Whether messages of this level are shown.
pub fn is_shown(level: Level) -> bool {
    level as u8 <= MAX_LEVEL.load(Relaxed)
}

/// Writes a message if its level is shown.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    if is_shown(level) {
        // Locked from `poll` to `write`, so that no other thread fills the pipe in between.
        write_to(&mut std::io::stderr().lock(), level, &message.to_string(), &DROPPED);
    }
}

fn write_to(out: &mut (impl Write + AsRawFd), level: Level, message: &str, dropped: &AtomicU64) {
    if !is_writable(out) {
        dropped.fetch_add(1, Relaxed);
        return;
    }
    let text = text(since_1970(), level, message, dropped.swap(0, Relaxed));
    // A failure to log cannot be logged.
    let _ = out.write_all(text.as_bytes());
}

/// Whether a stream takes a message without waiting.
pub fn is_writable(out: &impl AsRawFd) -> bool {
    let mut fds = [PollFd::new(out.as_raw_fd(), false, true)];
    poll::wait(&mut fds, Duration::ZERO).is_ok() && fds[0].is_writable()
}

/// Writes a message that a peer, or a lasting error, can cause again and again, unless
/// its level had too many of them in this second.
pub fn write_limited(level: Level, message: fmt::Arguments<'_>) {
    if is_shown(level) && is_within_limit(&LIMITS[level as usize], since_1970().as_secs()) {
        write(level, message);
    }
}

/// Counts a message. Returns false if there were too many in this second. Threads that
/// begin a second together may exceed the limit.
fn is_within_limit((last, count): &Limit, second: u64) -> bool {
    if last.swap(second, Relaxed) != second {
        count.store(0, Relaxed);
    }
    count.fetch_add(1, Relaxed) < LIMITED_MAX
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The line of a message, after a line about dropped messages if there were any.
fn text(now: Duration, level: Level, message: &str, dropped: u64) -> String {
    let mut lines = String::new();
    if dropped > 0 {
        let message = format!("{dropped} messages were dropped, because stderr was full");
        lines = text(now, Level::Warn, &message, 0);
    }
    let name = format!("{level:?}").to_uppercase();
    lines += &format!("{} {name:5} {}", timestamp(now), escape(message));
    while lines.len() >= TEXT_BYTES_MAX {
        lines.pop();
    }
    lines + "\n"
}

/// Escapes control characters.
pub fn escape(text: &str) -> String {
    let escape = |char: char| match char.is_control() {
        true => char.escape_default().to_string(),
        false => char.to_string(),
    };
    text.chars().map(escape).collect()
}

/// A time since 1970 as in RFC 3339, in UTC, with milliseconds.
fn timestamp(time: Duration) -> String {
    let (second, millis) = (time.as_secs(), time.subsec_millis());
    let (year, month, day) = civil_from_days(second / 86_400);
    let (hour, minute, second) = (second / 3_600 % 24, second / 60 % 60, second % 60);
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

/// Writes a message. Its arguments are only evaluated if its level is shown.
macro_rules! log_at {
    ($level:ident, $($message:tt)+) => {
        if $crate::logger::is_shown($crate::logger::Level::$level) {
            $crate::logger::write($crate::logger::Level::$level, format_args!($($message)+));
        }
    };
}
macro_rules! log_error { ($($message:tt)+) => { $crate::logger::log_at!(Error, $($message)+) } }
macro_rules! log_warn { ($($message:tt)+) => { $crate::logger::log_at!(Warn, $($message)+) } }
macro_rules! log_info { ($($message:tt)+) => { $crate::logger::log_at!(Info, $($message)+) } }
macro_rules! log_trace { ($($message:tt)+) => { $crate::logger::log_at!(Trace, $($message)+) } }
pub(crate) use {
    log_at, log_error as error, log_info as info, log_trace as trace, log_warn as warn,
};

#[cfg(test)]
#[path = "logger_tests.rs"]
mod tests;
