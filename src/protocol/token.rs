//! Tokens: the words of a line, bare or quoted, and their escapes.
//!
//! The grammar is in [`protocol`](super). This file does not know what a line
//! of tokens means.
//!
//! Invariants:
//! * [`Tokens`] decodes what [`push_token`] encodes, for every string
//!   (`every_string_comes_back`).
//! * [`push_token`] and [`push_text`] never write a control character
//!   (`no_control_character_is_sent`). So no value can end a line or control a
//!   terminal.

use std::borrow::Cow;

/// Maximum length of an escape, divided by the length of its character:
/// `\u001b` has six bytes for one.
pub(super) const ESCAPE_FACTOR_MAX: usize = 6;

/// Number of bytes that [`plain_len`] tests together.
const CHUNK_BYTES: usize = 32;

/// Whether a byte of UTF-8 needs a closer look: blanks, quotes, backslashes,
/// control characters, and 0xC2, which may begin one. `|` instead of `||`
/// avoids branches, so that the compiler tests many bytes at once.
const fn is_special(byte: u8) -> bool {
    (byte <= b' ') | (byte == b'"') | (byte == b'\\') | (byte == 0x7F) | (byte == 0xC2)
}

/// The number of bytes before the first special one.
fn plain_len(bytes: &[u8]) -> usize {
    let (chunks, _) = bytes.as_chunks::<CHUNK_BYTES>();
    // `fold` instead of `any`, which would branch after each byte.
    let is_any_special =
        |chunk: &[u8; CHUNK_BYTES]| chunk.iter().fold(false, |any, byte| any | is_special(*byte));
    let start = CHUNK_BYTES * chunks.iter().take_while(|chunk| !is_any_special(chunk)).count();
    start + bytes[start..].iter().take_while(|byte| !is_special(**byte)).count()
}

/// Whether a byte is a blank.
pub(super) fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// The tokens of a line, in order. Do not use it after an error.
pub(super) struct Tokens<'a> {
    /// The line, without its ending.
    line: &'a str,
    /// Offset of the next blank or token.
    at: usize,
}

impl<'a> Tokens<'a> {
    /// The tokens of `line` from the offset `at`.
    pub(super) fn new(line: &'a str, at: usize) -> Tokens<'a> {
        Tokens { line, at }
    }

    /// The next token, or `None` at the end of the line.
    ///
    /// # Errors
    ///
    /// What is wrong, and at which byte of the line, counted from 1.
    pub(super) fn next(&mut self) -> Result<Option<Cow<'a, str>>, String> {
        self.skip_blanks();
        let bytes = self.line.as_bytes();
        let start = self.at;
        let len = plain_len(&bytes[start..]);
        let end = start + len;
        if bytes.get(end).is_none_or(|byte| is_blank(*byte)) {
            self.at = end;
            return Ok((len > 0).then(|| Cow::Borrowed(&self.line[start..end])));
        }
        let token = if bytes[start] == b'"' { self.next_quoted() } else { self.next_bare() };
        token.map(|token| Some(Cow::Owned(token)))
    }

