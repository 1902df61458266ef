//! Bytes that say where they belong: each word of eight encodes the run's seed, its connection, its
//! direction and its place. So a wrong byte is known for lost, repeated, mixed or invented.

use std::fmt;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

/// One direction of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    seed: u64,
    pub id: u32,
    pub way: Way,
}

/// What a wrong byte is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// What should be here never came; what is here belongs this much later.
    Lost(u64),
    /// What is here has come before, this much earlier.
    Repeated(u64),
    /// It belongs to another connection or direction.
    Mixed(u32, Way),
    /// It belongs nowhere.
    Invented,
}

const WORD: u64 = 8;

impl Pattern {
    pub fn new(seed: u64, id: u32, way: Way) -> Self {
        Self { seed, id, way }
    }

    /// The word at this place; every seed gives another permutation of all words.
    fn word(self, index: u64) -> [u8; 8] {
        let way = u64::from(self.way == Way::Down);
        scramble(((u64::from(self.id) << 1 | way) << 31 | index) ^ scramble(self.seed)).to_le_bytes()
    }

    /// Whose word this is, and its place there.
    fn of_word(seed: u64, word: [u8; 8]) -> (Self, u64) {
        let plain = unscramble(u64::from_le_bytes(word)) ^ scramble(seed);
        let way = if plain >> 31 & 1 == 1 { Way::Down } else { Way::Up };
        let id = u32::try_from(plain >> 32).expect("32 bits");
        (Self { seed, id, way }, plain & ((1 << 31) - 1))
    }

    /// Who begins with these bytes.
    pub fn beginning(seed: u64, word: [u8; 8]) -> Option<Self> {
        let (whose, index) = Self::of_word(seed, word);
        (index == 0).then_some(whose)
    }

    /// Fills a buffer with what belongs at this offset.
    pub fn fill(self, offset: u64, buffer: &mut [u8]) {
        let mut rest = buffer;
        let mut index = offset / WORD;
        let mut skip = usize::try_from(offset % WORD).expect("below 8");
        while !rest.is_empty() {
            let word = self.word(index);
            let count = (8 - skip).min(rest.len());
            rest[..count].copy_from_slice(&word[skip..skip + count]);
            rest = &mut rest[count..];
            (index, skip) = (index + 1, 0);
        }
    }

    /// Compares bytes with what belongs at this offset.
    pub fn check(self, offset: u64, bytes: &[u8], known: u32) -> Result<(), (u64, Wrong)> {
        let mut right = vec![0; bytes.len()];
        self.fill(offset, &mut right);
        if right == bytes {
            return Ok(());
        }
        let first = right.iter().zip(bytes).position(|(right, is)| right != is).expect("they differ");
        Err((offset + first as u64, self.name(offset + first as u64, &bytes[first..], known)))
    }

    /// What bytes are that do not belong at this offset; connections from `known` on don't exist.
    fn name(self, offset: u64, bytes: &[u8], known: u32) -> Wrong {
        for skip in 0..8.min(bytes.len()) {
            let Some(two) = bytes.get(skip..skip + 16) else { break };
            let (first, second) = two.split_at(8);
            let (whose, index) = Self::of_word(self.seed, first.try_into().expect("8 bytes"));
            if whose.id >= known || second != whose.word(index + 1) {
                continue;
            }
            if whose != self {
                return Wrong::Mixed(whose.id, whose.way);
            }
            let (is, should) = (index * WORD, offset + skip as u64);
            return if is > should { Wrong::Lost(is - should) } else { Wrong::Repeated(should - is) };
        }
        Wrong::Invented
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(count) => write!(f, "{count} bytes lost"),
            Self::Repeated(count) => write!(f, "bytes repeated from {count} before"),
            Self::Mixed(id, way) => write!(f, "bytes of connection {id} ({way:?}) mixed in"),
            Self::Invented => write!(f, "bytes invented or damaged"),
        }
    }
}

/// A permutation of 64 bits: the last steps of splitmix64.
pub fn scramble(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

fn unscramble(mut x: u64) -> u64 {
    x = (x ^ x >> 31 ^ x >> 62).wrapping_mul(0x3196_42b2_d24d_8ec3);
    x = (x ^ x >> 27 ^ x >> 54).wrapping_mul(0x96de_1b17_3f11_9089);
    x ^ x >> 30 ^ x >> 60
}

/// The pattern tells each kind of wrong byte from the others, or the run could not.
pub fn tells_wrong_bytes_apart() {
    let up = Pattern::new(7, 3, Way::Up);
    let bytes = |pattern: Pattern, offset: u64, count: usize| {
        let mut bytes = vec![0; count];
        pattern.fill(offset, &mut bytes);
        bytes
    };
    for offset in [0, 1, 8, 13, 1 << 33] {
        assert_eq!(up.check(offset, &bytes(up, offset, 100), 10), Ok(()));
        assert_eq!(up.check(offset, &bytes(up, offset + 5, 100), 10).unwrap_err().1, Wrong::Lost(5));
    }
    assert_eq!(up.check(21, &bytes(up, 20, 100), 10).unwrap_err().1, Wrong::Repeated(1));
    for other in [Pattern::new(7, 4, Way::Up), Pattern::new(7, 3, Way::Down)] {
        let wrong = up.check(21, &bytes(other, 21, 100), 10).unwrap_err().1;
        assert_eq!(wrong, Wrong::Mixed(other.id, other.way));
    }
    assert_eq!(up.check(0, &[0; 100], 10).unwrap_err().1, Wrong::Invented);
    assert_eq!(Pattern::beginning(7, bytes(up, 0, 8).try_into().unwrap()), Some(up));
}
