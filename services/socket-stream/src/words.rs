//! What a source sends: lines of words, each a function of the seed, the stream and the line's number.
//!
//! The one rule: a line costs nothing when it is due. Some ten thousand lines are made beforehand and sent in a ring, so
//! that millions of lines a second are slices of one text.

use rand::RngExt as _;
use rand_distr::{Distribution as _, Zipf};

use crate::Settings;

/// At most so many lines in a ring,
const MOST_LINES: usize = 65_536;
/// at least so many however long they are,
const FEWEST_LINES: usize = 4;
/// and between the two about so many bytes.
const RING_BYTES: usize = 8 << 20;

/// The lines of one stream, again and again from the first when the last was sent.
pub struct Lines {
    /// All lines, each with its newline.
    text: String,
    /// Where each line begins in the text; and the text's end.
    starts: Vec<u32>,
}

impl Lines {
    /// The lines that these settings ask for. A skew above 0 is the exponent of a Zipf distribution: word `k` is as
    /// frequent as `1 / (k + 1)^skew`.
    pub fn new(settings: &Settings, seed: u64, stream: u32) -> Self {
        let words = settings.words_per_line.max(1) as usize;
        let vocabulary = u64::from(settings.vocabulary.max(1));
        let mut rng = kit::rng(stream_seed(seed, stream), "source/words");
        // Cannot fail: there is a word, and the exponent is above 0.
        let zipf = (settings.skew > 0.0).then(|| Zipf::new(vocabulary as f64, settings.skew).ok()).flatten();
        let mut word = || match &zipf {
            Some(zipf) => zipf.sample(&mut rng) as u64 - 1,
            None => rng.random_range(0..vocabulary),
        };
        let count = (RING_BYTES / (8 * words)).clamp(FEWEST_LINES, MOST_LINES);
        let mut text = String::with_capacity(count * words * 8);
        let mut starts = Vec::with_capacity(count + 1);
        for _ in 0..count {
            starts.push(text.len() as u32);
            for place in 0..words {
                text.push_str(if place == 0 { "word" } else { " word" });
                text.push_str(&word().to_string());
            }
            text.push('\n');
        }
        starts.push(text.len() as u32);
        Self { text, starts }
    }

    /// Line `n`, without its newline.
    pub fn line(&self, n: u64) -> &str {
        let index = (n % self.count()) as usize;
        &self.text[self.starts[index] as usize..self.starts[index + 1] as usize - 1]
    }

    /// The bytes from byte `offset` of line `n` on: at most `lines` lines, at most `bytes` bytes, and not beyond the end
    /// of the ring.
    pub(crate) fn piece(&self, n: u64, offset: usize, lines: u64, bytes: usize) -> &[u8] {
        let first = (n % self.count()) as usize;
        let last = first as u64 + lines.min(self.count() - first as u64);
        let start = self.starts[first] as usize + offset;
        let end = (self.starts[last as usize] as usize).min(start + bytes);
        &self.text.as_bytes()[start..end.max(start)]
    }

    /// Where one is after `bytes` more than byte `offset` of line `n`, within one piece: lines ended, and the offset in
    /// the line begun.
    pub(crate) fn advance(&self, n: u64, offset: usize, bytes: usize) -> (u64, usize) {
        let first = (n % self.count()) as usize;
        let at = self.starts[first] as usize + offset + bytes;
        // The last line that begins at or before the place.
        let line = self.starts.partition_point(|start| *start as usize <= at) - 1;
        ((line - first) as u64, at - self.starts[line] as usize)
    }

    fn count(&self) -> u64 {
        self.starts.len() as u64 - 1
    }
}

/// When the lines of one stream are due, in ns since the stream's origin. Every stream has the whole schedule.
pub fn schedule(settings: &Settings, seed: u64, stream: u32) -> kit::Schedule {
    kit::Schedule::new(&settings.stages, settings.poisson, stream_seed(seed, stream))
}

/// Streams of one seed differ, and stream 0 is what the seed says.
fn stream_seed(seed: u64, stream: u32) -> u64 {
    seed.wrapping_add(u64::from(stream))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn counts(lines: &Lines) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for n in 0..lines.count() {
            for word in lines.line(n).split(' ') {
                *counts.entry(word.to_owned()).or_default() += 1;
            }
        }
        counts
    }

    #[test]
    fn a_stream_is_the_same_for_the_same_seed_and_another_for_another_stream() {
        let lines = |seed, stream| {
            let lines = Lines::new(&Settings::default(), seed, stream);
            (0..5).map(|n| lines.line(n).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(lines(7, 0), lines(7, 0));
        assert_ne!(lines(7, 0), lines(7, 1));
        assert_ne!(lines(7, 0), lines(8, 0));
        assert!(lines(7, 0).iter().all(|line| line.split(' ').count() == 3));
    }

    #[test]
    fn words_are_uniform_without_skew_and_the_first_are_frequent_with_it() {
        let uniform = counts(&Lines::new(&Settings::default(), 7, 0));
        assert_eq!(uniform.len(), 50);
        assert!(uniform.values().all(|count| (3_500..4_400).contains(count)), "{uniform:?}");
        let skewed = counts(&Lines::new(&Settings { skew: 1.0, ..Settings::default() }, 7, 0));
        // Of 196,608 words, word0 has 1 / H(50) = 22 %, and word1 half of that.
        assert!((42_500..45_000).contains(&skewed["word0"]), "{skewed:?}");
        assert!((21_000..22_700).contains(&skewed["word1"]), "{skewed:?}");
    }

    #[test]
    fn long_lines_make_a_small_ring() {
        let lines = Lines::new(&Settings { words_per_line: 1_000_000, ..Settings::default() }, 7, 0);
        assert_eq!(lines.count(), FEWEST_LINES as u64);
    }

    #[test]
    fn pieces_follow_one_another_around_the_ring_however_they_are_cut() {
        let lines = Lines::new(&Settings { words_per_line: 20_000, ..Settings::default() }, 7, 0);
        let (mut n, mut offset, mut sent) = (0, 0, Vec::new());
        let whole = 2 * lines.text.len() + 10;
        while sent.len() < whole {
            let piece = lines.piece(n, offset, 10, 100_000);
            assert!(!piece.is_empty());
            sent.extend_from_slice(piece);
            let (ended, within) = lines.advance(n, offset, piece.len());
            (n, offset) = (n + ended, within);
        }
        let expected: Vec<u8> = lines.text.bytes().cycle().take(sent.len()).collect();
        assert!(sent == expected);
    }
}
