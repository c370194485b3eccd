//! Lines out of bytes, whatever their splits.

use super::*;

impl Input {
    /// Bytes of memory.
    pub(in crate::server) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Makes the buffer larger than needed.
    pub(in crate::server) fn reserve(&mut self, capacity: usize) {
        self.bytes.reserve(capacity);
    }
}

/// Maximum length of the tests' lines.
const LIMIT: usize = 8;

/// All lines of these chunks and the end of the input, each as a text.
fn lines(chunks: &[&[u8]]) -> Vec<String> {
    let mut input = Input::default();
    let mut seen = Vec::new();
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()).chain([&&b""[..]]) {
        input.append(chunk);
        while input.is_pending() {
            seen.extend(input.next_lines(32, LIMIT).iter().map(text));
        }
        input.discard_consumed(LIMIT);
    }
    seen
}

/// A line for people.
fn text(line: &Line<'_>) -> String {
    match &line.request {
        Ok(request) => format!("{} {:?}", request.parts().0, line.ending),
        Err(fault) => format!("{} {:?}", fault.code.as_str(), line.ending),
    }
}

#[test]
fn lines_do_not_depend_on_splits() {
    let input = b"PING\r\n\nGET a\n\r\nSET a 12\n SET a 1\r\nSET a 123\n12345678\r\r\n\
        0123456789abcdef\r\n0123456789\r0\nGET \xff\nPOST 56789\r\ncut";
    let whole = lines(&[input]);
    let expected = [
        "PING CrLf",
        "GET Lf",
        "SET Lf",
        "SET CrLf",
        "too-long Lf",
        "too-long CrLf",
        "too-long CrLf",
        "too-long Lf",
        "utf8 Lf",
        "http CrLf",
        "incomplete Lf",
    ];
    assert_eq!(whole, expected);
    for first in 0..input.len() {
        for second in first..input.len() {
            let chunks = [&input[..first], &input[first..second], &input[second..]];
            assert_eq!(lines(&chunks), whole, "split at {first} and {second}");
        }
    }
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(lines(&bytes), whole, "byte by byte");
}

#[test]
fn the_end_cuts_off_at_most_a_line() {
    assert_eq!(lines(&[b"PING\n"]), ["PING Lf"]);
    assert_eq!(lines(&[b"PING\nP"]), ["PING Lf", "incomplete Lf"]);
    assert!(lines(&[b"\r"]).is_empty());
    assert_eq!(lines(&[b"0123456789abcdef"]), ["too-long Lf"]);
    assert_eq!(lines(&[b"0123456789abcdef", b"\r"]), ["too-long Lf"]);
    assert_eq!(lines(&[b"SE HTTP/1.1 x\n"]), ["too-long Lf"], "no last word, as it is cut");
    assert!(lines(&[]).is_empty());
}

#[test]
fn no_more_lines_are_decoded_than_asked() {
    let mut input = Input::default();
    input.append(&b"PING\n".repeat(9));
    assert_eq!(input.next_lines(8, LIMIT).len(), 8);
    assert!(input.is_pending());
    assert_eq!(input.next_lines(8, LIMIT).len(), 1);
    assert!(!input.is_pending());
}

#[test]
fn rewinding_returns_the_same_lines_again() {
    let mut input = Input::default();
    input.append(b"PING\nGET a\n0123456789");
    assert_eq!(input.next_lines(1, LIMIT).len(), 1);
    for _ in 0..2 {
        let lines = input.next_lines(9, LIMIT);
        assert_eq!(lines.iter().map(text).collect::<Vec<_>>(), ["GET Lf"]);
        let start = lines[0].start;
        input.rewind(start);
        assert!(input.is_pending());
    }
    assert_eq!(input.next_lines(9, LIMIT).len(), 1);
    input.append(b"\n");
    assert_eq!(text(&input.next_lines(9, LIMIT)[0]), "too-long Lf");
}

#[test]
fn an_endless_line_needs_little_memory() {
    let mut input = Input::default();
    for _ in 0..1_000 {
        input.append(b"0123456789");
        assert!(input.next_lines(9, LIMIT).is_empty());
        assert!(input.capacity() <= 2 * (LIMIT + 12));
        input.discard_consumed(LIMIT);
        assert!(input.capacity() <= LIMIT + 2);
    }
    input.append(b"\r\nPING\n");
    let seen: Vec<_> = input.next_lines(9, LIMIT).iter().map(text).collect();
    assert_eq!(seen, ["too-long CrLf", "PING Lf"]);
}

#[test]
fn no_byte_is_searched_twice() {
    let mut input = Input::default();
    for len in 1..1_000 {
        input.append(b"x");
        assert!(input.next_lines(9, 1 << 20).is_empty());
        input.discard_consumed(1 << 20);
        assert_eq!(input.scanned, len);
    }
}
