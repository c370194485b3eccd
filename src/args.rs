//! A lexer for command lines: flags, their values, and words.
//!
//! A program takes one [`Arg`] at a time. After a flag with a value it calls
//! [`value`](Lexer::value), which accepts `--flag value` and `--flag=value`. All
//! arguments after `--` are words.
//!
//! This file knows no particular flag, and prints nothing. Clusters of short flags
//! (`-vh`) and values attached to them (`-v1`) are errors, because no flag of these
//! programs needs them.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// `-v`
    Short(char),
    /// `--flag`, without dashes and value.
    Long(String),
    /// Any other argument.
    Word(String),
}

/// A fault in the arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgsError {
    /// This argument is not UTF-8.
    NotUtf8(String),
    /// This flag needs a value.
    MissingValue(String),
    /// This flag takes no value.
    UnexpectedValue(String),
    /// There is no such flag.
    UnknownFlag(String),
    /// A flag, a value that it cannot have, and the reason.
    BadValue(String, String, String),
    /// The words are wrong, for this reason.
    Words(String),
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArgsError::NotUtf8(arg) => write!(f, "the argument '{arg}' is not UTF-8"),
            ArgsError::MissingValue(flag) => write!(f, "{flag} needs a value"),
            ArgsError::UnexpectedValue(flag) => write!(f, "{flag} takes no value"),
            ArgsError::UnknownFlag(flag) => write!(f, "there is no flag '{flag}'"),
            ArgsError::BadValue(flag, value, reason) => {
                write!(f, "{flag} cannot be '{value}': {reason}")
            }
            ArgsError::Words(reason) => write!(f, "{reason}"),
        }
    }
}

impl Error for ArgsError {}

/// The arguments of a program.
pub struct Lexer<I> {
    /// The remaining arguments.
    args: I,
    /// The last flag, with its dashes, for messages.
    flag: String,
    /// The text after its `=`, until [`value`](Self::value) takes it.
    value: Option<String>,
    /// Whether there was a `--`.
    words_only: bool,
}

impl<I: Iterator<Item = OsString>> Lexer<I> {
    /// A lexer for arguments without the program's name.
    pub fn new(args: I) -> Lexer<I> {
        Lexer { args, flag: String::new(), value: None, words_only: false }
    }

    /// Returns the next argument, or `None` after the last.
    #[expect(clippy::should_implement_trait, reason = "an iterator's `next` cannot fail")]
    pub fn next(&mut self) -> Result<Option<Arg>, ArgsError> {
        if self.value.is_some() {
            return Err(ArgsError::UnexpectedValue(shown(&self.flag)));
        }
        let Some(arg) = self.next_text()? else { return Ok(None) };
        if self.words_only || arg == "-" || !arg.starts_with('-') {
            return Ok(Some(Arg::Word(arg)));
        }
        if arg == "--" {
            self.words_only = true;
            return self.next();
        }
        self.flag_of(arg).map(Some)
    }

    /// Whether all further arguments are words.
    pub fn is_words_only(&self) -> bool {
        self.words_only
    }

    /// Returns the value of the last flag.
    pub fn value(&mut self) -> Result<String, ArgsError> {
        if let Some(value) = self.value.take() {
            return Ok(value);
        }
        self.next_text()?.ok_or_else(|| ArgsError::MissingValue(shown(&self.flag)))
    }

    /// Returns the value of the last flag, parsed.
    pub fn parsed_value<T>(
        &mut self,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ArgsError> {
        let value = self.value()?;
        parse(&value)
            .map_err(|reason| ArgsError::BadValue(shown(&self.flag), shown(&value), reason))
    }

    /// The error if the program does not know the last flag.
    pub fn unknown(&self) -> ArgsError {
        ArgsError::UnknownFlag(shown(&self.flag))
    }

    /// Returns the next argument as text.
    fn next_text(&mut self) -> Result<Option<String>, ArgsError> {
        let text = self.args.next().map(OsString::into_string).transpose();
        text.map_err(|arg| ArgsError::NotUtf8(shown(&arg.to_string_lossy())))
    }

    /// Splits an argument that begins with a dash.
    fn flag_of(&mut self, arg: String) -> Result<Arg, ArgsError> {
        if let Some(long) = arg.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            self.flag = format!("--{name}");
            self.value = value;
            return Ok(Arg::Long(name.to_owned()));
        }
        let mut chars = arg.chars().skip(1);
        match (chars.next(), chars.next()) {
            (Some(short), None) => {
                self.flag = arg;
                Ok(Arg::Short(short))
            }
            _ => Err(ArgsError::UnknownFlag(shown(&arg))),
        }
    }
}

