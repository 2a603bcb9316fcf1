//! Bytes from a socket become lines.
//!
//! The one rule: a line is complete or it waits. What is complete is given out whatever comes after it, also when that
//! is what the receiver stumbles over: a line without end, or bytes that are no text.

use std::fmt;

/// Gathers bytes until they are lines, in memory that one line bounds.
pub(super) struct LineBuffer {
    bytes: Vec<u8>,
    /// Bytes read and not given out.
    filled: usize,
    longest: usize,
}

/// What is no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// More bytes than a line may have.
    TooLong {
        /// How many it may have.
        longest: usize,
    },
    /// No UTF-8.
    NotText,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { longest } => {
                write!(f, "the source sent a line of more than {longest} bytes (max_line_bytes)")
            }
            Self::NotText => write!(f, "the source sent a line that is not UTF-8"),
        }
    }
}

impl LineBuffer {
    /// For lines of at most `longest` bytes, the newline not counted.
    pub(super) fn new(longest: usize) -> Self {
        Self { bytes: Vec::new(), filled: 0, longest }
    }

    /// Bytes of the line that has begun.
    pub(super) fn held(&self) -> usize {
        self.filled
    }

    /// Where the next bytes are to be read to: room for `most`.
    pub(super) fn room(&mut self, most: usize) -> &mut [u8] {
        if self.bytes.len() < self.filled + most {
            self.bytes.resize(self.filled + most, 0);
        }
        &mut self.bytes[self.filled..self.filled + most]
    }

    /// `read` bytes have been read to the room: the lines that are complete now, as text with all newlines, are given
    /// to `take`. After a fault the rest is of no use.
    pub(super) fn read(&mut self, read: usize, take: impl FnOnce(&str)) -> Option<Fault> {
        let before = self.filled;
        self.filled += read;
        let complete = memchr::memrchr(b'\n', &self.bytes[before..self.filled]).map_or(0, |last| before + last + 1);
        let (text, fault) = self.text(complete);
        if !text.is_empty() {
            take(text);
        }
        self.bytes.copy_within(complete..self.filled, 0);
        self.filled -= complete;
        fault.or((self.filled > self.longest).then_some(Fault::TooLong { longest: self.longest }))
    }

    /// The source has ended: what is left is a line too, as it is for whoever else reads lines.
    pub(super) fn end(&mut self, take: impl FnOnce(&str)) -> Option<Fault> {
        let (text, fault) = self.text(self.filled);
        if !text.is_empty() {
            take(text);
        }
        self.clear();
        fault
    }

    /// Forgets a line that has begun, and gives the room of a long one back.
    pub(super) fn clear(&mut self) {
        self.filled = 0;
        self.bytes = Vec::new();
    }

    /// The lines among the first `complete` bytes, up to one that is none.
    fn text(&self, complete: usize) -> (&str, Option<Fault>) {
        let bytes = &self.bytes[..complete];
        let (bytes, fault) = match self.too_long(bytes) {
            Some(start) => (&bytes[..start], Some(Fault::TooLong { longest: self.longest })),
            None => (bytes, None),
        };
        match std::str::from_utf8(bytes) {
            Ok(text) => (text, fault),
            Err(error) => {
                let start = memchr::memrchr(b'\n', &bytes[..error.valid_up_to()]).map_or(0, |newline| newline + 1);
                // Valid up to here; the line that is not begins here.
                (std::str::from_utf8(&bytes[..start]).unwrap_or_default(), Some(Fault::NotText))
            }
        }
    }

    /// Where the first line begins that is too long.
    fn too_long(&self, bytes: &[u8]) -> Option<usize> {
        if bytes.len() <= self.longest {
            return None;
        }
        let ends = memchr::memchr_iter(b'\n', bytes).chain((bytes.last() != Some(&b'\n')).then_some(bytes.len()));
        let mut start = 0;
        for end in ends {
            if end - start > self.longest {
                return Some(start);
            }
            start = end + 1;
        }
        None
    }
}

/// How many lines a text holds, the last of which may lack its newline.
pub(super) fn count(text: &str) -> u64 {
    let newlines = memchr::memchr_iter(b'\n', text.as_bytes()).count() as u64;
    newlines + u64::from(!text.is_empty() && !text.ends_with('\n'))
}

/// The first `lines` lines of a text, and the rest.
pub(super) fn split(text: &str, lines: u64) -> (&str, &str) {
    let Some(last) = lines.checked_sub(1) else { return ("", text) };
    let newline = memchr::memchr_iter(b'\n', text.as_bytes()).nth(usize::try_from(last).unwrap_or(usize::MAX));
    text.split_at(newline.map_or(text.len(), |newline| newline + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out when the bytes come in pieces of so many.
    fn receive(bytes: &[u8], piece: usize, longest: usize) -> (String, Option<Fault>) {
        let mut buffer = LineBuffer::new(longest);
        let mut text = String::new();
        for piece in bytes.chunks(piece) {
            buffer.room(piece.len()).copy_from_slice(piece);
            if let Some(fault) = buffer.read(piece.len(), |lines| text.push_str(lines)) {
                return (text, Some(fault));
            }
            assert!(buffer.held() <= longest);
        }
        let fault = buffer.end(|line| text.push_str(line));
        (text, fault)
    }

    #[test]
    fn lines_come_out_whole_however_they_come_in() {
        let too_long = Some(Fault::TooLong { longest: 8 });
        for (sent, text, fault) in [
            (&b""[..], "", None),
            (b"one\ntwo\n", "one\ntwo\n", None),
            (b"one\n\nthree", "one\n\nthree", None),
            ("ä ö\nü".as_bytes(), "ä ö\nü", None),
            (b"12345678\n12345678", "12345678\n12345678", None),
            (b"one\n123456789\nthree\n", "one\n", too_long),
            (b"one\n123456789", "one\n", too_long),
            (b"one\ntw\xff\nthree\n", "one\n", Some(Fault::NotText)),
            (b"\xc3\n", "", Some(Fault::NotText)),
            (b"one\ncut \xc3", "one\n", Some(Fault::NotText)),
        ] {
            for piece in 1..=sent.len().max(1) {
                assert_eq!(receive(sent, piece, 8), (text.to_owned(), fault), "{sent:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_a_line_may() {
        let mut buffer = LineBuffer::new(1_000);
        for _ in 0..10 {
            buffer.room(100).fill(b'x');
            assert_eq!(buffer.read(100, |_| panic!("no line is complete")), None);
        }
        buffer.room(1).fill(b'x');
        assert_eq!(buffer.read(1, |_| ()), Some(Fault::TooLong { longest: 1_000 }));
        assert!(buffer.bytes.capacity() < 3_000);
    }

    #[test]
    fn a_text_is_counted_and_split_by_lines() {
        for (text, lines) in [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("\n\n", 2)] {
            assert_eq!(count(text), lines, "{text:?}");
        }
        for (lines, first, rest) in
            [(0, "", "a\nb\nc"), (1, "a\n", "b\nc"), (2, "a\nb\n", "c"), (3, "a\nb\nc", ""), (9, "a\nb\nc", "")]
        {
            assert_eq!(split("a\nb\nc", lines), (first, rest));
        }
    }
}
