//! A model of a cache: lines of four sectors of 32 bytes, sixteen ways, of which the least recently used goes first.

use crate::chance;

/// Bytes of a sector.
pub(crate) const SECTOR: u64 = 32;
/// Sectors of a line.
const SECTORS: u64 = 4;
const WAYS: usize = 16;

/// What the cache does with an access to a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Was it there?
    pub hit: bool,
    /// Did it become different from what memory holds? It will be written back, once.
    pub dirtied: bool,
}

#[derive(Clone, Copy, Default)]
struct Line {
    /// Its number and one; 0 for none.
    tag: u64,
    valid: u8,
    dirty: u8,
}

/// A cache.
pub(crate) struct Cache {
    /// Each with the line used last in front.
    sets: Vec<[Line; WAYS]>,
}

impl Cache {
    /// An empty cache of so many bytes, or of one line in each way of one set.
    pub fn new(bytes: u64) -> Self {
        let sets = (bytes / (SECTOR * SECTORS * WAYS as u64)).max(1);
        Self { sets: vec![[Line::default(); WAYS]; sets as usize] }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.sets.fill([Line::default(); WAYS]);
    }

    /// Reads or overwrites a sector, which is there from then on.
    pub fn access(&mut self, sector: u64, write: bool) -> Outcome {
        let (line, bit) = (sector / SECTORS, 1 << (sector % SECTORS));
        // As devices do, so that no stride falls into few sets.
        let at = chance::mix(line) % self.sets.len() as u64;
        let set = &mut self.sets[at as usize];
        let way = set.iter().position(|way| way.tag == line + 1);
        let found = way.map_or(Line { tag: line + 1, ..Line::default() }, |way| set[way]);
        set.copy_within(..way.unwrap_or(WAYS - 1), 1);
        let outcome = Outcome { hit: found.valid & bit != 0, dirtied: write && found.dirty & bit == 0 };
        let dirty = if write { found.dirty | bit } else { found.dirty };
        set[0] = Line { valid: found.valid | bit, dirty, ..found };
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_found_again() {
        let mut cache = Cache::new(64 << 10);
        let read = |cache: &mut Cache, sectors: u64| (0..sectors).filter(|&at| !cache.access(at, false).hit).count();
        assert_eq!((read(&mut cache, 1000), read(&mut cache, 1000)), (1000, 0));
        // Eight times too much: next to nothing is left when it comes round.
        let much = 8 * (64 << 10) / SECTOR;
        assert_eq!(read(&mut cache, much), much as usize - 1000);
        assert!(read(&mut cache, much) > much as usize * 99 / 100);
        cache.clear();
        assert_eq!(read(&mut cache, 4), 4);
    }

    #[test]
    fn what_is_written_is_written_back_once() {
        let mut cache = Cache::new(64 << 10);
        assert_eq!(cache.access(5, true), Outcome { hit: false, dirtied: true });
        assert_eq!(cache.access(5, true), Outcome { hit: true, dirtied: false });
        assert_eq!(cache.access(5, false), Outcome { hit: true, dirtied: false });
        // A neighbour of the same line is not there.
        assert_eq!(cache.access(6, false), Outcome { hit: false, dirtied: false });
    }
}
