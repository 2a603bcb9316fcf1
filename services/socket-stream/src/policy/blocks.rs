//! What is in a block, which blocks are in a batch, and how much may be held.
//!
//! The one rule: a record is in exactly one block and a block in exactly one batch. A block that would be empty is not
//! made; a batch takes every block that is there.

/// A block by name: the stream it is of, and its number in that stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// Its stream, which is its receiver's number.
    pub stream: u32,
    /// Its number, from 0.
    pub number: u64,
}

/// What a receiver got in one block interval, without the records themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which it is.
    pub id: BlockId,
    /// How many records it holds, at least 1.
    pub records: u64,
    /// How many bytes they are.
    pub bytes: u64,
    /// Which line of its stream the first of them is, from 0; none where that is not known, as after a restart.
    pub first_line: Option<u64>,
    /// The block tick that closed it.
    pub closed_ns: u64,
}

/// Gathers what one receiver gets into blocks.
#[derive(Clone, Debug)]
pub struct BlockGenerator {
    stream: u32,
    made: u64,
    records: u64,
    bytes: u64,
    first_line: Option<u64>,
    total_records: u64,
}

impl BlockGenerator {
    /// That of the receiver of `stream`.
    pub fn new(stream: u32) -> Self {
        Self { stream, made: 0, records: 0, bytes: 0, first_line: None, total_records: 0 }
    }

    /// Adds records that follow one another in their stream, the first of which is line `first_line`, if that is known.
    pub fn add(&mut self, records: u64, bytes: u64, first_line: Option<u64>) {
        if self.records == 0 {
            self.first_line = first_line;
        } else if first_line.is_none() {
            self.first_line = None;
        }
        self.records += records;
        self.bytes += bytes;
        self.total_records += records;
    }

    /// The block of what was added since the last tick; none when that is nothing.
    pub fn close(&mut self, tick_ns: u64) -> Option<Block> {
        if self.records == 0 {
            return None;
        }
        let id = BlockId { stream: self.stream, number: self.made };
        let block =
            Block { id, records: self.records, bytes: self.bytes, first_line: self.first_line, closed_ns: tick_ns };
        self.made += 1;
        (self.records, self.bytes, self.first_line) = (0, 0, None);
        Some(block)
    }

    /// Records added since the beginning.
    pub fn total_records(&self) -> u64 {
        self.total_records
    }
}

/// The blocks of every stream that are in no batch yet.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    waiting: Vec<Block>,
}

impl Allocator {
    /// Adds one.
    pub fn add(&mut self, block: Block) {
        self.waiting.push(block);
    }

    /// All of them, for one batch: stream by stream, in the order they were made.
    pub fn take_all(&mut self) -> Vec<Block> {
        let mut blocks = std::mem::take(&mut self.waiting);
        blocks.sort_by_key(|block| block.id);
        blocks
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// How many bytes may be received and not yet finished.
#[derive(Clone, Debug)]
pub struct MemoryBound {
    limit_bytes: u64,
    held_bytes: u64,
}

impl MemoryBound {
    /// Nothing held of at most `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, held_bytes: 0 }
    }

    /// Holds `bytes` more, unless that would be too many.
    #[must_use = "what is refused must not be read"]
    pub fn hold(&mut self, bytes: u64) -> bool {
        let fits = bytes <= self.free_bytes();
        if fits {
            self.held_bytes += bytes;
        }
        fits
    }

    /// Gives back what a batch held.
    pub fn release(&mut self, bytes: u64) {
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
    }

    /// Bytes held.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Bytes that may be held yet.
    pub fn free_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.held_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_interval_makes_no_block() {
        let mut generator = BlockGenerator::new(3);
        assert_eq!(generator.close(200), None);
        generator.add(2, 30, Some(0));
        generator.add(1, 10, Some(2));
        let block = generator.close(400).unwrap();
        let id = BlockId { stream: 3, number: 0 };
        assert_eq!(block, Block { id, records: 3, bytes: 40, first_line: Some(0), closed_ns: 400 });
        assert_eq!(generator.close(600), None);
        generator.add(1, 10, Some(3));
        let block = generator.close(800).unwrap();
        assert_eq!((block.id.number, block.first_line, generator.total_records()), (1, Some(3), 4));
    }

    #[test]
    fn a_block_with_an_unknown_line_knows_none() {
        let mut generator = BlockGenerator::new(0);
        generator.add(2, 20, Some(0));
        generator.add(2, 20, None);
        generator.add(2, 20, Some(9));
        assert_eq!(generator.close(1).unwrap().first_line, None);
        generator.add(2, 20, Some(11));
        assert_eq!(generator.close(2).unwrap().first_line, Some(11));
    }

    #[test]
    fn a_batch_takes_every_block_stream_by_stream() {
        let mut allocator = Allocator::default();
        for (stream, number) in [(1, 0), (0, 4), (1, 1), (0, 5)] {
            let id = BlockId { stream, number };
            allocator.add(Block { id, records: 1, bytes: 1, first_line: None, closed_ns: 0 });
        }
        let taken: Vec<_> = allocator.take_all().iter().map(|block| (block.id.stream, block.id.number)).collect();
        assert_eq!(taken, [(0, 4), (0, 5), (1, 0), (1, 1)]);
        assert!(allocator.is_empty() && allocator.take_all().is_empty());
    }

    #[test]
    fn no_more_is_held_than_the_bound() {
        let mut memory = MemoryBound::new(100);
        assert!(memory.hold(60) && !memory.hold(41) && memory.hold(40) && !memory.hold(1));
        memory.release(60);
        assert_eq!((memory.held_bytes(), memory.free_bytes()), (40, 60));
    }
}
