//! How many partitions printing looks at.
//!
//! The one rule: as few as the rows seen so far let hope for. The first scan is of one partition; each further one is a
//! job of its own, of four times as many as were scanned where no row was seen, of half as many again as the rows suggest
//! otherwise. Printing n rows takes n + 1, so that it knows whether there are more.

use std::ops::Range;

/// The scan of one output operation.
#[derive(Clone, Debug)]
pub struct Take {
    wanted: u32,
    partitions: u32,
    scanned: u32,
    rows: u32,
}

impl Take {
    /// A scan for `wanted` rows in `partitions`.
    pub fn new(wanted: u32, partitions: u32) -> Self {
        Self { wanted, partitions, scanned: 0, rows: 0 }
    }

    /// Rows that are still wanted: what each partition of the next scan is asked for.
    pub fn missing(&self) -> u32 {
        self.wanted.saturating_sub(self.rows)
    }

    /// The partitions of the next job; none when there are enough rows, or no partition is left.
    pub fn next_scan(&self) -> Option<Range<u32>> {
        if self.missing() == 0 || self.scanned >= self.partitions {
            return None;
        }
        let tried = match (self.scanned, self.rows) {
            (0, _) => 1,
            (scanned, 0) => scanned.saturating_mul(4),
            (scanned, rows) => {
                let hoped = (1.5 * f64::from(self.wanted) * f64::from(scanned) / f64::from(rows)) as i64;
                (hoped - i64::from(scanned)).clamp(1, i64::from(scanned) * 4) as u32
            }
        };
        Some(self.scanned..self.partitions.min(self.scanned.saturating_add(tried)))
    }

    /// The next job has ended and gave `rows` more.
    pub fn scanned(&mut self, scan: &Range<u32>, rows: u32) {
        self.scanned = scan.end;
        self.rows = self.rows.saturating_add(rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scans, where each partition holds so many rows.
    fn scans(wanted: u32, rows: &[u32]) -> Vec<Range<u32>> {
        let mut take = Take::new(wanted, rows.len() as u32);
        let mut scans = Vec::new();
        while let Some(scan) = take.next_scan() {
            let missing = take.missing();
            let found = rows[scan.start as usize..scan.end as usize].iter().map(|rows| missing.min(*rows)).sum();
            take.scanned(&scan, found);
            scans.push(scan);
        }
        scans
    }

    #[test]
    fn one_partition_first_and_then_as_the_rows_suggest() {
        for (wanted, rows, expected) in [
            // The two published settings: 50 words over 4 and over 8 partitions.
            (6, vec![13, 12, 12, 13], vec![(0, 1)]),
            (6, vec![5, 7, 5, 5, 8, 5, 7, 8], vec![(0, 1), (1, 2)]),
            // No row yet: four times as many.
            (6, vec![0; 30], vec![(0, 1), (1, 5), (5, 25), (25, 30)]),
            // 1 row of 6: 1.5 x 6 x 1 / 1 - 1 = 8, but at most four times as many.
            (6, vec![1; 30], vec![(0, 1), (1, 5), (5, 9)]),
            (6, vec![2, 2, 2, 2], vec![(0, 1), (1, 4)]),
            (6, vec![1, 1], vec![(0, 1), (1, 2)]),
            (1, vec![0, 1], vec![(0, 1), (1, 2)]),
            (0, vec![3], vec![]),
            (6, vec![], vec![]),
        ] {
            let found: Vec<_> = scans(wanted, &rows).iter().map(|scan| (scan.start, scan.end)).collect();
            assert_eq!(found, expected, "{wanted} of {rows:?}");
        }
    }
}
