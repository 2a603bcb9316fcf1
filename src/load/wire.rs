//! HTTP/1.1 answers, read as they arrive.
//!
//! The one rule: [`Answer::feed`] takes any split of the bytes, keeps what a check needs and nothing else. A body that
//! nobody looks at is counted and thrown away where it lies, so an idle connection holds a few hundred bytes.

use std::fmt;

/// What is known of an answer while it arrives.
#[derive(Debug, Default)]
pub struct Answer {
    /// The status code; 0 until the head is complete.
    pub status: u16,
    /// The body, where it was asked for.
    pub body: Vec<u8>,
    /// The header values that were asked for, in that order.
    pub headers: Vec<Option<String>>,
    /// Bytes of head and body so far.
    pub bytes: u64,
    /// Whether another request may follow on this connection.
    pub keep_alive: bool,
    state: State,
    /// An incomplete head or chunk size, until the rest of it comes.
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    #[default]
    Head,
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    UntilClose,
    Done,
}

/// What of an answer is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Whether the request was HEAD, so that no body follows whatever the head says.
    pub head_only: bool,
    /// Whether the body is looked at.
    pub body: bool,
    /// Names of headers to keep, in lower case.
    pub headers: &'a [String],
}

/// What the peer did that is not HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed answer: {}", self.0)
    }
}

/// The longest head, and the longest line of a chunked body, that is accepted.
const LONGEST_HEAD: usize = 64 * 1024;
const MOST_HEADERS: usize = 100;

impl Answer {
    /// Makes it ready for the next answer; buffers keep their size.
    pub fn reset(&mut self) {
        self.status = 0;
        self.body.clear();
        self.headers.clear();
        self.bytes = 0;
        self.keep_alive = false;
        self.state = State::Head;
        self.held.clear();
    }

    /// Whether it is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes bytes as they arrive, and says how many of them belong to this answer: all of them until it is done.
    ///
    /// # Errors
    /// What is not HTTP about it; the connection is of no more use.
    pub fn feed(&mut self, mut input: &[u8], wanted: Wanted<'_>) -> Result<usize, Malformed> {
        let given = input.len();
        while !input.is_empty() && self.state != State::Done {
            let used = match self.state {
                State::Head => self.feed_head(input, wanted)?,
                State::Length(left) => self.feed_length(input, left, wanted.body),
                State::ChunkSize => self.feed_chunk_size(input)?,
                State::Chunk(left) => self.feed_chunk(input, left, wanted.body),
                State::ChunkEnd => self.feed_chunk_end(input)?,
                State::Trailer => self.feed_trailer(input)?,
                State::UntilClose => self.keep(input, wanted.body),
                State::Done => 0,
            };
            self.bytes += used as u64;
            input = &input[used..];
        }
        Ok(given - input.len())
    }

    /// The peer closed the connection: whether that completes the answer.
    pub fn close(&mut self) -> bool {
        if self.state == State::UntilClose {
            self.state = State::Done;
        }
        self.is_done()
    }

    fn feed_head(&mut self, input: &[u8], wanted: Wanted<'_>) -> Result<usize, Malformed> {
        if self.held.is_empty() {
            // The usual case: the head came in one piece, and is read where it lies.
            if let Some(length) = self.parse_head(input, wanted)? {
                return Ok(length);
            }
            self.hold(input)?;
            return Ok(input.len());
        }
        let before = self.held.len();
        let mut head = std::mem::take(&mut self.held);
        head.extend_from_slice(input);
        let parsed = self.parse_head(&head, wanted);
        self.held = head;
        match parsed? {
            Some(length) => {
                self.held.clear();
                Ok(length - before)
            }
            None if self.held.len() > LONGEST_HEAD => Err(Malformed("a head of more than 64 KiB")),
            None => Ok(input.len()),
        }
    }

    fn hold(&mut self, input: &[u8]) -> Result<(), Malformed> {
        if self.held.len() + input.len() > LONGEST_HEAD {
            return Err(Malformed("a head of more than 64 KiB"));
        }
        self.held.extend_from_slice(input);
        Ok(())
    }