/// An argument as messages show it, with escaped control characters.
fn shown(text: &str) -> String {
    text.escape_debug().to_string()
}

/// Parses a number of bytes: digits, then maybe `K`, `M` or `G` for powers of 1,024.
///
/// # Errors
///
/// A description of valid numbers.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: Option<u64> = digits.parse().ok().filter(|_| is_number);
    number
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| "it has to be a number of bytes such as 4096, 64K, 1M or 2G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lexer for these words.
    fn lexer(words: &str) -> Lexer<impl Iterator<Item = OsString>> {
        Lexer::new(words.split_whitespace().map(OsString::from).collect::<Vec<_>>().into_iter())
    }

    /// All arguments, if no flag has a value.
    fn args(words: &str) -> Result<Vec<Arg>, ArgsError> {
        let mut lexer = lexer(words);
        std::iter::from_fn(|| lexer.next().transpose()).collect()
    }

    fn word(text: &str) -> Arg {
        Arg::Word(text.to_owned())
    }

    #[test]
    fn flags_and_words_come_in_any_order() {
        let long = Arg::Long("long".to_owned());
        assert_eq!(
            args("a -v - --long b"),
            Ok(vec![word("a"), Arg::Short('v'), word("-"), long, word("b")])
        );
        assert_eq!(args(""), Ok(vec![]));
        assert_eq!(
            args("a -- -v -- --x=1"),
            Ok(vec![word("a"), word("-v"), word("--"), word("--x=1")])
        );
    }

    #[test]
    fn values_follow_a_blank_or_an_equals_sign() {
        for words in ["--addr a=b c", "--addr=a=b c"] {
            let mut lexer = lexer(words);
            assert_eq!(lexer.next(), Ok(Some(Arg::Long("addr".to_owned()))));
            assert_eq!(lexer.value(), Ok("a=b".to_owned()));
            assert_eq!(lexer.next(), Ok(Some(word("c"))));
            assert_eq!(lexer.next(), Ok(None));
        }
        let mut lexer = lexer("--addr=");
        lexer.next().unwrap();
        assert_eq!(lexer.value(), Ok(String::new()));
    }

    #[test]
    fn faults_are_described() {
        let mut missing = lexer("--addr");
        missing.next().unwrap();
        assert_eq!(missing.value().unwrap_err().to_string(), "--addr needs a value");
        let error = missing.parsed_value(parse_size).unwrap_err();
        assert_eq!(error.to_string(), "--addr needs a value");
        assert_eq!(missing.unknown().to_string(), "there is no flag '--addr'");
        let mut bad = lexer("--cache=1\u{1b}");
        bad.next().unwrap();
        assert_eq!(
            bad.parsed_value(parse_size).unwrap_err().to_string(),
            "--cache cannot be '1\\u{1b}': it has to be a number of bytes such as 4096, 64K, 1M or 2G"
        );
        assert_eq!(args("--help=x a").unwrap_err().to_string(), "--help takes no value");
        assert_eq!(args("-vh").unwrap_err().to_string(), "there is no flag '-vh'");
    }

    #[test]
    fn arguments_must_be_utf8() {
        use std::os::unix::ffi::OsStringExt;
        let mut lexer = Lexer::new(std::iter::once(OsString::from_vec(b"a\xff".to_vec())));
        let error = lexer.next().unwrap_err().to_string();
        assert_eq!(error, "the argument 'a\u{fffd}' is not UTF-8");
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, size) in
            [("0", 0), ("4096", 4096), ("64K", 65_536), ("1m", 1 << 20), ("2G", 2 << 30)]
        {
            assert_eq!(parse_size(text), Ok(size));
        }
        for text in ["", "K", "1KB", "-1", "+1", "1.5M", "18446744073709551615K", "\u{e9}"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
