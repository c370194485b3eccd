//! Tokens: the words of a line, bare or quoted, and their escapes.
//!
//! Invariants:
//! * [`Tokens`] decodes what [`push_token`] encodes, for every string
//!   (`every_string_comes_back`).
//! * What is escaped by [`char::is_control`] has no control character
//!   (`no_control_character_is_sent`). So no value can end a line or control a terminal.

use std::borrow::Cow;

const UTF16_ESCAPE_BYTES: usize = r"\uXXXX".len();
/// The letters of the short escapes, and the characters that they stand for.
const LETTERS: &[u8; 8] = br#""\/bfnrt"#;
const CHARS: &[u8; 8] = b"\"\\/\x08\x0C\n\r\t";

/// Number of bytes that [`plain_len`] tests together.
const CHUNK_BYTES: usize = 32;

/// Returns true for bytes that need a closer look: blanks, quotes, backslashes, control
/// characters, and 0xC2, which may begin one. `|` instead of `||` avoids branches, so
/// that the compiler tests many bytes at once.
fn is_special(byte: u8) -> bool {
    (byte <= b' ') | (byte == b'"') | (byte == b'\\') | (byte == 0x7F) | (byte == 0xC2)
}

/// The number of bytes before the first special one.
fn plain_len(bytes: &[u8]) -> usize {
    // `fold` instead of `any`, which would branch after each byte.
    let is_plain =
        |chunk: &&[u8; CHUNK_BYTES]| !chunk.iter().fold(false, |any, byte| any | is_special(*byte));
    let start = CHUNK_BYTES * bytes.as_chunks().0.iter().take_while(is_plain).count();
    start + bytes[start..].iter().take_while(|byte| !is_special(**byte)).count()
}

pub(super) const BLANKS: [char; 2] = [' ', '\t'];

/// Decodes the tokens of a line, in order. Do not use it after an error, which says what
/// is wrong at which byte of the line, counted from 1.
pub(super) struct Tokens<'a> {
    /// The length of the whole line.
    pub(super) len: usize,
    /// The part of the line that is not decoded yet.
    pub(super) rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Result<Cow<'a, str>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rest = self.rest.trim_start_matches(BLANKS);
        let (plain, rest) = self.rest.split_at(plain_len(self.rest.as_bytes()));
        if rest.is_empty() || rest.starts_with(BLANKS) {
            self.rest = rest;
            return (!plain.is_empty()).then_some(Ok(Cow::Borrowed(plain)));
        }
        Some(self.next_escaped().map(Cow::Owned))
    }
}

impl<'a> Tokens<'a> {
    /// A token that is quoted, or has an escape or a character that needs a closer look.
    fn next_escaped(&mut self) -> Result<String, String> {
        let is_quoted = self.rest.starts_with('"');
        self.rest = self.rest.strip_prefix('"').unwrap_or(self.rest);
        let mut token = String::new();
        loop {
            let (plain, rest) = self.rest.split_at(plain_len(self.rest.as_bytes()));
            token.push_str(plain);
            self.rest = rest;
            let (char, len) = match rest.chars().next() {
                None if is_quoted => return Err("a quoted word has no closing quote".to_owned()),
                None => break,
                Some(' ' | '\t') if !is_quoted => break,
                Some('"') if is_quoted => break,
                Some('"') => return Err(self.error("a quote inside a bare word")),
                Some('\\') => unescape(rest).ok_or_else(|| self.error("no such escape"))?,
                // JSON permits DEL and C1 in a string, and encoders write them.
                Some(char) if char < ' ' || (char.is_control() && !is_quoted) => {
                    return Err(self.error("a control character") + "; escape it");
                }
                Some(char) => (char, char.len_utf8()),
            };
            token.push(char);
            self.rest = &rest[len..];
        }
        self.rest = self.rest.strip_prefix('"').unwrap_or(self.rest);
        if self.rest.is_empty() || self.rest.starts_with(BLANKS) {
            return Ok(token);
        }
        Err(self.error("no blank after a closing quote,"))
    }

    fn error(&self, what: &str) -> String {
        format!("{what} at byte {}", self.len - self.rest.len() + 1)
    }
}

/// The character of the escape at the start of `text`, and the escape's length.
fn unescape(text: &str) -> Option<(char, usize)> {
    let letter = text.as_bytes().get(1)?;
    if let Some(at) = LETTERS.iter().position(|it| it == letter) {
        return Some((char::from(CHARS[at]), r"\n".len()));
    }
    let first = utf16_unit(text)?;
    // Used only if the first unit is one half of a surrogate pair.
    let second = utf16_unit(&text[UTF16_ESCAPE_BYTES..]);
    let char = char::decode_utf16(std::iter::once(first).chain(second)).next()?.ok()?;
    Some((char, char.len_utf16() * UTF16_ESCAPE_BYTES))
}

/// The number in the `\uXXXX` at the start of `text`.
fn utf16_unit(text: &str) -> Option<u16> {
    // `u16::from_str_radix` would accept a sign.
    let mut digits = text.strip_prefix(r"\u")?.get(..4)?.chars().map(|digit| digit.to_digit(16));
    digits.try_fold(0, |unit, digit| Some(16 * unit + digit? as u16))
}

/// Appends a string as a token: bare if possible, else quoted.
pub(super) fn push_token(out: &mut Vec<u8>, text: &str, must_escape: impl Fn(char) -> bool) {
    match !text.is_empty() && plain_len(text.as_bytes()) == text.len() {
        true => out.extend_from_slice(text.as_bytes()),
        false => push_quoted(out, text, must_escape),
    }
}

/// Appends a JSON string. Also escapes quotes and backslashes.
pub(super) fn push_quoted(out: &mut Vec<u8>, text: &str, must_escape: impl Fn(char) -> bool) {
    out.push(b'"');
    push_escaped(out, text, |char| must_escape(char) || matches!(char, '"' | '\\'));
    out.push(b'"');
}

/// Appends text. Escapes the characters for which `must_escape` is true.
pub(super) fn push_escaped(out: &mut Vec<u8>, text: &str, must_escape: impl Fn(char) -> bool) {
    let mut end = 0;
    for (at, char) in text.char_indices().filter(|(_, char)| must_escape(*char)) {
        out.extend_from_slice(&text.as_bytes()[end..at]);
        match CHARS.iter().position(|it| char::from(*it) == char) {
            Some(nth) => out.extend([b'\\', LETTERS[nth]]),
            None => out.extend(format!("\\u{:04x}", u32::from(char)).bytes()),
        }
        end = at + char.len_utf8();
    }
    out.extend_from_slice(&text.as_bytes()[end..]);
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