    /// The length of the head, once it is complete.
    fn parse_head(&mut self, input: &[u8], wanted: Wanted<'_>) -> Result<Option<usize>, Malformed> {
        let mut headers = [const { std::mem::MaybeUninit::uninit() }; MOST_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let length = match config.parse_response_with_uninit_headers(&mut response, input, &mut headers) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Malformed("more than 100 headers")),
            Err(httparse::Error::Version) => return Err(Malformed("not HTTP/1.1")),
            Err(httparse::Error::Status) => return Err(Malformed("the status line")),
            Err(_) => return Err(Malformed("the head")),
        };
        let status = response.code.unwrap_or(0);
        if (100..200).contains(&status) {
            // An interim answer: the real one follows.
            return if status == 101 { Err(Malformed("a switch of protocols")) } else { Ok(Some(length)) };
        }
        self.status = status;
        let framing = Framing::of(response.headers, response.version == Some(1))?;
        self.keep_alive = framing.keep_alive;
        if !wanted.headers.is_empty() {
            self.headers.extend(wanted.headers.iter().map(|name| header(response.headers, name)));
        }
        self.state = match framing {
            _ if wanted.head_only || status == 204 || status == 304 => State::Done,
            Framing { chunked: true, .. } => State::ChunkSize,
            Framing { length: Some(0), .. } => State::Done,
            Framing { length: Some(length), .. } => State::Length(length),
            Framing { .. } => {
                self.keep_alive = false;
                State::UntilClose
            }
        };
        Ok(Some(length))
    }

    fn keep(&mut self, input: &[u8], wanted: bool) -> usize {
        if wanted {
            self.body.extend_from_slice(input);
        }
        input.len()
    }

    fn feed_length(&mut self, input: &[u8], left: u64, wanted: bool) -> usize {
        let used = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.keep(&input[..used], wanted);
        self.state = if used as u64 == left { State::Done } else { State::Length(left - used as u64) };
        used
    }

    /// Collects a line in `held`; says how much was used and whether the line is complete.
    fn feed_line(&mut self, input: &[u8]) -> Result<(usize, bool), Malformed> {
        match memchr::memchr(b'\n', input) {
            Some(end) => {
                self.hold(&input[..end])?;
                if self.held.last() == Some(&b'\r') {
                    self.held.pop();
                }
                Ok((end + 1, true))
            }
            None => {
                self.hold(input)?;
                Ok((input.len(), false))
            }
        }
    }

    fn feed_chunk_size(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        let (used, complete) = self.feed_line(input)?;
        if complete {
            let size = chunk_size(&self.held)?;
            self.held.clear();
            self.state = if size == 0 { State::Trailer } else { State::Chunk(size) };
        }
        Ok(used)
    }

    fn feed_chunk(&mut self, input: &[u8], left: u64, wanted: bool) -> usize {
        let used = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.keep(&input[..used], wanted);
        self.state = if used as u64 == left { State::ChunkEnd } else { State::Chunk(left - used as u64) };
        used
    }

    fn feed_chunk_end(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        let (used, complete) = self.feed_line(input)?;
        if !self.held.is_empty() && self.held != b"\r" {
            return Err(Malformed("a chunk that is longer than it says"));
        }
        if complete {
            self.held.clear();
            self.state = State::ChunkSize;
        }
        Ok(used)
    }

    fn feed_trailer(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        let (used, complete) = self.feed_line(input)?;
        if complete {
            if self.held.is_empty() {
                self.state = State::Done;
            }
            self.held.clear();
        }
        Ok(used)
    }
}

/// How the end of a body is known (RFC 9112, 6.3).
struct Framing {
    length: Option<u64>,
    chunked: bool,
    keep_alive: bool,
}

impl Framing {
    fn of(headers: &[httparse::Header<'_>], http_1_1: bool) -> Result<Self, Malformed> {
        let mut framing = Self { length: None, chunked: false, keep_alive: http_1_1 };
        for header in headers {
            // The length of a name tells all but a few apart without a comparison.
            match header.name.len() {
                14 if header.name.eq_ignore_ascii_case("content-length") => framing.set_length(header.value)?,
                17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                    framing.chunked = has_token(header.value, b"chunked");
                    if !framing.chunked {
                        return Err(Malformed("a transfer encoding other than chunked"));
                    }
                }
                10 if header.name.eq_ignore_ascii_case("connection") => {
                    if has_token(header.value, b"close") {
                        framing.keep_alive = false;
                    } else if has_token(header.value, b"keep-alive") {
                        framing.keep_alive = true;
                    }
                }
                _ => {}
            }
        }
        Ok(framing)
    }

    fn set_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let wrong = Malformed("the content length");
        let value = value.trim_ascii();
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(wrong);
        }
        let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(wrong)?;
        if self.length.is_some_and(|before| before != length) {
            return Err(Malformed("two content lengths"));
        }
        self.length = Some(length);
        Ok(())
    }
}

fn has_token(value: &[u8], token: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}

