//! Lines out of bytes, however they are cut.

use super::*;

/// Bytes that the tests' lines may have.
const LINE_BYTES_MAX: usize = 8;

/// Everything that comes of `chunks`, one after the other, and of their end.
fn pieces(chunks: &[&[u8]]) -> Vec<String> {
    let mut inbox = Inbox::new(LINE_BYTES_MAX);
    let mut seen = Vec::new();
    for chunk in chunks {
        inbox.take_in(chunk);
        hand_out(&mut inbox, &mut seen);
        inbox.commit();
    }
    inbox.end();
    hand_out(&mut inbox, &mut seen);
    seen
}

/// Notes all pieces that answers are due for.
fn hand_out(inbox: &mut Inbox, seen: &mut Vec<String>) {
    while inbox.is_pending() {
        match inbox.pieces().next() {
            Piece::Nothing | Piece::Wait | Piece::End => {}
            Piece::Line(line) => seen.push(String::from_utf8_lossy(line).into_owned()),
            Piece::TooLong(_) => seen.push("TooLong".to_owned()),
            piece => seen.push(format!("{piece:?}")),
        }
    }
}

#[test]
fn lines_are_the_same_wherever_they_are_split() {
    let input = b"one\r\n\ntwo\n\r\n12345678\n12345678\r\n123456789\n\
        12345678\r\r\n0123456789abcdef\nthree\rx\n\0\xff\ncut";
    let whole = pieces(&[input]);
    assert_eq!(
        whole,
        [
            "one",
            "two",
            "12345678",
            "12345678",
            "TooLong",
            "TooLong",
            "TooLong",
            "three\rx",
            "\0\u{fffd}",
            "CutOff"
        ]
    );
    for first in 0..input.len() {
        assert_eq!(pieces(&[&input[..first], &input[first..]]), whole, "at {first}");
        for second in first..input.len() {
            let chunks = [&input[..first], &input[first..second], &input[second..]];
            assert_eq!(pieces(&chunks), whole, "at {first} and {second}");
        }
    }
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(pieces(&bytes), whole, "byte by byte");
}

#[test]
fn how_a_line_over_the_limit_begins_is_told_alike_wherever_it_is_split() {
    for split in 0..=12 {
        let mut inbox = Inbox::new(4);
        let (mut begins, (head, tail)) = (Vec::new(), b"Host: x:80\r\n".split_at(split));
        for chunk in [head, tail] {
            inbox.take_in(chunk);
            while inbox.is_pending() {
                if let Piece::TooLong(bytes) = inbox.pieces().next() {
                    begins.extend_from_slice(bytes);
                }
            }
        }
        assert_eq!(begins, b"Host:", "at {split}");
    }
}

#[test]
fn the_end_cuts_off_no_more_than_a_line() {
    assert_eq!(pieces(&[b"a\n"]), ["a"]);
    assert_eq!(pieces(&[b"a\nb"]), ["a", "CutOff"]);
    assert_eq!(pieces(&[b"\r"]), Vec::<String>::new());
    assert_eq!(pieces(&[b"0123456789abcdef"]), ["TooLong"]);
    assert_eq!(pieces(&[b""]), Vec::<String>::new());
}

#[test]
fn an_endless_line_needs_no_more_memory_than_a_line() {
    let mut inbox = Inbox::new(LINE_BYTES_MAX);
    inbox.take_in(b"0123456789");
    assert_eq!(inbox.pieces().next(), Piece::TooLong(b"012345678"));
    for _ in 0..1000 {
        inbox.commit();
        inbox.take_in(b"0123456789");
        assert_eq!(inbox.pieces().next(), Piece::Wait);
    }
    assert!(inbox.bytes.capacity() <= LINE_BYTES_MAX + 1 + 10);
    inbox.take_in(b"\nPING\n");
    assert_eq!(inbox.pieces().next(), Piece::Nothing);
    assert_eq!(inbox.pieces().next(), Piece::Line(b"PING"));
}

#[test]
fn a_rollback_hands_the_same_out_again() {
    let mut inbox = Inbox::new(LINE_BYTES_MAX);
    inbox.take_in(b"a\nb\n0123456789");
    assert_eq!(inbox.pieces().next(), Piece::Line(b"a"));
    inbox.commit();
    for _ in 0..2 {
        assert_eq!(inbox.pieces().next(), Piece::Line(b"b"));
        assert_eq!(inbox.pieces().next(), Piece::TooLong(b"012345678"));
        assert_eq!(inbox.pieces().next(), Piece::Wait);
        assert_eq!(inbox.rollback(), 12);
        assert!(inbox.is_pending());
    }
}

/// A long line must get in before it can be found to be too long; one that is
/// executed stays until the commit, and others beside it only as far as a line's length.
#[test]
fn what_waits_for_the_commit_does_not_let_more_in_than_a_line_may_have() {
    let mut inbox = Inbox::new(LINE_BYTES_MAX);
    inbox.take_in(b"012345678901234");
    assert!(inbox.has_room());
    inbox.clear();
    inbox.take_in(b"a\nb\n\n\n\n\n");
    assert_eq!(inbox.pieces().next(), Piece::Line(b"a"));
    assert!(inbox.bytes.len() == LINE_BYTES_MAX && inbox.has_room());
    inbox.take_in(b"c");
    assert!(!inbox.has_room());
    inbox.commit();
    assert!(inbox.has_room());
}

#[test]
fn no_byte_is_searched_twice() {
    let mut inbox = Inbox::new(1 << 20);
    for length in 1..1000 {
        inbox.take_in(b"x");
        assert_eq!(inbox.pieces().next(), Piece::Wait);
        inbox.commit();
        assert_eq!(inbox.place.scanned, length);
    }
}
