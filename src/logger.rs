//! Messages on stderr: five macros and a level, one line each.
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
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

/// Messages of a level in a second that are written by [`write_limited`].
const LIMITED_MAX: u32 = 10;
/// When a second has begun, and the messages in it.
type Limit = Mutex<Option<(Instant, u32)>>;
/// The limit of each level.
static LIMITS: [Limit; LEVELS.len()] = [const { Mutex::new(None) }; LEVELS.len()];

static MAX_LEVEL: AtomicU8 = AtomicU8::new(Level::Off as u8);
/// Number of dropped messages. The lock is held from `poll` to `write`, so that no
/// other thread fills the pipe in between.
static DROPPED: Mutex<u64> = Mutex::new(0);

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
    MAX_LEVEL.store(max_level as u8, Ordering::Relaxed);
}

/// Whether messages of this level are shown.
pub fn is_shown(level: Level) -> bool {
    level as u8 <= MAX_LEVEL.load(Ordering::Relaxed)
}

/// Writes a message. The macros call it if the level is shown.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    let mut dropped = DROPPED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    write_to(&mut std::io::stderr(), level, &message.to_string(), &mut dropped);
}

/// Whether a stream takes a message without waiting.
pub fn is_writable(out: &impl AsRawFd) -> bool {
    let mut fds = [PollFd::new(out.as_raw_fd(), false, true)];
    poll::wait(&mut fds, Duration::ZERO).is_ok() && fds[0].is_writable()
}

fn write_to(out: &mut (impl Write + AsRawFd), level: Level, message: &str, dropped: &mut u64) {
    if !is_writable(out) {
        *dropped += 1;
        return;
    }
    // A failure to log cannot be logged.
    let _ = out.write_all(text(SystemTime::now(), level, message, *dropped).as_bytes());
    *dropped = 0;
}

/// The line of a message, after a line about dropped messages if there were any.
fn text(now: SystemTime, level: Level, message: &str, dropped: u64) -> String {
    let line = |level: Level, message: &str| {
        let name = format!("{level:?}").to_uppercase();
        format!("{} {name:5} {}", timestamp(now), escape(message))
    };
    let mut text = String::new();
    if dropped > 0 {
        let message = format!("{dropped} messages were dropped, because stderr was full");
        text = line(Level::Warn, &message) + "\n";
    }
    text += &line(level, message);
    while text.len() >= TEXT_BYTES_MAX {
        text.pop();
    }
    text + "\n"
}

/// Escapes control characters.
pub fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        match char.is_control() {
            true => escaped.extend(char.escape_default()),
            false => escaped.push(char),
        }
    }
    escaped
}

/// A time as in RFC 3339, in UTC, with milliseconds.
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

/// Writes a message that a peer, or a lasting error, can cause again and again, unless
/// its level had too many of them in this second.
pub fn write_limited(level: Level, message: fmt::Arguments<'_>) {
    if is_shown(level) && take(&LIMITS[level as usize], Instant::now()) {
        write(level, message);
    }
}

/// Counts a message in the second in which it is. Returns false if there were too many.
fn take(limit: &Limit, now: Instant) -> bool {
    let mut limit = limit.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (second, count) = limit.get_or_insert((now, 0));
    if now.duration_since(*second) >= Duration::from_secs(1) {
        (*second, *count) = (now, 0);
    }
    *count += 1;
    *count <= LIMITED_MAX
}

/// Writes a message, and formats it only if its level is shown.
#[doc(hidden)]
#[macro_export]
macro_rules! log_at {
    ($level:ident, $($message:tt)+) => {
        if $crate::logger::is_shown($crate::logger::Level::$level) {
            $crate::logger::write($crate::logger::Level::$level, format_args!($($message)+));
        }
    };
}
#[doc(hidden)]
#[macro_export]
macro_rules! log_error { ($($message:tt)+) => { $crate::log_at!(Error, $($message)+) } }
#[doc(hidden)]
#[macro_export]
macro_rules! log_warn { ($($message:tt)+) => { $crate::log_at!(Warn, $($message)+) } }
#[doc(hidden)]
#[macro_export]
macro_rules! log_info { ($($message:tt)+) => { $crate::log_at!(Info, $($message)+) } }
#[doc(hidden)]
#[macro_export]
macro_rules! log_debug { ($($message:tt)+) => { $crate::log_at!(Debug, $($message)+) } }
#[doc(hidden)]
#[macro_export]
macro_rules! log_trace { ($($message:tt)+) => { $crate::log_at!(Trace, $($message)+) } }

pub use crate::{
    log_debug as debug, log_error as error, log_info as info, log_trace as trace, log_warn as warn,
};

#[cfg(test)]
#[path = "logger_tests.rs"]
mod tests;
