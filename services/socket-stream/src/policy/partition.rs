//! Which partition a record or a key belongs to.
//!
//! The one rule: it depends on the record's place or the key's bytes alone, so that every engine and every run agrees.

/// Where the records of the `input`-th partition begin to be dealt out over `partitions`: the reference's own draw, which
/// is a generator seeded with the number of the partition.
pub fn start_of(input: u32, partitions: u32) -> u32 {
    // The first record goes to the partition after the one that is drawn.
    (JavaRandom::new(i64::from(byteswap32(input as i32))).below(partitions) + 1) % partitions
}

/// How many of `len` records each of `partitions` gets when they are dealt out in turn from `start` on: the i-th goes to
/// `(start + i) mod partitions`.
pub fn round_robin(start: u32, len: u64, partitions: u32) -> impl Iterator<Item = u64> {
    let each = len / u64::from(partitions);
    let more = len % u64::from(partitions);
    (0..partitions).map(move |partition| {
        let turn =
            (u64::from(partition) + u64::from(partitions) - u64::from(start % partitions)) % u64::from(partitions);
        each + u64::from(turn < more)
    })
}

/// The partition of a key, by FNV-1a in 32 bits.
#[inline]
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    let hash = key.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash % partitions
}

/// `scala.util.hashing.byteswap32`.
fn byteswap32(number: i32) -> i32 {
    const FACTOR: i32 = 0x9e37_75cd_u32 as i32;
    number.wrapping_mul(FACTOR).swap_bytes().wrapping_mul(FACTOR)
}

/// `java.util.Random`: a linear congruential generator of 48 bits (Knuth, TAOCP 2, 3.2.1).
struct JavaRandom(u64);

impl JavaRandom {
    const FACTOR: u64 = 0x5_deec_e66d;
    const MASK: u64 = (1 << 48) - 1;

    fn new(seed: i64) -> Self {
        Self((seed as u64 ^ Self::FACTOR) & Self::MASK)
    }

    fn bits31(&mut self) -> i32 {
        self.0 = (self.0.wrapping_mul(Self::FACTOR).wrapping_add(0xb)) & Self::MASK;
        (self.0 >> 17) as i32
    }

    fn below(&mut self, bound: u32) -> u32 {
        let bound = bound as i32;
        if bound & (bound - 1) == 0 {
            return ((i64::from(bound) * i64::from(self.bits31())) >> 31) as u32;
        }
        loop {
            let bits = self.bits31();
            let drawn = bits % bound;
            // The last, incomplete stretch of the generator's range would favour small numbers.
            if bits.wrapping_sub(drawn).wrapping_add(bound - 1) >= 0 {
                return drawn as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_that_of_java() {
        let mut random = JavaRandom::new(42);
        assert_eq!([(); 5].map(|()| random.below(10)), [0, 3, 8, 4, 0]);
        let mut random = JavaRandom::new(0);
        assert_eq!([(); 3].map(|()| random.below(1 << 30) >> 20), [748, 851, 246]);
    }

    #[test]
    fn a_deal_gives_each_its_turn_and_loses_none() {
        for (start, len, partitions, counts) in [
            (0, 0, 4, vec![0, 0, 0, 0]),
            (0, 5, 4, vec![2, 1, 1, 1]),
            (3, 5, 4, vec![1, 1, 1, 2]),
            (2, 7, 4, vec![2, 1, 2, 2]),
            (0, 3, 1, vec![3]),
        ] {
            let dealt: Vec<_> = round_robin(start, len, partitions).collect();
            assert_eq!(dealt, counts, "start {start}, {len} records");
            let mut one_by_one = vec![0; partitions as usize];
            (0..len).for_each(|i| one_by_one[((u64::from(start) + i) % u64::from(partitions)) as usize] += 1);
            assert_eq!(dealt, one_by_one);
        }
    }

    #[test]
    fn starts_are_spread_and_always_the_same() {
        let starts: Vec<_> = (0..10).map(|input| start_of(input, 4)).collect();
        assert_eq!(starts, (0..10).map(|input| start_of(input, 4)).collect::<Vec<_>>());
        assert!((0..4).all(|partition| (0..40).any(|input| start_of(input, 4) == partition)));
        assert_eq!(start_of(7, 1), 0);
    }

    #[test]
    fn the_fifty_words_are_spread_as_the_study_says() {
        for (partitions, keys) in [(4, vec![13, 12, 12, 13]), (8, vec![5, 7, 5, 5, 8, 5, 7, 8])] {
            let mut found = vec![0; partitions as usize];
            (0..50).for_each(|word| found[partition_of(format!("word{word}").as_bytes(), partitions) as usize] += 1);
            assert_eq!(found, keys);
        }
    }
}