    /// The text before the next `=`, which is skipped; `None` if there is none.
    pub(super) fn next_name(&mut self) -> Option<&'a str> {
        self.skip_blanks();
        let (name, _) = self.rest().split_once('=')?;
        self.at += name.len() + 1;
        Some(name)
    }

    /// Whether only blanks are left.
    pub(super) fn is_at_end(&mut self) -> bool {
        self.skip_blanks();
        self.rest().is_empty()
    }

    /// Moves on to the next byte that is not a blank.
    fn skip_blanks(&mut self) {
        let blanks = self.rest().bytes().take_while(|byte| is_blank(*byte));
        self.at += blanks.count();
    }

    /// The part of the line that was not read.
    fn rest(&self) -> &'a str {
        &self.line[self.at..]
    }

    /// A bare token with an escape, or with characters that need a closer look.
    fn next_bare(&mut self) -> Result<String, String> {
        let mut token = String::new();
        loop {
            self.push_plain(&mut token);
            match self.rest().chars().next() {
                None | Some(' ' | '\t') => return Ok(token),
                Some('"') => return Err(self.error_here("a quote inside a bare word")),
                Some(char) if char.is_control() => return Err(self.control_character()),
                Some(char) => self.push_special(char, &mut token)?,
            }
        }
    }

    /// A quoted token.
    fn next_quoted(&mut self) -> Result<String, String> {
        let mut token = String::new();
        self.at += 1;
        loop {
            self.push_plain(&mut token);
            match self.rest().chars().next() {
                None => return Err("a quoted word has no closing quote".to_owned()),
                Some('"') => break,
                // JSON permits DEL and C1 in a string, and encoders write them.
                Some('\0'..='\x1F') => return Err(self.control_character()),
                Some(char) => self.push_special(char, &mut token)?,
            }
        }
        self.at += 1;
        match self.rest().bytes().next() {
            Some(byte) if !is_blank(byte) => {
                Err(self.error_here("no blank after a closing quote,"))
            }
            _ => Ok(token),
        }
    }

    /// Appends the plain characters that follow.
    fn push_plain(&mut self, token: &mut String) {
        let len = plain_len(self.rest().as_bytes());
        token.push_str(&self.rest()[..len]);
        self.at += len;
    }

    /// Appends the next character, `char`, or the one that its escape stands for.
    fn push_special(&mut self, char: char, token: &mut String) -> Result<(), String> {
        let (decoded, len) = match char {
            '\\' => unescape(self.rest()).ok_or_else(|| self.error_here("no such escape"))?,
            _ => (char, char.len_utf8()),
        };
        token.push(decoded);
        self.at += len;
        Ok(())
    }

    /// The error for a control character.
    fn control_character(&self) -> String {
        self.error_here("a control character") + "; escape it"
    }

    /// An error about the next byte.
    fn error_here(&self, what: &str) -> String {
        format!("{what} at byte {}", self.at + 1)
    }
}

/// The character of the escape at the start of `text`, and the escape's length.
fn unescape(text: &str) -> Option<(char, usize)> {
    let char = match text.as_bytes().get(1)? {
        same @ (b'"' | b'\\' | b'/') => char::from(*same),
        b'b' => '\x08',
        b'f' => '\x0C',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unescape_utf16(text),
        _ => return None,
    };
    Some((char, r"\n".len()))
}

/// As [`unescape`], for `\uXXXX` and surrogate pairs of them.
fn unescape_utf16(text: &str) -> Option<(char, usize)> {
    const ESCAPE_BYTES: usize = r"\uXXXX".len();
    let first = utf16_unit(text)?;
    if let Some(char) = char::from_u32(u32::from(first)) {
        return Some((char, ESCAPE_BYTES));
    }
    let second = utf16_unit(&text[ESCAPE_BYTES..])?;
    let char = char::decode_utf16([first, second]).next()?.ok()?;
    Some((char, 2 * ESCAPE_BYTES))
}

/// The number in the `\uXXXX` at the start of `text`.
fn utf16_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix(r"\u")?.get(..4)?;
    // `from_str_radix` alone would accept a sign.
    let is_number = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u16::from_str_radix(digits, 16).ok().filter(|_| is_number)
}

/// Appends a string as a token: bare if possible, else quoted.
pub(super) fn push_token(out: &mut Vec<u8>, text: &str) {
    if !text.is_empty() && plain_len(text.as_bytes()) == text.len() {
        return out.extend_from_slice(text.as_bytes());
    }
    push_quoted(out, text);
}

/// Appends a string as a quoted token.
pub(super) fn push_quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    push_escaped(out, text, |char| matches!(char, '"' | '\\'));
    out.push(b'"');
}

/// Appends text whose control characters are escaped.
pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    push_escaped(out, text, |_| false);
}

/// Appends text. Escapes control characters, and those for which `must` is true.
fn push_escaped(out: &mut Vec<u8>, text: &str, must: impl Fn(char) -> bool) {
    let mut rest = text;
    while let Some(at) = rest.find(|char: char| char.is_control() || must(char)) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain.as_bytes());
        let mut chars = special.chars();
        out.extend(chars.next().map(escape).unwrap_or_default().into_bytes());
        rest = chars.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
}

/// The JSON escape of a character below U+10000.
fn escape(char: char) -> String {
    match char {
        '"' | '\\' => format!("\\{char}"),
        '\x08' => r"\b".to_owned(),
        '\x0C' => r"\f".to_owned(),
        '\n' => r"\n".to_owned(),
        '\r' => r"\r".to_owned(),
        '\t' => r"\t".to_owned(),
        _ => format!("\\u{:04x}", u32::from(char)),
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