fn header(headers: &[httparse::Header<'_>], name: &str) -> Option<String> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    Some(String::from_utf8_lossy(header.value).into_owned())
}

fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let wrong = Malformed("a chunk size");
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if size.is_empty() || !size.iter().all(u8::is_ascii_hexdigit) {
        return Err(wrong);
    }
    let size = std::str::from_utf8(size).map_err(|_| wrong)?;
    u64::from_str_radix(size, 16).map_err(|_| wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Wanted<'_> = Wanted { head_only: false, body: true, headers: &[] };

    /// (status, body, keep-alive), or why not; the answer must come out the same at every split of its bytes.
    fn read(text: &str, wanted: Wanted<'_>) -> Result<(u16, String, bool), String> {
        let whole = read_in_pieces(&[text.as_bytes()], wanted);
        for at in 0..=text.len() {
            let (a, b) = text.as_bytes().split_at(at);
            assert_eq!(read_in_pieces(&[a, b], wanted), whole, "split at {at}");
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(read_in_pieces(&bytes, wanted), whole, "byte by byte");
        whole
    }

    fn read_in_pieces(pieces: &[&[u8]], wanted: Wanted<'_>) -> Result<(u16, String, bool), String> {
        let mut answer = Answer::default();
        let mut left_over = 0;
        for piece in pieces {
            let used = answer.feed(piece, wanted).map_err(|error| error.to_string())?;
            left_over += piece.len() - used;
        }
        if left_over > 0 {
            return Err(format!("{left_over} bytes too many"));
        }
        if !answer.close() {
            return Err("incomplete".into());
        }
        Ok((answer.status, String::from_utf8(answer.body).unwrap(), answer.keep_alive))
    }

    fn ok(status: u16, body: &str, keep_alive: bool) -> Result<(u16, String, bool), String> {
        Ok((status, body.to_owned(), keep_alive))
    }

    #[test]
    fn every_framing_is_read_at_every_split() {
        for (text, expect) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", ok(200, "hello", true)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ok(200, "", true)),
            ("HTTP/1.1 204 No Content\r\n\r\n", ok(204, "", true)),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", ok(304, "", true)),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", ok(200, "hi", false)),
            ("HTTP/1.1 200 OK\r\n\r\nuntil the end", ok(200, "until the end", false)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", ok(200, "hi", false)),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nhi", ok(200, "hi", true)),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nhi", ok(201, "hi", true)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
                ok(200, "hello world", true),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nExpires: now\r\nX: y\r\n\r\n",
                ok(200, "a", true),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
                ok(200, "0123456789", true),
            ),
        ] {
            assert_eq!(read(text, ALL), expect, "{text}");
        }
    }

    #[test]
    fn what_is_not_http_is_refused_at_every_split() {
        for (text, expect) in [
            ("SSH-2.0-OpenSSH_9\r\n", "malformed answer: not HTTP/1.1"),
            ("HTTP/1.1 abc\r\n\r\n", "malformed answer: the status line"),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "malformed answer: the content length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "malformed answer: the content length"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                "malformed answer: two content lengths",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                "malformed answer: a transfer encoding other than chunked",
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "malformed answer: a chunk size"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
                "malformed answer: a chunk that is longer than it says",
            ),
            ("HTTP/1.1 101 Switching\r\n\r\n", "malformed answer: a switch of protocols"),
        ] {
            assert_eq!(read(text, ALL), Err(expect.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_answer_cut_short_is_incomplete_and_one_too_long_is_noticed() {
        for (text, expect) in [
            ("", "incomplete"),
            ("HTTP/1.1 200 OK\r\n", "incomplete"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "incomplete"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "incomplete"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc", "2 bytes too many"),
        ] {
            assert_eq!(read(text, ALL), Err(expect.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let wanted = Wanted { head_only: true, ..ALL };
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", wanted), ok(200, "", true));
        assert_eq!(read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", wanted), ok(200, "", true));
    }

    #[test]
    fn headers_are_kept_when_asked_for_and_a_body_is_not_when_nobody_looks() {
        let names = ["etag".to_owned(), "x-none".to_owned()];
        let wanted = Wanted { head_only: false, body: false, headers: &names };
        let mut answer = Answer::default();
        let text = b"HTTP/1.1 200 OK\r\nETag: \"7\"\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(answer.feed(text, wanted), Ok(text.len()));
        assert!(answer.is_done() && answer.body.is_empty());
        assert_eq!(answer.headers, [Some("\"7\"".to_owned()), None]);
        assert_eq!(answer.bytes, text.len() as u64);
    }

    #[test]
    fn an_endless_head_is_refused() {
        let mut answer = Answer::default();
        let mut fed = answer.feed(b"HTTP/1.1 200 OK\r\nX: ", ALL);
        while fed.is_ok() && answer.held.len() <= LONGEST_HEAD {
            fed = answer.feed(&[b'x'; 4096], ALL);
        }
        assert_eq!(fed, Err(Malformed("a head of more than 64 KiB")));
    }
}
